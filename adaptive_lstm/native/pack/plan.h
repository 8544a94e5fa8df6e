// The immutable side of a run: packed weights of a stack.
#pragma once

#include <cstdint>
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
  static constexpr std::align_val_t kLine{64};  // not std::aligned_alloc, which Windows lacks
  T* allocate(size_t n) { return static_cast<T*>(::operator new(n * sizeof(T), kLine)); }
  void deallocate(T* p, size_t) { ::operator delete(p, kLine); }
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
  const void* values = nullptr;
  const float* scale = nullptr;         // [rows] of int8 weights
  const float* column_scale = nullptr;  // [cols] Format::int8: the activation that `levels` stands for; null: 1 for all
  int rows = 0, cols = 0;
  Format format = Format::f32;
  int levels = 0;        // Format::int8
  bool gates = false;    // rows are the four gates of rows / 4 units in torch order i, f, g, o
  bool columns = false;  // single columns will be visited
  // [units] whether a unit is live. Rows of pruned units (without `gates`: their columns) are left out. Null: all are
  // live.
  const bool* live = nullptr;
  bool zeros = false;                      // leave out columns of zeros, and blocks of zeros where that pays
  UseBitmask bitmask = UseBitmask::never;  // leave out every other zero
  bool dynamic = false;                    // Format::int8: a range per row of activations
};

// The live units, ascending. live [units] as in MatrixSource.
std::vector<int32_t> live_units(const bool* live, int units);

struct GateStrips;
struct Selection;

// A weight matrix in the form that the active kernels read. Not copyable: view() points into its arrays.
class PackedMatrix {
 public:
  explicit PackedMatrix(const MatrixSource& source);
  PackedMatrix(const PackedMatrix&) = delete;
  PackedMatrix& operator=(const PackedMatrix&) = delete;
  const Matrix& view() const { return view_; }
  int source_rows() const { return source_rows_; }
  int source_cols() const { return source_cols_; }
  bool gates() const { return gates_; }  // whether its rows are gates
  size_t bytes() const;

  // Number of columns that are not all zeros. The matrix holds these, or one if there are none.
  int useful() const { return useful_; }
  // Their source columns [useful]; empty: all columns are held.
  const std::vector<int32_t>& kept() const { return kept_; }
  // The values of z for the columns that are held: z itself, or gathered in `room`.
  const float* gather(const float* z, float* room) const {
    if (kept_.empty()) return z;
    for (size_t k = 0; k < kept_.size(); k++) room[k] = z[kept_[k]];
    return room;
  }

 private:
  Buffer<uint8_t> data_;
  Buffer<float> scale_, factor_, step_;
  Matrix view_;
  int source_rows_, source_cols_, useful_ = 0;
  bool gates_;
  size_t elements_ = 0;  // stored, before the bitmask form drops zeros
  std::vector<int32_t> kept_;
  std::vector<int32_t> first_, strip_;
  std::vector<uint16_t> column_;
  std::vector<uint32_t> where_;
  std::vector<uint64_t> mask_;
  std::vector<int64_t> start_;

  // Construction, in this order.
  void set_shape(const MatrixSource& source, const Selection& selection);
  std::vector<int32_t> number_blocks(const MatrixSource& source, const Selection& selection);
  void choose_bitmask(const MatrixSource& source, const Selection& selection);
  template <class T>
  void fill(const MatrixSource& source, const Selection& selection, const std::vector<int32_t>& numbers);
  void set_scales(const MatrixSource& source, const Selection& selection);

  bool stored(const GateStrips& used, int row_block, int col) const;
  int number_by_column(const GateStrips& used, std::vector<int32_t>& numbers);
  int number_by_row(const GateStrips& used, std::vector<int32_t>& numbers);
};

// One layer in one direction. hidden H, projected size P (= H without projection).
struct Cell {
  int input = 0, hidden = 0, output = 0;
  std::shared_ptr<const PackedMatrix> w_ih, w_hh, w_hr;  // w_hr: null without projection
  Buffer<float> bias;                                    // [R] in packed row order
  std::vector<int32_t> live;                             // the units that are computed, ascending
  Buffer<float> constant;                                // [H] outputs of the pruned units; empty: none is pruned
  int rows() const { return w_ih->view().rows; }         // R = 4 * units rounded up to 16
  int blocks() const { return rows() / kRowBlock; }
  int units() const { return blocks() * kUnits; }
  bool pruned() const { return !constant.empty(); }
  void set_constants(float* h) const;                // in h [H], of pruned units without a projection
  void scatter(const float* units, float* h) const;  // h [H] from outputs of the computed units, and the constants
};

// bias [4H] in packed row order, without pruned units. live [H] as in MatrixSource.
Buffer<float> pack_bias(const float* bias, int hidden, const bool* live);

class Plan {
 public:
  // layers[l][d]; throws std::invalid_argument if the shapes do not chain.
  explicit Plan(std::vector<std::vector<Cell>> layers);
  const std::vector<std::vector<Cell>>& layers() const { return layers_; }
  int directions() const { return int(layers_[0].size()); }
  int input() const { return layers_[0][0].input; }
  int output(int layer) const { return layers_[layer][0].output; }
  size_t bytes() const;

 private:
  std::vector<std::vector<Cell>> layers_;
};

}  // namespace alstm
