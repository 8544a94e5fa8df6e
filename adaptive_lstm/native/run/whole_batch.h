// A whole batch from a fresh start to its final states, in blocks of rows.
//
// Rows do not influence each other, so the block is free to choose: weights are read once per block and timestep, and
// the states and outputs between two layers of all rows of a block should stay in the cache. Memory is that of a block.
#pragma once

#include "run/stack_state.h"
#include "run/thread_race.h"

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

// Bytes of weights that a batch of so many rows and timesteps reads, and whether that takes so long that a second
// thread is awake in time to help.
inline double bytes_read(const Plan& plan, int rows, int steps) { return double(plan.bytes()) * rows * steps; }
bool worth_waking(double bytes_read);

// Runs a batch on a state, whatever the state was, in blocks of `block` rows, on up to `threads` threads: blocks side
// by side, or else layers or directions inside a block. `check`: x and given states must be finite. Returns false if
// they are not; nothing that was written counts then.
bool run_whole(StackState& state, const WholeBatch& batch, int block, bool check, int threads = 1);

// The same in blocks that are fast, on one thread or as many as there is work for, `most` at most: on those if there is
// no race, else on whichever is faster, and on one for what is over before another thread is awake.
bool run_fastest(StackState& state, const WholeBatch& batch, bool check, ThreadRace* race, int most);

}  // namespace alstm
