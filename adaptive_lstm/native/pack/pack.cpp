// Packing: the form of a matrix, and where each value lies in it.
#include <algorithm>

#include "cpu/dispatch.h"
#include "kernels/tuning.h"
#include "pack/bitmask.h"
#include "pack/block_pattern.h"
#include "pack/plan.h"
#include "pack/selection.h"

namespace alstm {

namespace {

constexpr int kMaxBlockColumns = 1 << 16;       // BlockSparse::column holds 16 bits
constexpr size_t kFarthest = size_t(1) << 31;  // kernels find a column of a tile by 32 bits

size_t bytes_of(Format format) { return format == Format::f32 ? 4 : format == Format::bf16 ? 2 : 1; }

// How a dense matrix is cut. Where single columns are visited and the matrix comes from beyond the cache, a tile is the
// whole matrix: the bytes of a column are adjacent, and skipped columns save their share of the time. In stretches of a
// few cache lines they would not: those are read at two thirds of the speed, and at less for fewer columns.
Dense dense_tiles(const MatrixSource& source, const Matrix& view) {
  const size_t size = bytes_of(source.format), bytes = size_t(view.rows) * view.cols * size;
  if (source.columns && bytes > kLargeMatrix && bytes < kFarthest) {
    // An odd number of cache lines: columns a power of two apart would compete for the same few places in the caches.
    const int line = int(64 / size);
    return {view.rows, view.rows / line % 2 ? view.rows : view.rows + line};
  }
  if (source.format != Format::int8) return {kRowBlock, kRowBlock};
  const int tile = std::min(view.layout == Layout::columns ? kNarrow : active_kernels().int8.tile, view.rows);
  return {tile, tile};
}

// The bitmask form is packed from runs that follow each other without gaps.
Dense bitmask_tiles(const Matrix& view) {
  const int tile = view.layout == Layout::columns ? view.rows : kRowBlock;
  return {tile, tile};
}

}  // namespace

PackedMatrix::PackedMatrix(const MatrixSource& source)
    : source_rows_(source.rows), source_cols_(source.cols), gates_(source.gates) {
  const Selection selection = select(source);
  set_shape(source, selection);
  const std::vector<int32_t> numbers = number_blocks(source, selection);
  if (!view_.block_sparse()) choose_bitmask(source, selection);
  switch (source.format) {
    case Format::f32:
      fill<float>(source, selection, numbers);
      break;
    case Format::bf16:
      fill<uint16_t>(source, selection, numbers);
      break;
    case Format::int8_weight_only:
    case Format::int8:
      fill<int8_t>(source, selection, numbers);
      break;
  }
  if (view_.form == Form::bitmask) {
    const int entries = view_.layout == Layout::columns ? view_.rows / kRowBlock : view_.cols;
    keep_nonzero(data_, source.format, size_t(entries), mask_, start_);
    view_.bitmask = {mask_.data(), start_.data()};
  }
  set_scales(source, selection);
  view_.data = data_.data();
}

void PackedMatrix::set_shape(const MatrixSource& source, const Selection& selection) {
  const int cols = int(selection.cols.size());
  useful_ = selection.useful;
  if (source.gates && useful_ < source.cols) kept_ = selection.cols;
  view_.format = source.format;
  view_.layout = source.columns ? Layout::columns : Layout::interleaved;
  view_.levels = source.levels;
  view_.dynamic = source.dynamic;
  view_.rows = int(selection.rows.size());
  view_.cols = source.format == Format::int8 ? round_up(cols, active_kernels().int8.quad) : cols;
  view_.dense = dense_tiles(source, view_);
  elements_ = size_t(round_up(view_.rows, view_.dense.tile)) / view_.dense.tile * view_.dense.pitch * view_.cols;
}

// If the block-sparse form pays: chooses it, and numbers the blocks that are stored. [row blocks, cols], -1 for the
// others; empty if it does not pay.
std::vector<int32_t> PackedMatrix::number_blocks(const MatrixSource& source, const Selection& selection) {
  std::vector<int32_t> numbers;
  const GateStrips& used = selection.used;
  if (!useful_ || !used.count || useful_ > kMaxBlockColumns || source.bitmask == UseBitmask::always) return numbers;
  const double most = most_blocks(source.format) * double(used.used.size()) / kStripsPerBlock;
  std::vector<int32_t> strips = group_strips(used);
  if (double(count_blocks(used, strips)) > most) return numbers;
  strip_ = std::move(strips);
  numbers.assign(size_t(view_.rows / kRowBlock) * used.cols, -1);
  const int count = view_.layout == Layout::columns ? number_by_column(used, numbers) : number_by_row(used, numbers);
  elements_ = size_t(count) * kRowBlock;
  view_.form = Form::block_sparse;
  view_.blocks = {first_.data(), column_.data(), where_.data()};
  view_.strip = strip_.data();
  return numbers;
}

bool PackedMatrix::stored(const GateStrips& used, int row_block, int col) const {
  bool any = false;
  for (int i = 0; i < kStripsPerBlock; i++) any |= used.at(strip_[row_block * kStripsPerBlock + i], col);
  return any;
}

int PackedMatrix::number_by_column(const GateStrips& used, std::vector<int32_t>& numbers) {
  const int row_blocks = view_.rows / kRowBlock, words = view_.words();
  int next = 0;
  first_.assign(size_t(view_.cols), 0);  // columns that only fill a quad are listed too, and have no blocks
  where_.assign(size_t(view_.cols) * words, 0);
  for (int c = 0; c < used.cols; c++) {
    first_[c] = next;
    for (int b = 0; b < row_blocks; b++) {
      if (!stored(used, b, c)) continue;
      numbers[size_t(b) * used.cols + c] = next++;
      where_[size_t(c) * words + b / 32] |= 1u << b % 32;
    }
  }
  return next;
}

int PackedMatrix::number_by_row(const GateStrips& used, std::vector<int32_t>& numbers) {
  const int row_blocks = view_.rows / kRowBlock;
  int next = 0;
  for (int b = 0; b < row_blocks; b++) {
    first_.push_back(next);
    for (int c = 0; c < used.cols; c++) {
      if (!stored(used, b, c)) continue;
      numbers[size_t(b) * used.cols + c] = next++;
      column_.push_back(uint16_t(c));
    }
    if (view_.format != Format::int8) continue;
    next = round_up(next, active_kernels().int8.quad);  // with zeros, which may meet any column
    column_.resize(next, 0);
  }
  first_.push_back(next);
  return next;
}

void PackedMatrix::choose_bitmask(const MatrixSource& source, const Selection& selection) {
  if (source.bitmask == UseBitmask::never) return;
  if (source.bitmask == UseBitmask::where_it_pays &&
      (!useful_ || !bitmask_pays(source.format, view_.layout, elements_, share_of_zeros(source, selection))))
    return;
  view_.form = Form::bitmask;
  view_.dense = bitmask_tiles(view_);
  elements_ = size_t(view_.rows) * view_.cols;
}

template <class T>
void PackedMatrix::fill(const MatrixSource& source, const Selection& selection, const std::vector<int32_t>& numbers) {
  const Matrix& v = view_;
  const Int8Packing& int8 = active_kernels().int8;
  const bool integers = v.format == Format::int8, quads = integers && v.layout == Layout::interleaved;
  const int quad = int8.quad, offset = integers ? int8.weight_offset : 0;
  const size_t cols = selection.cols.size();
  data_.resize(elements_ * sizeof(T));  // zeros
  T* data = reinterpret_cast<T*>(data_.data());
  if (integers) std::fill(data_.begin(), data_.end(), stored_zero<uint8_t>(offset));
  for (int r = 0; r < v.rows; r++) {
    const int from = selection.rows[v.place(r)];
    if (from < 0) continue;
    const T* values = static_cast<const T*>(source.values) + size_t(from) * source.cols;
    const int in_block = r % kRowBlock, place = integers && !quads ? int8.row_position(in_block) : in_block;
    const int tile = r / v.dense.tile, first = tile * v.dense.tile, width = std::min(v.dense.tile, v.rows - first);
    for (size_t c = 0; c < cols; c++) {
      size_t at;
      if (v.block_sparse()) {
        const int32_t b = numbers[r / kRowBlock * cols + c];
        if (b < 0) continue;
        at = quads ? size_t(b / quad * kRowBlock + in_block) * quad + b % quad : size_t(b) * kRowBlock + place;
      } else if (quads) {
        at = size_t(first) * v.cols + (c / quad * width + (r - first)) * quad + c % quad;
      } else {
        at = (size_t(tile) * v.cols + c) * v.dense.pitch + (r - first) / kRowBlock * kRowBlock + place;
      }
      const T value = values[selection.cols[c]];
      data[at] = integers ? T(int(value) + offset) : value;
    }
  }
}

void PackedMatrix::set_scales(const MatrixSource& source, const Selection& selection) {
  if (source.scale) {
    scale_.resize(view_.rows);
    const float step = source.format == Format::int8 ? 1.0f / float(source.levels) : 1.0f;
    for (int r = 0; r < view_.rows; r++)
      if (selection.rows[r] >= 0) scale_[r] = source.scale[selection.rows[r]] * step;
    view_.scale = scale_.data();
  }
  if (source.column_scale) {
    const size_t cols = selection.cols.size();
    factor_.resize(round_up(int(cols), kRowBlock));
    step_.resize(factor_.size());
    for (size_t c = 0; c < cols; c++) {
      const float range = source.column_scale[selection.cols[c]];
      factor_[c] = float(source.levels) / range;
      step_[c] = range / float(source.levels);
    }
    view_.factor = factor_.data();
    view_.step = step_.data();
  }
}

size_t PackedMatrix::bytes() const {
  return data_.size() + (scale_.size() + factor_.size() + step_.size()) * sizeof(float) +
         (kept_.size() + first_.size() + where_.size() + strip_.size()) * sizeof(int32_t) +
         column_.size() * sizeof(uint16_t) + mask_.size() * sizeof(uint64_t) + start_.size() * sizeof(int64_t);
}

Buffer<float> pack_bias(const float* bias, int hidden, const bool* live) {
  const std::vector<int> rows = packed_order(4 * hidden, live_units(live, hidden));
  Buffer<float> out(rows.size());
  for (size_t r = 0; r < rows.size(); r++)
    if (rows[r] >= 0) out[r] = bias[rows[r]];
  return out;
}

}  // namespace alstm
