// The recurrent side of a cell's next timestep, computed before its input is there. It belongs to h as it is: whatever
// changes h forgets it, and then the timestep computes it.
#pragma once

#include "run/delta_state.h"

namespace alstm {

struct Ahead {
  bool ready = false;
  // The direction of the timestep that it was computed for: sums of single columns of floats depend on it.
  bool reverse = false;
  int rows = 0;               // the first rows of the batch
  int slices = 0;             // sums of a row, which are added one after the other: so floats give the same bits
  Buffer<float> sums;         // [rows, slices, padded(R)] products with W_hh, not scaled; empty if h is thresholded
  DeltaState delta;           // of thresholded h: what the operand remembers after the timestep
  std::vector<int64_t> sent;  // [rows] and how many columns that sends

  size_t bytes() const { return (sums.capacity() + delta.acc.capacity() + delta.acc_int.capacity()) * sizeof(float); }
};

}  // namespace alstm
