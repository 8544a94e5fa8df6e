// Advancing a state: every layer over a whole sequence, or over one step.
//
// Layer by layer, and inside a layer in chunks of timesteps: the input side of a chunk is one matrix product (its
// timesteps are known), the recurrent side goes step by step. Nothing below allocates once the buffers have grown.
#include <algorithm>
#include <cstring>
#include <limits>

#include "dispatch.h"
#include "state.h"

namespace alstm {

namespace {

constexpr int kRefresh = 256;  // float delta updates after which the accumulator is recomputed: bounds the rounding
constexpr float kMoved = 64;   // how far values may move in all, as a multiple of their size, before the same
constexpr double kDenseInput = 0.3;  // input activity above which one matrix product beats visiting columns (measured)

// acc = W * sent from scratch.
void recompute(const Kernels& k, const Matrix& w, Memory& m, int b, Workspace& work) {
  if (w.format == Format::q8) {
    int32_t* acc = m.acc_q.data() + size_t(b) * w.rows;
    const int16_t* sent = m.sent_q.data() + size_t(b) * w.cols;
    std::memset(acc, 0, w.rows * sizeof(int32_t));
    for (int c = 0; c < w.cols; c++) work.cols[c] = c, work.delta_q[c] = sent[c];
    k.columns_q8(w, work.cols.data(), work.delta_q.data(), w.cols, acc, false, work.scratch.data());
  } else {
    float* acc = m.acc.data() + size_t(b) * w.rows;
    std::memset(acc, 0, w.rows * sizeof(float));
    k.dense(w, m.sent.data() + size_t(b) * w.cols, w.cols, 1, nullptr, acc, w.rows, false);
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

// Lists the columns of z to send for row b; returns how many.
int list_changed(const Kernels& k, const Matrix& w, Memory& m, int b, const float* z, int cols, const float* thresholds,
                 Workspace& work) {
  const float* limit = m.fresh[b] ? nullptr : thresholds;
  m.fresh[b] = 0;
  if (w.format == Format::q8)
    return k.changed_q8(w, z, m.sent_q.data() + size_t(b) * w.cols, limit, cols, work.cols.data(), work.delta_q.data());
  return k.changed(z, m.sent.data() + size_t(b) * w.cols, limit, cols, work.cols.data(), work.delta.data());
}

// Brings acc of row b up to date with the `count` listed columns and adds it to base (bias, or null for pre itself).
void send_listed(const Kernels& k, const Matrix& w, Memory& m, int b, int count, const float* bias, float* pre,
                 bool reverse, Workspace& work) {
  if (w.format == Format::q8) {
    int32_t* acc = m.acc_q.data() + size_t(b) * w.rows;
    if (!m.valid[b])
      recompute(k, w, m, b, work);
    else if (count)
      k.columns_q8(w, work.cols.data(), work.delta_q.data(), count, acc, reverse, work.scratch.data());
    k.finish_q8(acc, w.scale, bias, pre, w.rows);
  } else {
    float* acc = m.acc.data() + size_t(b) * w.rows;
    if (!m.valid[b] || (count && needs_refresh(w, m, b, count, work)))
      recompute(k, w, m, b, work);
    else if (count)
      k.columns(w, work.cols.data(), work.delta.data(), count, acc, reverse);
    k.finish(acc, bias, pre, w.rows);
  }
}

bool all_finite(const Kernels& k, const Sequence& x, int steps, const std::vector<int>& sizes, int width) {
  for (int t = 0; t < steps; t++) {
    if (x.row == width) {
      if (!k.finite(x.at(t, 0), size_t(sizes[t]) * width)) return false;
    } else {
      for (int b = 0; b < sizes[t]; b++)
        if (!k.finite(x.at(t, b), width)) return false;
    }
  }
  return true;
}

}  // namespace

// Pre-activations of timesteps [t0, t1) from the input side, bias included, into work_.gates in packed row order.
void State::project(int layer, int d, const Sequence& in, int t0, int t1) {
  const Kernels& k = active_kernels();
  const Direction& dir = plan_->layers()[layer][d];
  const Matrix& w = dir.w_ih->view();
  const ptrdiff_t first = work_.start[t0], rows = work_.start[t1] - first;
  float* gates = work_.gates.data();
  const ptrdiff_t stride = padded(w.rows);
  states_[layer][d].sent_x += rows * dir.input;
  if (w.format == Format::q8) {
    int16_t* q = work_.whole.data();
    for (int t = t0; t < t1; t++)
      for (int b = 0; b < work_.sizes[t]; b++, q += w.cols) {
        k.quantize(w, in.at(t, b), dir.input, q);
        std::fill(q + dir.input, q + w.cols, int16_t(0));
      }
    k.dense_q8(w, work_.whole.data(), w.cols, int(rows), dir.bias.data(), gates, stride, false, work_.scratch.data());
    return;
  }
  bool adjacent = true;  // do the rows of all timesteps follow each other at one stride?
  for (int t = t0; t + 1 < t1 && adjacent; t++) adjacent = in.at(t + 1, 0) - in.at(t, 0) == work_.sizes[t] * in.row;
  const int steps = t1 - t0, batch = work_.sizes[t0];
  if (steps == 1 || adjacent) {
    k.dense(w, in.at(t0, 0), in.row, int(rows), dir.bias.data(), gates, stride, tick_ & 1);
  } else if (batch == 1) {
    k.dense(w, in.at(t0, 0), in.time, steps, dir.bias.data(), gates, stride, false);
  } else if (!in.offset && steps > batch) {  // [B, T, I]: one product per batch row
    for (int b = 0; b < batch; b++)
      k.dense(w, in.at(t0, b), in.time, steps, dir.bias.data(), gates + b * stride, batch * stride, b & 1);
  } else {
    for (int t = t0; t < t1; t++)
      k.dense(w, in.at(t, 0), in.row, work_.sizes[t], dir.bias.data(), gates + (work_.start[t] - first) * stride,
              stride, t & 1);
  }
}

// The same where the input is thresholded. Time order matters: what counts is the change since the value last sent.
void State::project_delta(int layer, int d, const Sequence& in, int t0, int t1) {
  const Kernels& k = active_kernels();
  const Direction& dir = plan_->layers()[layer][d];
  const Matrix& w = dir.w_ih->view();
  DirectionState& s = states_[layer][d];
  const float* thresholds = policy_->layers[layer][d].x.data();
  const ptrdiff_t first = work_.start[t0], rows = work_.start[t1] - first, stride = padded(w.rows);
  // In a busy chunk the product with the values last sent gives the same result with the weights read once.
  const bool product = rows > 1 && s.x_activity > kDenseInput;
  int64_t sent = 0;
  for (int i = t0; i < t1; i++) {
    const int t = d ? t0 + t1 - 1 - i : i;
    for (int b = 0; b < work_.sizes[t]; b++) {
      const ptrdiff_t row = work_.start[t] - first + b;
      const int count = list_changed(k, w, s.x, b, in.at(t, b), dir.input, thresholds, work_);
      sent += count;
      if (!product) {
        send_listed(k, w, s.x, b, count, dir.bias.data(), work_.gates.data() + row * stride, (t + tick_) & 1, work_);
        continue;
      }
      s.x.valid[b] = 0;
      if (w.format == Format::q8)
        std::memcpy(work_.whole.data() + row * w.cols, s.x.sent_q.data() + size_t(b) * w.cols,
                    w.cols * sizeof(int16_t));
      else
        std::memcpy(work_.estimate.data() + row * w.cols, s.x.sent.data() + size_t(b) * w.cols, w.cols * sizeof(float));
    }
  }
  s.sent_x += sent;
  s.x_activity = double(sent) / double(std::max<ptrdiff_t>(rows, 1) * dir.input);
  if (!product) return;
  if (w.format == Format::q8)
    k.dense_q8(w, work_.whole.data(), w.cols, int(rows), dir.bias.data(), work_.gates.data(), stride, false,
               work_.scratch.data());
  else
    k.dense(w, work_.estimate.data(), w.cols, int(rows), dir.bias.data(), work_.gates.data(), stride, false);
}

// One timestep of one layer: adds the recurrent side to `gates` [rows, R] and moves h and c of the first `rows` rows.
void State::recur(int layer, int d, float* gates, int rows, bool reverse) {
  const Kernels& k = active_kernels();
  const Direction& dir = plan_->layers()[layer][d];
  const Matrix& w = dir.w_hh->view();
  DirectionState& s = states_[layer][d];
  const ptrdiff_t stride = padded(w.rows);
  if (delta(layer, d, true)) {
    const float* thresholds = policy_->layers[layer][d].h.data();
    for (int b = 0; b < rows; b++) {
      const int count =
          list_changed(k, w, s.recurrent, b, s.h.data() + size_t(b) * s.h_stride, dir.output, thresholds, work_);
      s.sent_h += count;
      send_listed(k, w, s.recurrent, b, count, nullptr, gates + b * stride, reverse, work_);
    }
  } else {
    s.sent_h += int64_t(rows) * dir.output;
    if (w.format == Format::q8) {
      int16_t* q = work_.whole.data();
      for (int b = 0; b < rows; b++, q += w.cols) {
        k.quantize(w, s.h.data() + size_t(b) * s.h_stride, dir.output, q);
        std::fill(q + dir.output, q + w.cols, int16_t(0));
      }
      k.dense_q8(w, work_.whole.data(), w.cols, rows, nullptr, gates, stride, reverse, work_.scratch.data());
    } else {
      k.dense(w, s.h.data(), s.h_stride, rows, nullptr, gates, stride, reverse);
    }
  }
  s.steps += rows;
  float* out = dir.w_hr ? work_.units.data() : s.h.data();
  const ptrdiff_t out_stride = dir.w_hr ? s.units : s.h_stride;
  for (int b = 0; b < rows; b++)
    k.cell(gates + b * stride, s.c.data() + ptrdiff_t(b) * s.units, out + b * out_stride, dir.blocks());
  if (!dir.w_hr) return;
  const Matrix& p = dir.w_hr->view();
  std::memset(s.h.data(), 0, size_t(rows) * s.h_stride * sizeof(float));
  k.dense(p, work_.units.data(), s.units, rows, nullptr, s.h.data(), s.h_stride, reverse);
}

void State::run_direction(int layer, int d, const Sequence& in, const Sequence& out, int steps) {
  const Direction& dir = plan_->layers()[layer][d];
  DirectionState& s = states_[layer][d];
  const int chunk = chunk_steps(batch_);
  for (int done = 0; done < steps; done += chunk) {
    const int some = std::min(chunk, steps - done);
    const int t0 = d ? steps - done - some : done, t1 = t0 + some;  // the second direction runs backwards
    delta(layer, d, false) ? project_delta(layer, d, in, t0, t1) : project(layer, d, in, t0, t1);
    for (int i = 0; i < some; i++) {
      const int t = d ? t1 - 1 - i : t0 + i;
      // Alternating the direction in which tiles are read leaves the end of a large matrix in the cache for the next
      // step.
      recur(layer, d, work_.gates.data() + (work_.start[t] - work_.start[t0]) * padded(dir.rows()), work_.sizes[t],
            (t + tick_) & 1);
      for (int b = 0; b < work_.sizes[t]; b++)
        std::memcpy(out.at(t, b) + ptrdiff_t(d) * dir.output, s.h.data() + size_t(b) * s.h_stride,
                    dir.output * sizeof(float));
    }
  }
}

bool State::run(const Sequence& x, const Sequence& y, int steps, const int64_t* sizes, bool check) {
  work_.sizes.resize(steps);
  work_.start.resize(steps + 1);
  work_.start[0] = 0;
  for (int t = 0; t < steps; t++) {
    work_.sizes[t] = sizes ? int(sizes[t]) : batch_;
    work_.start[t + 1] = work_.start[t] + work_.sizes[t];
  }
  auto packed = [&](int slot, float* base, ptrdiff_t width) -> Sequence {  // rows of all timesteps one after the other
    std::vector<ptrdiff_t>& offset = work_.offset[slot];
    offset.resize(steps);
    for (int t = 0; t < steps; t++) offset[t] = work_.start[t] * width;
    return {base, 0, width, offset.data()};
  };
  Sequence in = sizes ? packed(0, x.base, x.row) : x;
  const Sequence last = sizes ? packed(1, y.base, y.row) : y;
  if (check && !all_finite(active_kernels(), in, steps, work_.sizes, plan_->input())) return false;
  const int layers = int(states_.size()), directions = plan_->directions();
  for (int l = 0; l < layers; l++) {
    Sequence out = last;
    if (l + 1 < layers) {
      const ptrdiff_t width = padded(ptrdiff_t(plan_->output(l)) * directions);
      Buffer<float>& buffer = work_.layer[l % 2];
      if (buffer.size() < size_t(work_.start[steps] * width)) buffer.resize(work_.start[steps] * width);
      out = packed(2 + l % 2, buffer.data(), width);
    }
    for (int d = 0; d < directions; d++) run_direction(l, d, in, out, steps);
    in = out;
  }
  tick_ += uint32_t(steps);
  return true;
}

}  // namespace alstm
