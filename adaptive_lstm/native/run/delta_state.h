// What is remembered of every batch row between two timesteps.
#pragma once

#include "run/policy.h"

namespace alstm {

// What a delta operand remembers of every batch row: the values last sent, and W times them.
// Invariant, whenever valid[b]: acc = W * sent (q8: exactly, as integers; float: up to rounding, hence `age`).
struct Memory {
  Buffer<float> sent, acc;     // [B, C], [B, R]; float activations
  Buffer<int16_t> sent_q;      // [B, C]; q8
  Buffer<int32_t> acc_q;       // [B, R]; q8
  std::vector<uint8_t> valid;  // [B]
  std::vector<uint8_t> fresh;  // [B] nothing was sent yet: the first step sends every column that is not zero
  std::vector<int> age;        // [B] float: updates since acc was computed from scratch
  std::vector<float> moved;    // [B] float: sum of |delta| over those updates
  void reset(const Matrix& w, int batch);
  template <class F>
  void each_array(F&& f) {
    f(sent), f(acc), f(sent_q), f(acc_q), f(valid), f(fresh), f(age), f(moved);
  }
};

// What a layer remembers for a policy that holds it; the layers that decide have more to remember.
struct Held {
  std::vector<int64_t> run;      // [B] timesteps held since it last ran; -1: it has not run yet
  Buffer<float> gates;           // [B, R] pre-activations of the last timestep that ran
  Buffer<float> x_used, h_used;  // [B, I], [B, P] input and hidden state of that timestep
  std::vector<double> x_size;    // [B] root mean square of x_used
  Buffer<float> queue;           // [B, cap, I] inputs of earlier runs that wait to be worked off
  std::vector<int64_t> queued;   // [B] how many
  std::vector<int64_t> since;    // [B] and how many more of the chunk that is being run
  double share = 0;              // recent share of timesteps that were held
  void reset(const Direction& w, const Hold* decider, int batch);
  template <class F>
  void each_array(F&& f) {
    f(run), f(gates), f(x_used), f(h_used), f(x_size), f(queue), f(queued), f(since);
  }
};

struct DirectionState {
  Buffer<float> h, c;  // [B, h_stride], [B, units]
  int h_stride = 0, units = 0;
  Buffer<float> limit_x, limit_h;  // thresholds of the columns of pruned matrices
  Memory x, recurrent;
  Held held;
  int64_t sent_x = 0, sent_h = 0;  // columns computed since the counters were cleared, over all batch rows
  int64_t ran = 0, moved = 0;      // batch rows times timesteps with matrix work, and in which h and c advanced
  double x_activity = 0;           // share of input columns sent in the last chunk
  template <class F>
  void each_array(F&& f) {  // everything that is kept per batch row
    f(h), f(c);
    x.each_array(f), recurrent.each_array(f), held.each_array(f);
  }
};

// What an exit in time remembers, by the rows' numbers in the batch.
struct Left {
  int64_t time = 0;             // timesteps so far
  std::vector<uint8_t> done;    // [B] has left
  Buffer<float> final;          // [B, P] with this translation
  std::vector<int64_t> streak;  // [B] questions in a row answered with yes
  Buffer<float> past;           // [B, window, P] earlier translations, oldest first; NaN before the first
  void reset(const TimeExit& exit, int output, int batch);
};

// What was counted of exits.
struct ExitCounts {
  int64_t asked = 0, left = 0;                   // questions in time; rows that left
  std::vector<int64_t> asked_depth, left_depth;  // [L] questions in depth; timesteps that became translations
};

}  // namespace alstm
