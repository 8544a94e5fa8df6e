// The immutable side of a run: packed weights of a stack.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "kernels/kernels.h"

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

enum class UseBitmask : uint8_t { where_it_pays, always, never };

// A weight matrix as it comes from Python: row-major [rows, cols], float, bfloat16 bits or int8 with a scale per row.
struct MatrixSource {
  const void* values;
  const float* scale;         // [rows], int8 only
  const float* column_scale;  // [cols], q8 only: the activation that `levels` stands for in a column; null: 1 for all
  int rows, cols;
  Format format;
  int levels;    // q8 only
  bool gates;    // rows are the four gates of rows / 4 units in torch order i, f, g, o
  bool columns;  // lay it out so that single columns can be visited
  // [units] what pruned units stand at, NaN for those that live: their rows (without `gates`: their columns) are left
  // out. Null: all live.
  const float* fixed;
  bool zeros;            // leave out what is all zeros: columns, and pieces where there are many
  UseBitmask bitmask;    // keep only what is not zero, wherever it lies
  bool dynamic = false;  // q8 only: rows of activations bring their own range
};

// The units that live, ascending.
std::vector<int32_t> live_units(const float* fixed, int units);

struct Strips;

class PackedMatrix {
 public:
  explicit PackedMatrix(const MatrixSource& source);
  const Matrix& view() const { return view_; }
  int source_rows() const { return source_rows_; }
  int source_cols() const { return source_cols_; }
  size_t bytes() const;

  // How many columns are not all zeros. The matrix holds these, or if there are none, one.
  int useful() const { return useful_; }
  // Which ones, [useful]; empty: all of them.
  const std::vector<int32_t>& kept() const { return kept_; }
  // The values of z that these columns read: z itself, or gathered in `room`.
  const float* gather(const float* z, float* room) const {
    if (kept_.empty()) return z;
    for (size_t k = 0; k < kept_.size(); k++) room[k] = z[kept_[k]];
    return room;
  }

 private:
  Buffer<uint8_t> data_;
  Buffer<float> scale_, factor_, step_;
  Matrix view_;
  int source_rows_, source_cols_, useful_;
  std::vector<int32_t> kept_;
  std::vector<int32_t> piece_, strip_;
  std::vector<uint16_t> piece_col_;
  std::vector<uint32_t> where_;
  std::vector<uint64_t> mask_;
  std::vector<int64_t> start_;

  int number_pieces(const Strips& used, std::vector<int32_t>& numbers);
  template <class T>
  void fill(const MatrixSource& source, const std::vector<int>& rows, const std::vector<int32_t>& cols,
            const std::vector<int32_t>& numbers);
};

// One layer in one direction. hidden H, projected size P (= H without projection).
struct Direction {
  int input, hidden, output;
  std::shared_ptr<const PackedMatrix> w_ih, w_hh, w_hr;  // w_hr: null without projection
  Buffer<float> bias;                                    // [R] in packed row order
  std::vector<int32_t> lives;                            // the units that are computed
  Buffer<float> fixed;                                   // [H] what the others stand at; empty: there are no others
  int rows() const { return w_ih->view().rows; }         // R = 4 * units rounded up to 16
  int blocks() const { return rows() / kRowBlock; }
  int units() const { return blocks() * kUnits; }
  bool pruned() const { return !fixed.empty(); }
  void pin(float* h) const;                         // puts pruned units where they stand
  void spread(const float* units, float* h) const;  // outputs of the computed units among those that stand
};

Buffer<float> pack_bias(const float* bias, int hidden, const float* fixed);

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
