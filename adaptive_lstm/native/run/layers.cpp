// Advancing a state: every layer over a whole sequence, or over one step.
//
// Layer by layer, and inside a layer in chunks of timesteps: the input side of a chunk is one matrix product (its
// timesteps are known), the recurrent side goes step by step. Nothing below allocates once the buffers have grown.
#include <algorithm>
#include <cstring>

#include "pack/tuning.h"
#include "run/delta.h"
#include "cpu/dispatch.h"

namespace alstm {

namespace {

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
  states_[layer][d].sent_x += rows * dir.w_ih->useful();
  if (w.format == Format::int8 || !dir.w_ih->kept().empty()) {
    for (int t = t0; t < t1; t++)
      for (int b = 0; b < work_.sizes[t]; b++) put_operand(*dir.w_ih, in.at(t, b), work_.start[t] - first + b);
    return multiply_input(layer, d, int(rows));
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

// The input side of one row where it is thresholded: into row `row` of work_.gates, or, for `product`, the estimate
// into that row of the operand of one matrix product. Returns how many columns were sent.
int State::send_input(int layer, int d, int b, const float* x, ptrdiff_t row, bool product, bool reverse) {
  const Kernels& k = active_kernels();
  const Direction& dir = plan_->layers()[layer][d];
  const Matrix& w = dir.w_ih->view();
  Memory& m = states_[layer][d].x;
  const float* z = dir.w_ih->gather(x, work_.gathered.data());
  const int count = list_changed(k, w, m, b, z, dir.w_ih->useful(), limits(layer, d, false), work_);
  if (!product) {
    send_listed(k, w, m, b, count, dir.bias.data(), work_.gates.data() + row * padded(w.rows), reverse, work_);
    return count;
  }
  m.valid[b] = 0;
  if (w.format == Format::int8)
    std::memcpy(work_.whole.data() + row * w.cols, m.sent_q.data() + size_t(b) * w.cols, w.cols * sizeof(int16_t));
  else
    std::memcpy(work_.estimate.data() + row * w.cols, m.sent.data() + size_t(b) * w.cols, w.cols * sizeof(float));
  return count;
}

// The values of z that a matrix reads, into a row of the operand that lies in work_.
void State::put_operand(const PackedMatrix& m, const float* z, ptrdiff_t row) {
  const Matrix& w = m.view();
  if (w.format != Format::int8) {
    float* to = work_.estimate.data() + row * w.cols;
    if (m.gather(z, to) == z) std::memcpy(to, z, w.cols * sizeof(float));
    return;
  }
  int16_t* q = work_.whole.data() + row * w.cols;
  work_.largest[row] = active_kernels().quantize(w, m.gather(z, work_.gathered.data()), m.useful(), q);
  std::fill(q + m.useful(), q + w.cols, int16_t(0));
}

// Pre-activations, bias included, of the first `rows` rows of the operand that lies in work_.
void State::multiply_input(int layer, int d, int rows) {
  const Kernels& k = active_kernels();
  const Direction& dir = plan_->layers()[layer][d];
  const Matrix& w = dir.w_ih->view();
  const ptrdiff_t stride = padded(w.rows);
  if (w.format == Format::int8)
    k.dense_int8(w, work_.whole.data(), w.cols, work_.largest.data(), rows, dir.bias.data(), work_.gates.data(), stride,
               false, work_.scratch.data());
  else
    k.dense(w, work_.estimate.data(), w.cols, rows, dir.bias.data(), work_.gates.data(), stride, false);
}

// In a busy chunk the product with the values last sent gives the same result with the weights read once.
bool State::product_pays(int layer, int d, int rows) const {
  const Matrix& w = plan_->layers()[layer][d].w_ih->view();
  const double busy = w.format == Format::int8 ? active_kernels().dense_above_share_int8 : kDenseAboveShareFloat;
  return rows > 1 && !w.block_sparse() && states_[layer][d].x_activity > busy;
}

// As project() where the input is thresholded. Time order matters: what counts is the change since the value last sent.
void State::project_delta(int layer, int d, const Sequence& in, int t0, int t1) {
  DirectionState& s = states_[layer][d];
  const ptrdiff_t first = work_.start[t0], rows = work_.start[t1] - first;
  const bool product = product_pays(layer, d, int(rows));
  int64_t sent = 0;
  for (int i = t0; i < t1; i++) {
    const int t = d ? t0 + t1 - 1 - i : i;
    for (int b = 0; b < work_.sizes[t]; b++)
      sent += send_input(layer, d, b, in.at(t, b), work_.start[t] - first + b, product, (t + tick_) & 1);
  }
  s.sent_x += sent;
  s.x_activity = double(sent) / double(std::max<ptrdiff_t>(rows, 1) * plan_->layers()[layer][d].w_ih->useful());
  if (product) multiply_input(layer, d, int(rows));
}

// One timestep of one layer: adds the recurrent side of n rows to `gates` [n, R] and moves their h and c.
void State::recur(int layer, int d, float* gates, const int* rows, int n, bool reverse) {
  const Kernels& k = active_kernels();
  const Direction& dir = plan_->layers()[layer][d];
  const Matrix& w = dir.w_hh->view();
  DirectionState& s = states_[layer][d];
  const ptrdiff_t stride = padded(w.rows);
  if (rows && rows[n - 1] == n - 1) rows = nullptr;
  auto h = [&](int i) { return s.h.data() + size_t(rows ? rows[i] : i) * s.h_stride; };
  if (delta(layer, d, true)) {
    const float* thresholds = limits(layer, d, true);
    for (int i = 0; i < n; i++) {
      const int b = rows ? rows[i] : i;
      const float* z = dir.w_hh->gather(h(i), work_.gathered.data());
      const int count = list_changed(k, w, s.recurrent, b, z, dir.w_hh->useful(), thresholds, work_);
      s.sent_h += count;
      send_listed(k, w, s.recurrent, b, count, nullptr, gates + i * stride, reverse, work_);
    }
  } else {
    s.sent_h += int64_t(n) * dir.w_hh->useful();
    if (w.format == Format::int8) {
      for (int i = 0; i < n; i++) put_operand(*dir.w_hh, h(i), i);
      k.dense_int8(w, work_.whole.data(), w.cols, work_.largest.data(), n, nullptr, gates, stride, reverse,
                 work_.scratch.data());
    } else if ((n == 1 || !rows) && dir.w_hh->kept().empty()) {
      k.dense(w, h(0), s.h_stride, n, nullptr, gates, stride, reverse);
    } else {  // rows that lie apart are copied together, so that the weights are read once
      for (int i = 0; i < n; i++) put_operand(*dir.w_hh, h(i), i);
      k.dense(w, work_.estimate.data(), w.cols, n, nullptr, gates, stride, reverse);
    }
  }
  s.ran += n;
  advance(layer, d, gates, stride, nullptr, rows, n, reverse);
}

// Moves h and c of n rows with their pre-activations, which lie in rows `from` of `gates` (null: the first n).
void State::advance(int layer, int d, const float* gates, ptrdiff_t stride, const int* from, const int* rows, int n,
                    bool reverse) {
  const Kernels& k = active_kernels();
  const Direction& dir = plan_->layers()[layer][d];
  DirectionState& s = states_[layer][d];
  s.moved += n;
  const bool apart = dir.w_hr || dir.pruned();
  float* out = apart ? work_.units.data() : s.h.data();
  for (int i = 0; i < n; i++) {
    const int b = rows ? rows[i] : i;
    float* units = apart ? out + ptrdiff_t(i) * s.units : out + ptrdiff_t(b) * s.h_stride;
    k.cell(gates + (from ? from[i] : i) * stride, s.c.data() + ptrdiff_t(b) * s.units, units, dir.blocks());
    if (apart && !dir.w_hr) dir.spread(units, s.h.data() + ptrdiff_t(b) * s.h_stride);
  }
  if (!dir.w_hr) return;
  float* h = rows ? work_.projected.data() : s.h.data();
  std::memset(h, 0, size_t(n) * s.h_stride * sizeof(float));
  k.dense(dir.w_hr->view(), work_.units.data(), s.units, n, nullptr, h, s.h_stride, reverse);
  for (int i = 0; rows && i < n; i++)
    std::memcpy(s.h.data() + size_t(rows[i]) * s.h_stride, h + size_t(i) * s.h_stride, s.h_stride * sizeof(float));
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
      recur(layer, d, work_.gates.data() + (work_.start[t] - work_.start[t0]) * padded(dir.rows()), nullptr,
            work_.sizes[t], (t + tick_) & 1);
      for (int b = 0; b < work_.sizes[t]; b++)
        std::memcpy(out.at(t, b) + ptrdiff_t(d) * dir.output, s.h.data() + size_t(b) * s.h_stride,
                    dir.output * sizeof(float));
    }
  }
}

Sequence State::laid_out(Rows& rows, ptrdiff_t width, float* base) {
  const size_t steps = work_.sizes.size();
  rows.offset.resize(steps);
  for (size_t t = 0; t < steps; t++) rows.offset[t] = work_.start[t] * width;
  if (!base) {
    if (rows.data.size() < size_t(work_.start[steps] * width)) rows.data.resize(work_.start[steps] * width);
    base = rows.data.data();
  }
  return {base, 0, width, rows.offset.data()};
}

void State::set_sizes(int steps) {
  work_.start.resize(steps + 1);
  work_.start[0] = 0;
  for (int t = 0; t < steps; t++) work_.start[t + 1] = work_.start[t] + work_.sizes[t];
}

void State::run_layers(const Sequence& x, const Sequence& y, int steps) {
  if (loaded_) pin();
  bool masked = policy_->holds();  // whether rows may do different things
  if (masked || policy_->leaves_steps()) begin_actions();
  Sequence in = x;
  for (int l = 0; l < layers() && steps; l++) {
    const bool top = l + 1 == layers(), apart = active_ < batch_ && policy_->leaves_sequences();
    Sequence out = y;
    if (!top || apart) out = laid_out(work_.level[policy_->depth ? l : l % 2], padded(width(l)), nullptr);
    for (int d = 0; d < plan_->directions(); d++)
      masked ? run_held(l, d, in, out, steps) : run_direction(l, d, in, out, steps);
    in = out;
    if (top) {
      for (int t = 0; apart && t < steps; t++)
        for (int b = 0; b < work_.sizes[t]; b++)
          std::memcpy(y.at(t, order_[b]), out.at(t, b), width(l) * sizeof(float));
    } else if (policy_->depth && policy_->depth->asks[l]) {
      if (policy_->leaves_steps())
        leave_steps(l, steps), masked = true;
      else
        steps = leave_sequences(l, y, steps), in = laid_out(work_.level[l], padded(width(l)), nullptr);
    }
  }
  if (policy_->leaves_sequences()) rejoin();
}

bool State::run(const Sequence& x, const Sequence& y, int steps, const int64_t* sizes, bool check, bool open_ended) {
  work_.sizes.resize(steps);
  for (int t = 0; t < steps; t++) work_.sizes[t] = sizes ? int(sizes[t]) : batch_;
  set_sizes(steps);
  const Sequence in = sizes ? laid_out(work_.given, x.row, x.base) : x;
  const Sequence out = sizes ? laid_out(work_.wanted, y.row, y.base) : y;
  if (check && !all_finite(active_kernels(), in, steps, work_.sizes, plan_->input())) return false;
  if (policy_->time)
    run_in_time(in, out, steps, sizes, open_ended);
  else
    run_layers(in, out, steps);
  tick_ += uint32_t(steps);
  return true;
}

}  // namespace alstm
