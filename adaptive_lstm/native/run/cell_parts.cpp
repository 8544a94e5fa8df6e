#include "run/cell_parts.h"

#include <algorithm>
#include <cstring>

#include "kernels/tuning.h"

namespace alstm {

namespace {

bool divides(const PackedMatrix& matrix) {
  const Matrix& w = matrix.view();
  return w.form == Form::dense && !w.strip && w.rows > w.dense.tile;
}

// Rows of a tile of either matrix.
int tile_of(const Cell& cell) { return std::max(cell.w_ih->view().dense.tile, cell.w_hh->view().dense.tile); }

size_t bytes_per_weight(Format format) { return format == Format::f32 ? 4 : format == Format::bf16 ? 2 : 1; }

// Rows [first, last) of a dense matrix; `first` starts a tile.
Matrix rows_of(const Matrix& w, int first, int last) {
  Matrix part = w;
  const size_t before = size_t(first / w.dense.tile) * size_t(w.dense.pitch) * size_t(w.cols);
  part.data = static_cast<const uint8_t*>(w.data) + before * bytes_per_weight(w.format);
  part.rows = last - first;
  if (w.scale) part.scale = w.scale + first;
  return part;
}

// Rounds of a chunk of so many timesteps: its input side, then two a timestep.
int64_t rounds_of(int steps) { return 1 + 2 * int64_t(steps); }

}  // namespace

int most_parts(const CellState& state) {
  const Cell& cell = *state.cell;
  const bool whole = divides(*cell.w_ih) && divides(*cell.w_hh) && !cell.w_hr && !cell.pruned();
  if (!whole || state.x.thresholded() || state.recurrent.thresholded() || cell.w_hh->bytes() < kLargePart) return 1;
  return cell.rows() / tile_of(cell);
}

CellParts::CellParts(CellState& state, const Kernels& kernels, std::vector<Scratch>& scratch, int threads,
                     const Rows<const float>& in, const Rows<float>& out, const RowLayout& layout, uint32_t tick)
    : state_(state),
      cell_(*state.cell),
      kernels_(kernels),
      scratch_(scratch),
      in_(in),
      out_(out),
      layout_(layout),
      tick_(tick),
      chunk_(chunk_steps(state.rows())),
      stride_(padded(cell_.rows())),
      rounds_(layout.steps() / chunk_ * rounds_of(chunk_) +
                  (layout.steps() % chunk_ ? rounds_of(layout.steps() % chunk_) : 0),
              threads) {
  const Matrix &w_ih = cell_.w_ih->view(), &w_hh = cell_.w_hh->view();
  const int tile = tile_of(cell_), tiles = (w_hh.rows + tile - 1) / tile;
  for (int i = 0; i < threads; i++) {
    const int first = tiles * i / threads * tile, last = std::min(w_hh.rows, tiles * (i + 1) / threads * tile);
    parts_.push_back(
        {rows_of(w_ih, first, last), rows_of(w_hh, first, last), first / kRowBlock, (last - first) / kRowBlock});
  }
}

void CellParts::run(int who) {
  Scratch& scratch = scratch_[size_t(who)];
  for (Rounds::Piece piece; rounds_.next(who, piece); rounds_.done()) {
    const Part& part = parts_[size_t(piece.number)];
    const int t0 = int(piece.round / rounds_of(chunk_)) * chunk_, inside = int(piece.round % rounds_of(chunk_));
    const int t = t0 + (inside - 1) / 2;
    if (!inside)
      project(part, scratch, t0, std::min(layout_.steps(), t0 + chunk_));
    else if (inside % 2)
      recur(part, scratch, t);
    else
      advance(part, t);
  }
}

void CellParts::project(const Part& part, Scratch& scratch, int t0, int t1) {
  ptrdiff_t row = 0;
  for (int t = t0; t < t1; t++)
    for (int b = 0; b < layout_.sizes[t]; b++) scratch.operand.put(kernels_, *cell_.w_ih, in_.at(t, b), row++);
  const int first = part.first * kRowBlock;
  scratch.operand.multiply(kernels_, part.w_ih, int(row), cell_.bias.data() + first, gates(t0) + first, false,
                           scratch.kernel.data(), stride_);
}

void CellParts::recur(const Part& part, Scratch& scratch, int t) {
  const int n = layout_.sizes[t];
  for (int b = 0; b < n; b++) scratch.operand.put(kernels_, *cell_.w_hh, state_.h_row(b), b);
  scratch.operand.multiply(kernels_, part.w_hh, n, nullptr, gates(t) + part.first * kRowBlock, (t + tick_) & 1,
                           scratch.kernel.data(), stride_);
}

void CellParts::advance(const Part& part, int t) {
  const ptrdiff_t first = ptrdiff_t(part.first) * kUnits, last = first + ptrdiff_t(part.blocks) * kUnits;
  const size_t units = size_t(std::min<ptrdiff_t>(last, cell_.output) - first);
  for (int b = 0; b < layout_.sizes[t]; b++) {
    float* h = state_.h_row(b) + first;
    kernels_.cell(gates(t) + b * stride_ + part.first * kRowBlock, state_.c_row(b) + first, h, part.blocks);
    std::memcpy(out_.at(t, b) + first, h, units * sizeof(float));
  }
}

void CellParts::count() {
  const int64_t n = layout_.start.back();
  state_.ahead.ready = false;
  state_.x.sent += n * cell_.w_ih->useful();
  state_.recurrent.sent += n * cell_.w_hh->useful();
  state_.ran += n;
  state_.advanced += n;
}

}  // namespace alstm
