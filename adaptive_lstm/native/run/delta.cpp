#include "run/delta.h"

#include <cstring>
#include <limits>

#include "run/rows.h"

namespace alstm {

namespace {

constexpr int kRefresh = 256;  // float delta updates after which acc is recomputed: bounds the rounding error
constexpr float kFar = 64;     // the same after deltas that add up to this multiple of the values' size

}  // namespace

void ChangeList::grow(int rows, int cols) {
  const size_t n = size_t(cols) + kListSlack;
  alstm::grow(cols_, n);
  alstm::grow(delta_, n);
  alstm::grow(delta_int_, n);
  alstm::grow(gathered_, cols);
  alstm::grow(sums_, size_t(rows));
  alstm::grow(scaled_, size_t(rows));
  product_.grow(rows, cols);
}

int ChangeList::list(const Kernels& kernels, Operand& operand, int b, const float* z) {
  const PackedMatrix& packed = *operand.matrix;
  const Matrix& w = packed.view();
  DeltaState& delta = operand.delta;
  const float* values = packed.gather(z, gathered_.data());
  const float* limit = delta.nothing_sent[b] ? nullptr : operand.thresholds;
  delta.nothing_sent[b] = 0;
  if (w.format == Format::int8)
    count_ = kernels.list_changed_int8(w, values, delta.sent_int.data() + size_t(b) * w.cols, limit, packed.useful(),
                                       cols_.data(), delta_int_.data());
  else
    count_ = kernels.list_changed(values, delta.sent.data() + size_t(b) * w.cols, limit, packed.useful(), cols_.data(),
                                  delta_.data());
  return count_;
}

// acc = W * sent from scratch.
void ChangeList::recompute(const Kernels& kernels, const Matrix& w, DeltaState& delta, int b, void* kernel_scratch) {
  if (w.format == Format::int8) {
    int32_t* acc = delta.acc_int.data() + size_t(b) * w.rows;
    const int16_t* sent = delta.sent_int.data() + size_t(b) * w.cols;
    std::memset(acc, 0, w.rows * sizeof(int32_t));
    for (int c = 0; c < w.cols; c++) {
      cols_[c] = c;
      delta_int_[c] = sent[c];
    }
    kernels.columns_int8(w, cols_.data(), delta_int_.data(), w.cols, acc, false, false, kernel_scratch);
  } else {
    float* acc = delta.acc.data() + size_t(b) * w.rows;
    const float* sent = delta.sent.data() + size_t(b) * w.cols;
    std::memset(acc, 0, w.rows * sizeof(float));
    for (int c = 0; c < w.cols; c++) cols_[c] = c;
    product_.add(kernels, w, sent, acc, [&](const float* values, float* y) {
      if (w.block_sparse())
        kernels.columns(w, cols_.data(), values, w.cols, y, false);
      else
        kernels.dense(w, values, w.cols, 1, nullptr, y, w.rows, false);
    });
  }
  delta.valid[b] = 1;
  delta.age[b] = 0;
  delta.delta_sum[b] = 0;
}

// Whether rounding errors may have accumulated in a float acc: after many updates, or after values moved much further
// than their present size, as when a spike has come and gone (subtracting it leaves its rounding error behind).
bool ChangeList::needs_refresh(const Matrix& w, DeltaState& delta, int b) const {
  float& sum = delta.delta_sum[b];
  for (int i = 0; i < count_; i++) sum += delta_[i] < 0 ? -delta_[i] : delta_[i];
  if (++delta.age[b] >= kRefresh || sum > kHuge) return true;  // from an acc that overflowed nothing can be subtracted
  if (sum <= kFar) return false;
  if (!(sum <= std::numeric_limits<float>::max())) return true;  // a difference that overflowed
  const float* sent = delta.sent.data() + size_t(b) * w.cols;
  float size = 1.0f;
  for (int c = 0; c < w.cols; c++) size += sent[c] < 0 ? -sent[c] : sent[c];
  return sum > kFar * size;
}

void ChangeList::update(const Kernels& kernels, Operand& operand, int b, bool reverse, bool once,
                        void* kernel_scratch) {
  const Matrix& w = operand.view();
  DeltaState& delta = operand.delta;
  const bool integers = w.format == Format::int8;
  if (!delta.valid[b] || (!integers && count_ && needs_refresh(w, delta, b))) {
    recompute(kernels, w, delta, b, kernel_scratch);
  } else if (count_ && integers) {
    kernels.columns_int8(w, cols_.data(), delta_int_.data(), count_, delta.acc_int.data() + size_t(b) * w.rows, reverse,
                         once, kernel_scratch);
  } else if (count_) {
    kernels.columns(w, cols_.data(), delta_.data(), count_, delta.acc.data() + size_t(b) * w.rows, reverse);
  }
}

void ChangeList::put(const Kernels& kernels, const Operand& operand, int b, const float* bias, float* pre) {
  const Matrix& w = operand.view();
  if (w.format == Format::int8)
    kernels.dequantize(operand.delta.acc_int.data() + size_t(b) * w.rows, w.scale, bias, pre, w.rows);
  else
    kernels.add_bias(operand.delta.acc.data() + size_t(b) * w.rows, bias, pre, w.rows);
}

void ChangeList::send_beyond(const Kernels& kernels, Operand& operand, int b, const float* z, float* pre, bool reverse,
                             bool once, void* kernel_scratch) {
  const PackedMatrix& packed = *operand.matrix;
  const Matrix& w = operand.view();
  const float range =
      kernels.quantize(own_range(w), packed.gather(z, gathered_.data()), packed.useful(), delta_int_.data());
  for (int c = 0; c < w.cols; c++) {
    cols_[c] = c;
    if (c >= packed.useful()) delta_int_[c] = 0;
  }
  std::memset(sums_.data(), 0, w.rows * sizeof(int32_t));
  kernels.columns_int8(w, cols_.data(), delta_int_.data(), w.cols, sums_.data(), reverse, once, kernel_scratch);
  std::memset(scaled_.data(), 0, w.rows * sizeof(float));
  kernels.dequantize(sums_.data(), w.scale, nullptr, scaled_.data(), w.rows);
  for (int r = 0; r < w.rows; r++) pre[r] += range * scaled_[r];
  operand.delta.nothing_sent[b] = 1;
  list(kernels, operand, b, z);
  operand.delta.valid[b] = 0;
}

}  // namespace alstm
