// What a thresholded operand remembers of every batch row between two timesteps.
#pragma once

#include "run/policy.h"

namespace alstm {

class Batch;

// The values last sent, and W times them.
// Invariant, whenever valid[b]: acc = W * sent (int8: exactly, as integers; float: up to rounding, hence `age`).
struct DeltaState {
  Buffer<float> sent, acc;            // [B, C], [B, R]; float activations
  Buffer<int16_t> sent_int;           // [B, C]; integer activations
  Buffer<int32_t> acc_int;            // [B, R]; integer activations
  std::vector<uint8_t> valid;         // [B]
  std::vector<uint8_t> nothing_sent;  // [B] the first timestep sends every column that is not zero
  std::vector<int> age;               // [B] float: updates since acc was computed from scratch
  std::vector<float> delta_sum;       // [B] float: sum of |delta| over those updates

  void reset(const Matrix& w, int batch);
  template <class F>
  void each_array(F&& f) {
    f(sent);
    f(acc);
    f(sent_int);
    f(acc_int);
    f(valid);
    f(nothing_sent);
    f(age);
    f(delta_sum);
  }
};

// One operand of a cell, its input x or its own h, with the matrix that multiplies it.
struct Operand {
  const PackedMatrix* matrix = nullptr;
  const float* thresholds = nullptr;  // of the columns that the matrix holds; null: all are sent at every timestep
  Buffer<float> kept_thresholds;      // where the matrix holds only some of the columns
  DeltaState delta;                   // empty without thresholds
  int64_t sent = 0;                   // columns sent since the counters were cleared, over all batch rows
  double activity = 0;                // share of columns sent in the last chunk

  void attach(const PackedMatrix& matrix, const Buffer<float>* thresholds);  // [C]; null or empty: none
  bool thresholded() const { return thresholds != nullptr; }
  const Matrix& view() const { return matrix->view(); }
  // Whether the direction of a timestep decides about bits: sums of single columns of floats are rounded in its order.
  bool in_order() const { return thresholded() && view().format != Format::int8; }
};

// An int8 matrix whose rows of activations have a range of their own each (Matrix::dynamic).
inline Matrix own_range(Matrix w) {
  w.dynamic = true;
  return w;
}

// The values last sent, as floats [B, C] in batch order, NaN in rows that have sent nothing; loading them marks acc as
// not computed. What is loaded must have been reset.
void store_sent(const Operand& operand, const Batch& batch, float* out);
void load_sent(Operand& operand, const Batch& batch, const Kernels& kernels, const float* sent);

}  // namespace alstm
