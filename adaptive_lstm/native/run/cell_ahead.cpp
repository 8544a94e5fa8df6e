// Cells: the recurrent side of a timestep ahead of it, with the bits that it has in time (run/ahead.h).
#include <cstring>
#include <utility>

#include "run/cell_run.h"

namespace alstm {

void CellRun::recur_ahead(int n, bool reverse) {
  Ahead& ahead = state.ahead;
  if (ahead.ready && (ahead.reverse == reverse || !state.recurrent.in_order())) return;
  ahead.ready = false;
  for (int b = 0; state.may_exceed && b < n; b++)
    if (exceeds(b)) return;  // rare, and rows with a range of their own are multiplied apart
  ahead.reverse = reverse;
  ahead.rows = n;
  if (state.recurrent.thresholded())
    send_ahead(n, reverse);
  else if (!multiply_ahead(n, reverse))
    return;
  ahead.ready = n > 0;
}

// False where this product cannot be taken apart.
bool CellRun::multiply_ahead(int n, bool reverse) {
  const Matrix& w = cell.w_hh->view();
  Ahead& ahead = state.ahead;
  const bool integers = w.format == Format::int8;
  if (integers ? w.dynamic : w.form != Form::dense) return false;
  ahead.slices = integers ? 1 : (w.cols + kSlice - 1) / kSlice;
  const size_t row = size_t(ahead.slices) * padded(w.rows);
  grow(ahead.sums, n * row);
  if (integers) {
    Matrix unscaled = w;
    unscaled.scale = scratch.ones.data();
    for (int b = 0; b < n; b++) scratch.operand.put(kernels, *cell.w_hh, state.h_row(b), b);
    std::memset(ahead.sums.data(), 0, n * row * sizeof(float));
    scratch.operand.multiply(kernels, unscaled, n, nullptr, ahead.sums.data(), reverse, scratch.kernel.data());
    return true;
  }
  for (int b = 0; b < n; b++) {
    if (may_overflow(w) && scratch.operand.largest(kernels, *cell.w_hh, state.h_row(b)) > kHuge) return false;
    scratch.operand.put(kernels, *cell.w_hh, state.h_row(b), 0);
    scratch.operand.multiply_slices(kernels, w, ahead.sums.data() + b * row);
  }
  return true;
}

// In a copy of what the operand remembers, which stays as it is until the timestep comes.
void CellRun::send_ahead(int n, bool reverse) {
  Operand& h = state.recurrent;
  Ahead& ahead = state.ahead;
  ahead.sent.resize(size_t(n));
  ahead.delta = h.delta;
  std::swap(ahead.delta, h.delta);
  for (int b = 0; b < n; b++) {
    ahead.sent[b] = scratch.changes.list(kernels, h, b, state.h_row(b));
    scratch.changes.update(kernels, h, b, reverse, once, scratch.kernel.data());
  }
  std::swap(ahead.delta, h.delta);
}

// Adds what was computed ahead; false if it does not serve these rows in this direction.
bool CellRun::add_ahead(float* gates, const int* rows, int n, bool reverse) {
  Ahead& ahead = state.ahead;
  Operand& h = state.recurrent;
  const Matrix& w = h.view();
  if (h.thresholded()) {
    if (rows || n != ahead.rows || (h.in_order() && reverse != ahead.reverse)) return false;
    std::swap(ahead.delta, h.delta);
    for (int b = 0; b < n; b++) {
      h.sent += ahead.sent[b];
      ChangeList::put(kernels, h, b, nullptr, gates + b * gate_stride());
    }
    return true;
  }
  if (n && (rows ? rows[n - 1] : n - 1) >= ahead.rows) return false;
  h.sent += int64_t(n) * cell.w_hh->useful();
  for (int i = 0; i < n; i++) {
    const float* sums = ahead.sums.data() + size_t(rows ? rows[i] : i) * ahead.slices * padded(w.rows);
    for (int s = 0; s < ahead.slices; s++, sums += padded(w.rows))
      kernels.add_scaled(sums, w.scale, gates + i * gate_stride(), w.rows);
  }
  return true;
}

}  // namespace alstm
