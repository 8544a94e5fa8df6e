// Exits in time: run a few timesteps, check, go on with the rows that stay. Rows that exit are taken out of the batch.
//
// Few timesteps at a time cost more than many: every layer's weights come from further away, and so do those of the
// checks. So a run goes ahead over several checks and makes them together; a row that exits at one of them goes back to
// it. It goes ahead by a share of what it has done, so no exit wastes more than that. Over checks that cannot pass,
// because their threshold is closed, it always runs ahead.
#pragma once

#include "run/exit_check.h"
#include "run/layers.h"

namespace alstm {

// What an exit in time remembers, in batch order.
struct ExitState {
  int64_t time = 0;             // timesteps so far
  std::vector<uint8_t> exited;  // [B]
  Buffer<float> translation;    // [B, P] the outputs of rows that have exited
  std::vector<int64_t> streak;  // [B] consecutive checks that said exit
  Buffer<float> past;           // [B, window, P] earlier translations, oldest first; NaN before the first
};

class TimeExits {
 public:
  TimeExits(const Policy& policy, const Plan& plan, const Kernels& kernels, Batch& batch);
  void reset();
  void clear_counters();
  size_t bytes() const {
    return in_.bytes() + out_.bytes() + snapshots_.bytes() + state_.past.capacity() * sizeof(float);
  }

  // As StackState::run, by means of `layers`.
  void run(Layers& layers, const Rows<const float>& x, const Rows<float>& y, int steps, const int64_t* sizes,
           bool open_ended);

  const ExitState& state() const { return state_; }
  void load(const ExitState& state);
  int64_t checks() const { return checks_; }
  int64_t exits() const { return exits_; }  // rows

 private:
  struct Alive;
  struct Chunk;
  Chunk next_chunk(int t, int steps);
  void run_active(Layers& layers, const Rows<const float>& x, const Chunk& chunk);
  void check(const Chunk& chunk, int steps, bool open_ended);
  void check_block(const Chunk& chunk);
  bool open(int64_t time) const;
  bool should_exit(int b, const float* mapped, int n, float threshold);
  void translate(const Affine* translation, const Chunk& chunk);
  void go_back(const TimeRow& at, const Chunk& chunk);
  void copy_translation(int b, int t, const Rows<float>& y) const;

  const TimeExit& exit_;
  const Kernels& kernels_;
  Batch& batch_;
  int input_, output_;
  bool runs_ahead_;  // whether a row can go back to an earlier timestep
  ExitState state_;
  RowLayout layout_;     // of the rows that have not exited
  PackedRows in_, out_;  // their inputs and outputs
  Snapshots snapshots_;
  CheckBlock block_;
  Buffer<float> mapped_;  // results of maps
  int64_t checks_ = 0, exits_ = 0;
};

}  // namespace alstm
