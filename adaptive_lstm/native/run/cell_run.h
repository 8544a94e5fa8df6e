// One cell over timesteps: the input side as matrix products, then the recurrent side step by step.
#pragma once

#include "run/batch.h"
#include "run/delta.h"
#include "run/rows.h"

namespace alstm {

// Rows of one operand, as one matrix product takes them.
class OperandRows {
 public:
  void grow(size_t rows, int gates, int cols);
  size_t bytes() const { return values_.capacity() * sizeof(float) + quantized_.capacity() * sizeof(int16_t); }
  // Row `row` becomes the values of z that the matrix reads, or the values last sent for batch row b.
  void put(const Kernels& kernels, const PackedMatrix& matrix, const float* z, ptrdiff_t row) {
    put(kernels, matrix, matrix.view(), z, row);
  }
  void put(const Kernels& kernels, const PackedMatrix& matrix, const Matrix& w, const float* z, ptrdiff_t row);
  // sums [slices, padded(R)] of row 0, as Kernels::dense_slices.
  void multiply_slices(const Kernels& kernels, const Matrix& w, float* sums) {
    kernels.dense_slices(w, values_.data(), sums, padded(w.rows));
  }
  void put_sent(const Matrix& w, const DeltaState& delta, int b, ptrdiff_t row);
  // y [n, R], rows padded(R) apart, = bias + W times the first n rows; without a bias, the products are added to y.
  void multiply(const Kernels& kernels, const Matrix& w, int n, const float* bias, float* y, bool reverse,
                void* kernel_scratch) {
    multiply(kernels, w, n, bias, y, reverse, kernel_scratch, padded(w.rows));
  }
  void multiply(const Kernels& kernels, const Matrix& w, int n, const float* bias, float* y, bool reverse,
                void* kernel_scratch, ptrdiff_t stride);
  FloatProduct& product() { return product_; }
  // The largest |z| of the values that the matrix reads.
  float largest(const Kernels& kernels, const PackedMatrix& matrix, const float* z) {
    return kernels.largest(matrix.gather(z, gathered_.data()), matrix.useful());
  }

 private:
  Buffer<float> values_;       // [n, C]; float activations
  Buffer<int16_t> quantized_;  // [n, C]; integer activations
  Buffer<float> largest_;      // [n] factors of the sums of `quantized_` where the matrix is dynamic
  Buffer<float> gathered_;     // [C] the values that the columns of a pruned matrix read
  FloatProduct product_;
};

// What the cells of a stack need while they run, one after the other.
struct Scratch {
  ChangeList changes;
  OperandRows operand;
  Buffer<float> gates;      // [chunk, R] pre-activations
  Buffer<float> units;      // [B, units] outputs before the projection, or before constants are put between them
  Buffer<float> ones;       // [R] scales of sums that are scaled later
  Buffer<float> projected;  // [B, h_stride] projections of rows that do not follow each other
  Buffer<uint8_t> kernel;   // of the integer kernels

  void grow(const Batch& batch, bool rows_apart);
  size_t bytes() const;  // of what grows with the batch
};

struct CellRun {
  const Cell& cell;
  CellState& state;
  const Kernels& kernels;
  Scratch& scratch;
  const bool backward;  // whether time runs backwards
  // Timesteps before this run. Alternating the direction in which tiles are read leaves the end of a large matrix in
  // the cache for the next step.
  const uint32_t tick;
  const bool once;  // whether the run is one timestep: the caches hold what was read since the weights were read before

  // Pre-activations of timesteps [t0, t1) from the input side, bias included, into `gates` in packed row order.
  void project(const Rows<const float>& in, const RowLayout& layout, int t0, int t1, float* gates);
  // The same of n inputs x of batch rows `rows`.
  void project_listed(const float* const* x, const int* rows, int n, float* gates);
  // One timestep: adds the recurrent side of n rows to `gates` [n, R] and advances their h and c. `rows`: which batch
  // rows, ascending; null: the first n.
  void recur(float* gates, const int* rows, int n, bool reverse);
  // The recurrent side of the first n rows, for the next recur() of this direction.
  void recur_ahead(int n, bool reverse);
  // Advances h and c of n rows with pre-activations `gates` [n, R].
  void advance(const float* gates, int n, const int* rows, bool reverse);
  // The same with pre-activations [B, R] that rows `rows` hold. What of them does not depend on c is kept in `kept`
  // [B, R] for the next time, if there is `more` than one timestep, where has_kept [B] is not set, which then is.
  void advance_held(const float* gates, float* kept, uint8_t* has_kept, const int* rows, int n, bool more,
                    bool reverse);

  ptrdiff_t gate_stride() const { return padded(cell.rows()); }

 private:
  void project_dense(const Rows<const float>& in, const RowLayout& layout, int t0, int t1, float* gates);
  void project_changes(const Rows<const float>& in, const RowLayout& layout, int t0, int t1, float* gates);
  int send_input(int b, const float* x, ptrdiff_t row, float* gates, bool product, bool reverse);
  bool product_pays(ptrdiff_t rows) const;
  void multiply_input(int rows, float* gates);
  void dense(const Matrix& w, const float* z, ptrdiff_t zs, int n, const float* bias, float* y, ptrdiff_t ys,
             bool reverse);
  void add_recurrent(float* gates, const int* rows, int n, bool reverse);
  void add_recurrent_row(float* gates, int b, bool reverse);
  void add_recurrent_integers(float* gates, const int* rows, int n, bool reverse);
  bool exceeds(int b) const;
  template <class Advance>
  void advance_by(Advance one, const int* rows, int n, bool reverse);
  bool multiply_ahead(int n, bool reverse);
  void send_ahead(int n, bool reverse);
  bool add_ahead(float* gates, const int* rows, int n, bool reverse);
};

}  // namespace alstm
