// A whole batch from a fresh start to its final states, in blocks of rows.
//
// Rows do not influence each other, so the block is free to choose: weights are read once per block and timestep, and
// the states and outputs between two layers of all rows of a block should stay in the cache. Memory is that of a block.
#pragma once

#include "run/stack_state.h"

namespace alstm {

struct WholeBatch {
  Rows<const float> x;   // [T, B] rows of I floats; packed rows follow each other if there are `sizes`
  Rows<float> y;         // the same of D * P floats
  int rows = 0;          // B
  int steps = 0;         // T
  const int64_t* sizes;  // [T] rows alive at each timestep, not increasing; null: all
  // [L * D, B] rows of P and H floats, `time` apart between cells. h_0 and c_0: both or none (null): zeros.
  Rows<const float> h_0, c_0;
  Rows<float> h_n, c_n;
};

// Rows that are run together: more are faster up to a point, and fewer where many timesteps make a block large.
int block_rows(const Plan& plan, int steps);

// Runs a batch on a state, whatever the state was, in blocks of `block` rows. `check`: x and given states must be
// finite. Returns false if they are not; nothing that was written counts then.
bool run_whole(StackState& state, const WholeBatch& batch, int block, bool check);

}  // namespace alstm
