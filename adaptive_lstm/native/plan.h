// The immutable side of a run: packed weights of a stack.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "kernels.h"

namespace alstm {

// Memory on a cache line boundary, so that a 64-byte row block is one line.
template <class T>
struct LineAllocator {
  using value_type = T;
  LineAllocator() = default;
  template <class U>
  LineAllocator(const LineAllocator<U>&) {}
  T* allocate(size_t n) {
    void* p = std::aligned_alloc(64, (n * sizeof(T) + 63) / 64 * 64);
    if (!p) throw std::bad_alloc();
    return static_cast<T*>(p);
  }
  void deallocate(T* p, size_t) { std::free(p); }
  template <class U>
  bool operator==(const LineAllocator<U>&) const {
    return true;
  }
  template <class U>
  bool operator!=(const LineAllocator<U>&) const {
    return false;
  }
};

template <class T>
using Buffer = std::vector<T, LineAllocator<T>>;

inline int round_up(int n, int to) { return (n + to - 1) / to * to; }

// A weight matrix as it comes from Python: row-major [rows, cols], float, bfloat16 bits or int8 with a scale per row.
struct Source {
  const void* values;
  const float* scale;         // [rows], int8 only
  const float* column_scale;  // [cols], q8 only: the activation that `levels` stands for in a column; null: 1 for all
  int rows, cols;
  Format format;
  int levels;    // q8 only
  bool gates;    // rows are the four gates of rows / 4 units in torch order i, f, g, o
  bool columns;  // lay it out so that single columns can be visited
};

class PackedMatrix {
 public:
  explicit PackedMatrix(const Source& source);
  const Matrix& view() const { return view_; }
  int source_rows() const { return source_rows_; }
  int source_cols() const { return source_cols_; }
  size_t bytes() const { return data_.size() + (scale_.size() + factor_.size() + step_.size()) * sizeof(float); }

 private:
  Buffer<uint8_t> data_;
  Buffer<float> scale_, factor_, step_;
  Matrix view_;
  int source_rows_, source_cols_;
};

// One layer in one direction. hidden H, projected size P (= H without projection).
struct Direction {
  int input, hidden, output;
  std::shared_ptr<const PackedMatrix> w_ih, w_hh, w_hr;  // w_hr: null without projection
  Buffer<float> bias;                                    // [R] in packed row order
  int rows() const { return w_ih->view().rows; }         // R = 4 * H rounded up to 16
  int blocks() const { return rows() / kBlock; }
  int units() const { return blocks() * kUnits; }
};

Buffer<float> pack_bias(const float* bias, int hidden);

class Plan {
 public:
  // layers[l][d]; throws std::invalid_argument if the shapes do not chain.
  explicit Plan(std::vector<std::vector<Direction>> layers);
  const std::vector<std::vector<Direction>>& layers() const { return layers_; }
  int directions() const { return int(layers_[0].size()); }
  int input() const { return layers_[0][0].input; }
  int output(int layer) const { return layers_[layer][0].output; }
  size_t bytes() const;

 private:
  std::vector<std::vector<Direction>> layers_;
};

}  // namespace alstm
