// Packing: which rows, columns and pieces of a matrix are kept, and where each value lies.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>

#include "pack/bitmask.h"
#include "pack/block_pattern.h"
#include "pack/plan.h"

namespace alstm {

namespace {

constexpr size_t kLarge = size_t(512) << 10;  // bytes: half of a common second-level cache

// Share of pieces up to which keeping only those is faster (measured). Integers are gathered for every block anew,
// which a step has to gain back from memory.
constexpr double few_pieces(Format format) { return format == Format::int8 ? 0.65 : 0.8; }

constexpr int kMostCols = 1 << 16;  // that the columns of pieces can be told from

struct Tiling {
  int tile, pitch;
};

// How a matrix of `size` bytes per element is cut. Where single columns are visited and the matrix comes from far away,
// a tile is the whole matrix: the bytes of a column are adjacent, and skipped columns save their share of the time. In
// pieces of a few cache lines they would not: those are read at two thirds of the speed, fewer columns at less.
Tiling tiling(const MatrixSource& source, const Matrix& view, size_t size) {
  if (source.columns && size_t(view.rows) * view.cols * size > kLarge) {
    // An odd number of cache lines: columns a power of two apart would compete for the same few places in the caches.
    const int line = int(64 / size);
    return {view.rows, view.rows / line % 2 ? view.rows : view.rows + line};
  }
  if (source.format != Format::int8) return {kRowBlock, kRowBlock};
  const int tile = std::min(view.layout == Layout::columns ? kNarrow : 128, view.rows);
  return {tile, tile};
}

// The source row of every packed row, -1 for padding. Gates of the units that live; at least one block.
std::vector<int> packed_order(int rows, const std::vector<int32_t>& lives) {
  const int units = int(lives.size());
  std::vector<int> from(4 * round_up(std::max(units, 1), kUnits), -1);
  for (int r = 0; r < int(from.size()); r++) {
    const int k = r / kRowBlock * kUnits + r % kUnits, gate = r % kRowBlock / kUnits;
    if (k < units) from[r] = gate * (rows / 4) + lives[k];
  }
  return from;
}

template <class T>
Strips strips_of(const MatrixSource& source, const std::vector<int>& rows) {
  Strips out{int(rows.size()) / kGateStrip, source.cols, {}};
  out.used.resize(size_t(out.count) * out.cols);
  for (size_t r = 0; r < rows.size(); r++) {
    if (rows[r] < 0) continue;
    const T* row = static_cast<const T*>(source.values) + size_t(rows[r]) * out.cols;
    for (int c = 0; c < out.cols; c++) out.used[r / kGateStrip * out.cols + c] |= uint8_t(!is_zero(row[c]));
  }
  return out;
}

Strips strips_of(const MatrixSource& source, const std::vector<int>& rows) {
  if (source.format == Format::f32) return strips_of<float>(source, rows);
  if (source.format == Format::bf16) return strips_of<uint16_t>(source, rows);
  return strips_of<int8_t>(source, rows);
}

template <class T>
double share_of_zeros(const MatrixSource& source, const std::vector<int>& rows, const std::vector<int32_t>& cols) {
  size_t zeros = 0;
  for (int r : rows)
    for (int32_t c : cols) zeros += r < 0 || is_zero(static_cast<const T*>(source.values)[size_t(r) * source.cols + c]);
  return double(zeros) / double(rows.size() * cols.size());
}

double share_of_zeros(const MatrixSource& source, const std::vector<int>& rows, const std::vector<int32_t>& cols) {
  if (source.format == Format::f32) return share_of_zeros<float>(source, rows, cols);
  if (source.format == Format::bf16) return share_of_zeros<uint16_t>(source, rows, cols);
  return share_of_zeros<int8_t>(source, rows, cols);
}

// Only some of the columns.
Strips select(const Strips& strips, const std::vector<int32_t>& cols) {
  Strips out{strips.count, int(cols.size()), {}};
  for (int s = 0; s < strips.count; s++)
    for (int32_t c : cols) out.used.push_back(strips.at(s, c));
  return out;
}

template <class T>
std::vector<int32_t> list_if(int n, T&& keep) {
  std::vector<int32_t> out;
  for (int i = 0; i < n; i++)
    if (keep(i)) out.push_back(i);
  return out;
}

}  // namespace

std::vector<int32_t> live_units(const float* fixed, int units) {
  return list_if(units, [&](int k) { return !fixed || std::isnan(fixed[k]); });
}

template <class T>
void PackedMatrix::fill(const MatrixSource& source, const std::vector<int>& rows, const std::vector<int32_t>& cols,
                        const std::vector<int32_t>& numbers) {
  const Matrix& v = view_;
  const bool q8 = v.format == Format::int8, quads = q8 && v.layout == Layout::interleaved;
  T* data = reinterpret_cast<T*>(data_.data());
  if (q8) std::fill(data_.begin(), data_.end(), uint8_t(128));  // else the buffer starts as zeros
  for (int r = 0; r < v.rows; r++) {
    const int from = rows[v.place(r)];
    if (from < 0) continue;
    const T* values = static_cast<const T*>(source.values) + size_t(from) * source.cols;
    const int in_block = r % kRowBlock, place = q8 && !quads ? q8_row_position(in_block) : in_block;
    const int tile = r / v.tile, first = tile * v.tile, width = std::min(v.tile, v.rows - first);
    for (size_t c = 0; c < cols.size(); c++) {
      size_t at;
      if (!numbers.empty()) {
        const int32_t p = numbers[r / kRowBlock * cols.size() + c];
        if (p < 0) continue;
        at = quads ? size_t(p / kQuad * kRowBlock + in_block) * kQuad + p % kQuad : size_t(p) * kRowBlock + place;
      } else if (quads) {
        at = size_t(first) * v.cols + (c / kQuad * width + (r - first)) * kQuad + c % kQuad;
      } else {
        at = (size_t(tile) * v.cols + c) * v.pitch + (r - first) / kRowBlock * kRowBlock + place;
      }
      data[at] = q8 ? T(int(values[cols[c]]) + 128) : values[cols[c]];
    }
  }
}

// Numbers the pieces that are kept: [blocks, cols], -1 for the others. Returns how many there are.
int PackedMatrix::number_pieces(const Strips& used, std::vector<int32_t>& numbers) {
  const int blocks = view_.rows / kRowBlock, count = used.cols, words = view_.words();
  auto kept = [&](int b, int c) {
    bool any = false;
    for (int i = 0; i < kStrips; i++) any |= used.at(strip_[b * kStrips + i], c);
    return any;
  };
  int next = 0;
  numbers.assign(size_t(blocks) * count, -1);
  if (view_.layout == Layout::columns) {
    piece_.resize(count);
    where_.assign(size_t(count) * words, 0);
    for (int c = 0; c < count; c++) {
      piece_[c] = next;
      for (int b = 0; b < blocks; b++) {
        if (!kept(b, c)) continue;
        numbers[size_t(b) * count + c] = next++;
        where_[size_t(c) * words + b / 32] |= 1u << b % 32;
      }
    }
    return next;
  }
  for (int b = 0; b < blocks; b++) {
    piece_.push_back(next);
    for (int c = 0; c < count; c++) {
      if (!kept(b, c)) continue;
      numbers[size_t(b) * count + c] = next++;
      piece_col_.push_back(uint16_t(c));
    }
    if (view_.format != Format::int8) continue;
    next = round_up(next, kQuad);  // with zeros, which any column may multiply
    piece_col_.resize(next, 0);
  }
  piece_.push_back(next);
  return next;
}

PackedMatrix::PackedMatrix(const MatrixSource& source) : source_rows_(source.rows), source_cols_(source.cols) {
  const std::vector<int32_t> lives = live_units(source.fixed, source.gates ? source.rows / 4 : source.cols);
  std::vector<int> rows;
  std::vector<int32_t> cols;
  Strips used;
  if (source.gates) {
    rows = packed_order(source.rows, lives);
    if (source.zeros) used = strips_of(source, rows);
    cols = list_if(source.cols, [&](int c) {
      bool any = !source.zeros;
      for (int s = 0; s < used.count && !any; s++) any = used.at(s, c);
      return any;
    });
    useful_ = int(cols.size());
    if (cols.empty() && source.cols) cols.push_back(0);
    if (useful_ < source.cols) kept_ = cols;
  } else {
    rows.resize(round_up(source.rows, kRowBlock), -1);
    std::iota(rows.begin(), rows.begin() + source.rows, 0);
    cols = lives;
    if (cols.empty()) cols.push_back(0);
    useful_ = int(cols.size());
  }
  view_.format = source.format;
  view_.layout = source.columns ? Layout::columns : Layout::interleaved;
  view_.levels = source.levels;
  view_.dynamic = source.dynamic;
  view_.rows = int(rows.size());
  view_.cols = source.format == Format::int8 ? round_up(int(cols.size()), kQuad) : int(cols.size());
  const size_t size = source.format == Format::f32 ? 4 : source.format == Format::bf16 ? 2 : 1;
  const Tiling cut = tiling(source, view_, size);
  view_.tile = cut.tile;
  view_.pitch = cut.pitch;
  size_t values = size_t(round_up(view_.rows, cut.tile)) / cut.tile * cut.pitch * view_.cols;
  std::vector<int32_t> numbers;
  if (useful_ && used.count && useful_ <= kMostCols && source.bitmask != UseBitmask::always) {
    used = select(used, cols);
    const double most = few_pieces(source.format) * double(used.used.size()) / kStrips;
    strip_ = group_strips(used);
    if (double(count_pieces(used, strip_)) <= most) {
      values = size_t(number_pieces(used, numbers)) * kRowBlock;
      view_.piece = piece_.data();
      view_.piece_col = piece_col_.data();
      view_.where = where_.data();
      view_.strip = strip_.data();
    } else {
      strip_.clear();
    }
  }
  bool compressed = source.bitmask == UseBitmask::always;
  if (source.bitmask == UseBitmask::where_it_pays && useful_ && numbers.empty())
    compressed = compressing_pays(source.format, view_.layout, values, share_of_zeros(source, rows, cols));
  if (compressed) {
    view_.tile = view_.pitch = view_.layout == Layout::columns ? view_.rows : kRowBlock;
    values = size_t(view_.rows) * view_.cols;
  }
  data_.resize(values * size);
  if (source.format == Format::f32) fill<float>(source, rows, cols, numbers);
  if (source.format == Format::bf16) fill<uint16_t>(source, rows, cols, numbers);
  if (source.format == Format::int8_weight_only) fill<int8_t>(source, rows, cols, numbers);
  if (source.format == Format::int8) fill<int8_t>(source, rows, cols, numbers);
  if (compressed) {
    const int entries = view_.layout == Layout::columns ? view_.rows / kRowBlock : view_.cols;
    compress(data_, source.format, size_t(entries), mask_, start_);
    view_.mask = mask_.data();
    view_.start = start_.data();
  }
  if (source.scale) {
    scale_.resize(view_.rows);
    const float step = source.format == Format::int8 ? 1.0f / float(source.levels) : 1.0f;
    for (int r = 0; r < view_.rows; r++)
      if (rows[r] >= 0) scale_[r] = source.scale[rows[r]] * step;
    view_.scale = scale_.data();
  }
  if (source.column_scale) {
    factor_.resize(round_up(int(cols.size()), kRowBlock));
    step_.resize(factor_.size());
    for (size_t c = 0; c < cols.size(); c++) {
      factor_[c] = float(source.levels) / source.column_scale[cols[c]];
      step_[c] = source.column_scale[cols[c]] / float(source.levels);
    }
    view_.factor = factor_.data();
    view_.step = step_.data();
  }
  view_.data = data_.data();
}

size_t PackedMatrix::bytes() const {
  return data_.size() + (scale_.size() + factor_.size() + step_.size()) * sizeof(float) +
         (kept_.size() + piece_.size() + where_.size() + strip_.size()) * sizeof(int32_t) +
         piece_col_.size() * sizeof(uint16_t) + mask_.size() * sizeof(uint64_t) + start_.size() * sizeof(int64_t);
}

Buffer<float> pack_bias(const float* bias, int hidden, const float* fixed) {
  const std::vector<int> rows = packed_order(4 * hidden, live_units(fixed, hidden));
  Buffer<float> out(rows.size());
  for (size_t r = 0; r < rows.size(); r++)
    if (rows[r] >= 0) out[r] = bias[rows[r]];
  return out;
}

}  // namespace alstm
