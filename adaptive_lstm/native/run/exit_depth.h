// Exits in depth: skip the layers above, for single timesteps or for whole sequences.
#pragma once

#include "run/exit_check.h"
#include "run/hold.h"

namespace alstm {

// The layers of a run that are done; exits of whole sequences take rows out of it.
struct LayersBelow {
  RowLayout& layout;
  std::vector<PackedRows>& outputs;  // one per layer, rows padded(D * P) apart
  Actions& actions;
};

class DepthExits {
 public:
  DepthExits(const DepthExit& exit, const Plan& plan, const Kernels& kernels, Batch& batch);
  void clear_counters();
  void add_counters(const DepthExits& other);
  size_t bytes() const { return translations_.capacity() * sizeof(float); }  // of what grows with the length of a run

  bool checks_after(int layer) const { return exit_.checks[layer]; }
  // Checks every timestep after this layer. Rows that exit get the action kExited and a translation.
  void exit_steps(int layer, const LayersBelow& below);
  // Checks every sequence after this layer; those that exit get their outputs in y and are taken out of the batch.
  void exit_sequences(int layer, const LayersBelow& below, const Rows<float>& y);

  const float* translations() const { return translations_.data(); }  // [packed rows, D * P], of exited timesteps
  int64_t sequences() const { return sequences_; }                    // that have exited
  const std::vector<int64_t>& checks() const { return checks_; }      // [L] exit checks
  const std::vector<int64_t>& exits() const { return exits_; }        // [L] timesteps that became translations

 private:
  void exit_block_of_steps(int layer, const LayersBelow& below);
  bool exit_block_of_sequences(int layer);
  void keep_exiting(int layer, const std::vector<Affine>& maps);
  void translate_outputs(int layer, const LayersBelow& below, const Rows<float>& y);
  void translate_block(int layer, const LayersBelow& below, const Rows<float>& y);
  void take_out(int layer, const LayersBelow& below);

  const DepthExit& exit_;
  const Kernels& kernels_;
  Batch& batch_;
  ptrdiff_t width_;  // D * P
  CheckBlock block_;
  Buffer<float> mapped_, mapped_below_;  // results of maps, of this layer and of the one below
  Buffer<float> translations_;
  std::vector<uint8_t> exiting_;  // [B] positions that exit after this layer
  std::vector<int64_t> checks_, exits_;
  int64_t sequences_ = 0;
};

}  // namespace alstm
