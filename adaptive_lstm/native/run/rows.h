// Rows of floats in time: where they lie in memory, and how many there are at each timestep.
#pragma once

#include <cstddef>
#include <vector>

#include "pack/plan.h"

namespace alstm {

// Row b of timestep t starts at base + (offset ? offset[t] : t * time) + b * row.
template <class T>
struct Rows {
  T* base;
  ptrdiff_t time, row;
  const ptrdiff_t* offset;

  Rows(T* base, ptrdiff_t time, ptrdiff_t row, const ptrdiff_t* offset = nullptr)
      : base(base), time(time), row(row), offset(offset) {}
  template <class U>  // rows to write can be read
  Rows(const Rows<U>& other) : Rows(other.base, other.time, other.row, other.offset) {}

  T* at(ptrdiff_t t, ptrdiff_t b) const { return base + (offset ? offset[t] : t * time) + b * row; }
  Rows from_row(ptrdiff_t b) const { return {base + b * row, time, row, offset}; }
  Rows from_time(ptrdiff_t t) const { return {offset ? base : base + t * time, time, row, offset ? offset + t : offset}; }
  Rows from_column(ptrdiff_t column) const { return {base + column, time, row, offset}; }
};

// How many rows are alive at each timestep, and their numbers when all rows are packed one after the other.
struct RowLayout {
  std::vector<int> sizes;        // [T]
  std::vector<ptrdiff_t> start;  // [T + 1] first packed row of a timestep
  // Of a single timestep: which rows of the batch these are, ascending; null: the first ones, as of all other runs.
  const int* rows = nullptr;

  int steps() const { return int(sizes.size()); }
  int batch_row(int b) const { return rows ? rows[b] : b; }
  ptrdiff_t row(int t, int b) const { return start[t] + b; }
  void number_rows() {  // after a change of `sizes`
    start.resize(sizes.size() + 1);
    start[0] = 0;
    for (size_t t = 0; t < sizes.size(); t++) start[t + 1] = start[t] + sizes[t];
  }
};

// Where the timesteps of packed rows start.
class PackedOffsets {
 public:
  template <class T>
  Rows<T> rows(const RowLayout& layout, T* base, ptrdiff_t width) {
    offset_.resize(layout.sizes.size());
    for (size_t t = 0; t < offset_.size(); t++) offset_[t] = layout.start[t] * width;
    return {base, 0, width, offset_.data()};
  }
  // sizes [T]: how many rows there are at each timestep.
  template <class T>
  Rows<T> rows(const int64_t* sizes, int steps, T* base, ptrdiff_t width) {
    offset_.resize(steps);
    ptrdiff_t start = 0;
    for (int t = 0; t < steps; t++, start += sizes[t - 1] * width) offset_[t] = start;
    return {base, 0, width, offset_.data()};
  }

 private:
  std::vector<ptrdiff_t> offset_;  // [T] in floats
};

// Packed rows with memory of their own, which grows and never shrinks.
class PackedRows {
 public:
  Rows<float> rows(const RowLayout& layout, ptrdiff_t width) {
    const size_t needed = size_t(layout.start.back() * width);
    if (data_.size() < needed) data_.resize(needed);
    return offsets_.rows(layout, data_.data(), width);
  }
  float* data() { return data_.data(); }
  const float* data() const { return data_.data(); }
  size_t bytes() const { return data_.capacity() * sizeof(float); }

 private:
  Buffer<float> data_;
  PackedOffsets offsets_;
};

// Room for `n` values at least.
template <class T>
void grow(Buffer<T>& buffer, size_t n) {
  if (buffer.size() < n) buffer.resize(n);
}

// Distance between rows of `n` floats in our own buffers: a cache line more than the row. Rows a power of two apart
// would all compete for the same few places in the first-level cache.
constexpr ptrdiff_t padded(ptrdiff_t n) { return n + 16; }

// Rows of gate pre-activations whose input side is computed at once: about as many stay in the second-level cache.
constexpr int kChunkRows = 64;

constexpr int chunk_steps(int batch) { return batch < kChunkRows ? kChunkRows / (batch < 1 ? 1 : batch) : 1; }

}  // namespace alstm
