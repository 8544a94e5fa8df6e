// What a cell remembers for a policy that holds it.
#pragma once

#include "run/policy.h"

namespace alstm {

class Batch;
struct CellState;

// The cells of layers that decide have more to remember.
struct HoldState {
  std::vector<int64_t> run;      // [B] timesteps held since the row last ran; -1: it has not run yet
  Buffer<float> gates;           // [B, R] pre-activations of the last timestep that ran
  Buffer<float> x_used, h_used;  // [B, I], [B, P] input and hidden state of that timestep
  std::vector<double> x_size;    // [B] root mean square of x_used
  Buffer<float> queue;           // [B, cap, I] inputs of earlier runs that wait to be replayed
  std::vector<int64_t> queued;   // [B] how many
  std::vector<int64_t> since;    // [B] how many more of the chunk that is being run
  double share = 0;              // recent share of timesteps that were held

  void reset(const Cell& cell, const Hold* decider, int batch);
  template <class F>
  void each_array(F&& f) {
    f(run);
    f(gates);
    f(x_used);
    f(h_used);
    f(x_size);
    f(queue);
    f(queued);
    f(since);
  }
};

// The same as plain arrays in batch order, gates [B, 4H] in torch order; null where the layer does not remember it.
template <class Float, class Int>
struct HoldArrays {
  Float *x_used = nullptr, *h_used = nullptr;
  Int* run = nullptr;
  Float *gates = nullptr, *queue = nullptr;
  Int* queued = nullptr;
};

void store_hold(const CellState& state, const Batch& batch, const HoldArrays<float, int64_t>& out);
void load_hold(CellState& state, const Batch& batch, const Kernels& kernels,
               const HoldArrays<const float, const int64_t>& in);

}  // namespace alstm
