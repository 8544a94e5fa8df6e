#include "run/cell_run.h"

#include <algorithm>
#include <cstring>

#include "kernels/tuning.h"

namespace alstm {

void OperandRows::grow(size_t rows, int gates, int cols) {
  alstm::grow(values_, rows * cols);
  alstm::grow(largest_, rows);
  alstm::grow(quantized_, rows * cols + kListSlack);  // kernels may read on to a multiple of 32 columns
  alstm::grow(gathered_, cols);
  product_.grow(gates, cols);
}

void OperandRows::put(const Kernels& kernels, const PackedMatrix& matrix, const Matrix& w, const float* z,
                      ptrdiff_t row) {
  if (w.format != Format::int8) {
    float* to = values_.data() + row * w.cols;
    if (matrix.gather(z, to) == z) std::memcpy(to, z, w.cols * sizeof(float));
    return;
  }
  int16_t* to = quantized_.data() + row * w.cols;
  largest_[row] = kernels.quantize(w, matrix.gather(z, gathered_.data()), matrix.useful(), to);
  std::fill(to + matrix.useful(), to + w.cols, int16_t(0));
}

void OperandRows::put_sent(const Matrix& w, const DeltaState& delta, int b, ptrdiff_t row) {
  const size_t from = size_t(b) * w.cols;
  if (w.format == Format::int8)
    std::memcpy(quantized_.data() + row * w.cols, delta.sent_int.data() + from, w.cols * sizeof(int16_t));
  else
    std::memcpy(values_.data() + row * w.cols, delta.sent.data() + from, w.cols * sizeof(float));
}

void OperandRows::multiply(const Kernels& kernels, const Matrix& w, int n, const float* bias, float* y, bool reverse,
                           void* kernel_scratch, ptrdiff_t stride) {
  if (w.format == Format::int8)
    kernels.dense_int8(w, quantized_.data(), w.cols, largest_.data(), n, bias, y, stride, reverse, kernel_scratch);
  else
    product_.dense(kernels, w, values_.data(), w.cols, n, bias, y, stride, reverse);
}

// Room for everything whose size does not depend on the number of timesteps.
void Scratch::grow(const Batch& batch, bool rows_apart) {
  int cols = 0, rows = 0, most_units = 0, h_stride = 0;
  for (const auto& layer : batch.layers())
    for (const CellState& s : layer) {
      cols = std::max({cols, s.x.view().cols, s.recurrent.view().cols});
      rows = std::max(rows, s.cell->rows());
      most_units = std::max(most_units, s.units);
      h_stride = std::max(h_stride, s.h_stride);
    }
  const size_t size = size_t(std::max(batch.size(), 1)), chunk = size * chunk_steps(batch.size());
  changes.grow(rows, cols);
  operand.grow(chunk, rows, cols);
  alstm::grow(gates, chunk * padded(rows));
  if (ones.size() < size_t(rows)) ones.assign(size_t(rows), 1.0f);
  alstm::grow(units, size * most_units);
  alstm::grow(kernel, scratch_bytes(int(std::max<size_t>(chunk, 2)), cols));
  if (rows_apart) alstm::grow(projected, size * h_stride);
}

size_t Scratch::bytes() const {
  return kernel.capacity() + operand.bytes() +
         (gates.capacity() + units.capacity() + projected.capacity()) * sizeof(float);
}

// As Kernels::dense.
void CellRun::dense(const Matrix& w, const float* z, ptrdiff_t zs, int n, const float* bias, float* y, ptrdiff_t ys,
                    bool reverse) {
  scratch.operand.product().dense(kernels, w, z, zs, n, bias, y, ys, reverse);
}

void CellRun::project(const Rows<const float>& in, const RowLayout& layout, int t0, int t1, float* gates) {
  if (state.x.thresholded())
    project_changes(in, layout, t0, t1, gates);
  else
    project_dense(in, layout, t0, t1, gates);
}

void CellRun::project_dense(const Rows<const float>& in, const RowLayout& layout, int t0, int t1, float* gates) {
  const Matrix& w = cell.w_ih->view();
  const ptrdiff_t first = layout.start[t0], rows = layout.start[t1] - first, stride = padded(w.rows);
  const float* bias = cell.bias.data();
  state.x.sent += rows * cell.w_ih->useful();
  if (w.format == Format::int8 || !cell.w_ih->kept().empty()) {
    for (int t = t0; t < t1; t++)
      for (int b = 0; b < layout.sizes[t]; b++)
        scratch.operand.put(kernels, *cell.w_ih, in.at(t, b), layout.row(t, b) - first);
    multiply_input(int(rows), gates);
    return;
  }
  bool adjacent = true;  // do the rows of all timesteps follow each other at one stride?
  for (int t = t0; t + 1 < t1 && adjacent; t++) adjacent = in.at(t + 1, 0) - in.at(t, 0) == layout.sizes[t] * in.row;
  const int steps = t1 - t0, batch = layout.sizes[t0];
  if (steps == 1 || adjacent) {
    dense(w, in.at(t0, 0), in.row, int(rows), bias, gates, stride, tick & 1);
  } else if (!in.offset && steps > batch) {  // [B, T, I]: one product per batch row
    for (int b = 0; b < batch; b++)
      dense(w, in.at(t0, b), in.time, steps, bias, gates + b * stride, batch * stride, b & 1);
  } else {
    for (int t = t0; t < t1; t++)
      dense(w, in.at(t, 0), in.row, layout.sizes[t], bias, gates + (layout.start[t] - first) * stride, stride, t & 1);
  }
}

// Time order matters: thresholds apply to the change since the value last sent.
void CellRun::project_changes(const Rows<const float>& in, const RowLayout& layout, int t0, int t1, float* gates) {
  const ptrdiff_t first = layout.start[t0], rows = layout.start[t1] - first;
  const bool product = product_pays(rows);
  int64_t sent = 0;
  for (int i = t0; i < t1; i++) {
    const int t = backward ? t0 + t1 - 1 - i : i;
    for (int b = 0; b < layout.sizes[t]; b++)
      sent += send_input(layout.batch_row(b), in.at(t, b), layout.row(t, b) - first, gates, product, (t + tick) & 1);
  }
  state.x.sent += sent;
  state.x.activity = double(sent) / double(std::max<ptrdiff_t>(rows, 1) * cell.w_ih->useful());
  if (product) multiply_input(int(rows), gates);
}

void CellRun::project_listed(const float* const* x, const int* rows, int n, float* gates) {
  const Matrix& w = cell.w_ih->view();
  if (!n) return;
  if (state.x.thresholded()) {
    const bool product = product_pays(n);
    int64_t sent = 0;
    for (int i = 0; i < n; i++) sent += send_input(rows[i], x[i], i, gates, product, (tick + i) & 1);
    state.x.sent += sent;
    state.x.activity = double(sent) / double(int64_t(n) * cell.w_ih->useful());
    if (product) multiply_input(n, gates);
    return;
  }
  if (w.format != Format::int8 && n == 1 && cell.w_ih->kept().empty()) {
    dense(w, x[0], w.cols, 1, cell.bias.data(), gates, padded(w.rows), tick & 1);
    return;
  }
  for (int i = 0; i < n; i++) scratch.operand.put(kernels, *cell.w_ih, x[i], i);
  multiply_input(n, gates);
}

// The input side of one row where it is thresholded: into row `row` of `gates`, or, for `product`, the values last sent
// into that row of the operand of one matrix product. Returns how many columns were sent.
int CellRun::send_input(int b, const float* x, ptrdiff_t row, float* gates, bool product, bool reverse) {
  const int count = scratch.changes.list(kernels, state.x, b, x);
  if (product) {
    state.x.delta.valid[b] = 0;
    scratch.operand.put_sent(state.x.view(), state.x.delta, b, row);
  } else {
    scratch.changes.send(kernels, state.x, b, cell.bias.data(), gates + row * gate_stride(), reverse, once,
                         scratch.kernel.data());
  }
  return count;
}

// In a busy chunk the product with the values last sent gives the same result and reads the weights once.
bool CellRun::product_pays(ptrdiff_t rows) const {
  const Matrix& w = cell.w_ih->view();
  const double busy = w.format == Format::int8 ? kernels.dense_above_share_int8 : kDenseAboveShareFloat;
  return rows > 1 && !w.block_sparse() && state.x.activity > busy;
}

void CellRun::multiply_input(int rows, float* gates) {
  scratch.operand.multiply(kernels, cell.w_ih->view(), rows, cell.bias.data(), gates, false, scratch.kernel.data());
}

void CellRun::recur(float* gates, const int* rows, int n, bool reverse) {
  if (rows && rows[n - 1] == n - 1) rows = nullptr;
  add_recurrent(gates, rows, n, reverse);
  state.ran += n;
  advance(gates, n, rows, reverse);
}

void CellRun::add_recurrent(float* gates, const int* rows, int n, bool reverse) {
  const Matrix& w = cell.w_hh->view();
  if (state.may_exceed && !cell.w_hr) {
    bool any = false;
    for (int b = 0; b < state.rows() && !any; b++) any = exceeds(b);
    state.may_exceed = any;
  }
  if (state.ahead.ready && add_ahead(gates, rows, n, reverse)) return;
  if (state.recurrent.thresholded()) {
    for (int i = 0; i < n; i++) add_recurrent_row(gates + i * gate_stride(), rows ? rows[i] : i, reverse);
    return;
  }
  state.recurrent.sent += int64_t(n) * cell.w_hh->useful();
  if (w.format != Format::int8 && (n == 1 || !rows) && cell.w_hh->kept().empty()) {
    dense(w, state.h_row(rows ? rows[0] : 0), state.h_stride, n, nullptr, gates, gate_stride(), reverse);
    return;
  }
  if (state.may_exceed) return add_recurrent_integers(gates, rows, n, reverse);
  // Rows that lie apart are copied together, so that the weights are read once.
  for (int i = 0; i < n; i++) scratch.operand.put(kernels, *cell.w_hh, state.h_row(rows ? rows[i] : i), i);
  scratch.operand.multiply(kernels, w, n, nullptr, gates, reverse, scratch.kernel.data());
}

// Of a thresholded operand.
void CellRun::add_recurrent_row(float* gates, int b, bool reverse) {
  Operand& h = state.recurrent;
  if (state.may_exceed && exceeds(b)) {
    h.sent += cell.w_hh->useful();
    scratch.changes.send_beyond(kernels, h, b, state.h_row(b), gates, reverse, once, scratch.kernel.data());
    return;
  }
  h.sent += scratch.changes.list(kernels, h, b, state.h_row(b));
  scratch.changes.send(kernels, h, b, nullptr, gates, reverse, once, scratch.kernel.data());
}

// Integers of rows some of which exceed their range, and then have one of their own. Rows that follow each other and
// are of one kind are multiplied together: so a row gives the same bits whatever the others are.
void CellRun::add_recurrent_integers(float* gates, const int* rows, int n, bool reverse) {
  const Matrix &w = cell.w_hh->view(), ranged = own_range(w);
  for (int first = 0, i = 0; first < n; first = i) {
    const bool beyond = exceeds(rows ? rows[first] : first);
    const Matrix& how = beyond ? ranged : w;
    for (; i < n && exceeds(rows ? rows[i] : i) == beyond; i++)
      scratch.operand.put(kernels, *cell.w_hh, how, state.h_row(rows ? rows[i] : i), i - first);
    scratch.operand.multiply(kernels, how, i - first, nullptr, gates + first * gate_stride(), reverse,
                             scratch.kernel.data());
  }
}

// Whether h of a row exceeds the 1 that integers reach.
bool CellRun::exceeds(int b) const { return scratch.operand.largest(kernels, *cell.w_hh, state.h_row(b)) > 1.0f; }

void CellRun::advance(const float* gates, int n, const int* rows, bool reverse) {
  const ptrdiff_t stride = gate_stride();
  advance_by([&](int i, float* c, float* units) { kernels.cell(gates + i * stride, c, units, cell.blocks()); }, rows, n,
             reverse);
}

void CellRun::advance_held(const float* gates, float* kept, uint8_t* has_kept, const int* rows, int n, bool more,
                           bool reverse) {
  const size_t size = size_t(cell.rows());
  const auto one = [&](int i, float* c, float* units) {
    const size_t b = size_t(rows[i]);
    if (has_kept[b]) return kernels.cell_of_kept(kept + b * size, c, units, cell.blocks());
    if (!more) return kernels.cell(gates + b * size, c, units, cell.blocks());
    kernels.cell_and_keep(gates + b * size, kept + b * size, c, units, cell.blocks());
    has_kept[b] = 1;
  };
  advance_by(one, rows, n, reverse);
}

// one(i, c, units): advances c and the outputs before the projection of the i-th row.
template <class Advance>
void CellRun::advance_by(Advance one, const int* rows, int n, bool reverse) {
  state.ahead.ready = false;
  state.advanced += n;
  const bool apart = cell.w_hr || cell.pruned();
  for (int i = 0; i < n; i++) {
    const int b = rows ? rows[i] : i;
    float* units = apart ? scratch.units.data() + ptrdiff_t(i) * state.units : state.h_row(b);
    one(i, state.c_row(b), units);
    if (apart && !cell.w_hr) cell.scatter(units, state.h_row(b));
  }
  if (!cell.w_hr) return;
  float* h = rows ? scratch.projected.data() : state.h.data();
  std::memset(h, 0, size_t(n) * state.h_stride * sizeof(float));
  kernels.dense(cell.w_hr->view(), scratch.units.data(), state.units, n, nullptr, h, state.h_stride, reverse);
  for (int i = 0; rows && i < n; i++)
    std::memcpy(state.h_row(rows[i]), h + size_t(i) * state.h_stride, state.h_stride * sizeof(float));
}

}  // namespace alstm
