#include "run/delta.h"

#include <cstring>
#include <limits>

namespace alstm {

namespace {

constexpr int kRefresh = 256;  // float delta updates after which the accumulator is recomputed: bounds the rounding
constexpr float kMoved = 64;   // how far values may move in all, as a multiple of their size, before the same

// acc = W * sent from scratch.
void recompute(const Kernels& k, const Matrix& w, Memory& m, int b, Workspace& work) {
  if (w.format == Format::int8) {
    int32_t* acc = m.acc_q.data() + size_t(b) * w.rows;
    const int16_t* sent = m.sent_q.data() + size_t(b) * w.cols;
    std::memset(acc, 0, w.rows * sizeof(int32_t));
    for (int c = 0; c < w.cols; c++) work.cols[c] = c, work.delta_q[c] = sent[c];
    k.columns_int8(w, work.cols.data(), work.delta_q.data(), w.cols, acc, false, work.scratch.data());
  } else {
    float* acc = m.acc.data() + size_t(b) * w.rows;
    std::memset(acc, 0, w.rows * sizeof(float));
    const float* sent = m.sent.data() + size_t(b) * w.cols;
    if (w.block_sparse()) {
      for (int c = 0; c < w.cols; c++) work.cols[c] = c;
      k.columns(w, work.cols.data(), sent, w.cols, acc, false);
    } else {
      k.dense(w, sent, w.cols, 1, nullptr, acc, w.rows, false);
    }
  }
  m.valid[b] = 1;
  m.age[b] = 0;
  m.moved[b] = 0;
}

// Whether rounding may have gathered in a float accumulator: after many updates, or after values moved much further
// than they now are, as when a spike has come and gone (its rounding error stays behind when the spike is subtracted).
bool needs_refresh(const Matrix& w, Memory& m, int b, int count, const Workspace& work) {
  for (int i = 0; i < count; i++) m.moved[b] += work.delta[i] < 0 ? -work.delta[i] : work.delta[i];
  if (++m.age[b] >= kRefresh) return true;
  if (m.moved[b] <= kMoved) return false;
  if (!(m.moved[b] <= std::numeric_limits<float>::max())) return true;  // a difference that overflowed
  const float* sent = m.sent.data() + size_t(b) * w.cols;
  float size = 1.0f;
  for (int c = 0; c < w.cols; c++) size += sent[c] < 0 ? -sent[c] : sent[c];
  return m.moved[b] > kMoved * size;
}

}  // namespace

int list_changed(const Kernels& k, const Matrix& w, Memory& m, int b, const float* z, int cols, const float* thresholds,
                 Workspace& work) {
  const float* limit = m.fresh[b] ? nullptr : thresholds;
  m.fresh[b] = 0;
  if (w.format == Format::int8)
    return k.list_changed_int8(w, z, m.sent_q.data() + size_t(b) * w.cols, limit, cols, work.cols.data(), work.delta_q.data());
  return k.list_changed(z, m.sent.data() + size_t(b) * w.cols, limit, cols, work.cols.data(), work.delta.data());
}

void send_listed(const Kernels& k, const Matrix& w, Memory& m, int b, int count, const float* bias, float* pre,
                 bool reverse, Workspace& work) {
  if (w.format == Format::int8) {
    int32_t* acc = m.acc_q.data() + size_t(b) * w.rows;
    if (!m.valid[b])
      recompute(k, w, m, b, work);
    else if (count)
      k.columns_int8(w, work.cols.data(), work.delta_q.data(), count, acc, reverse, work.scratch.data());
    k.dequantize(acc, w.scale, bias, pre, w.rows);
  } else {
    float* acc = m.acc.data() + size_t(b) * w.rows;
    if (!m.valid[b] || (count && needs_refresh(w, m, b, count, work)))
      recompute(k, w, m, b, work);
    else if (count)
      k.columns(w, work.cols.data(), work.delta.data(), count, acc, reverse);
    k.add_bias(acc, bias, pre, w.rows);
  }
}

}  // namespace alstm
