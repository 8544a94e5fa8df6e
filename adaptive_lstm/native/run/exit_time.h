// Exits in time: run a few timesteps, check, go on with the rows that stay. Rows that exit are taken out of the batch.
//
// Few timesteps at a time cost more than many: every layer's weights come from further away, and so do those of the
// checks. So a run goes ahead over several checks and makes them together; a row that exits at one of them goes back to
// it. It goes ahead by a share of what it has done, so no exit wastes more than that. Over checks that cannot pass,
// because their threshold is closed, it always runs ahead.
//
// Rows whose times differ are checked at different timesteps, so they run timestep by timestep.
#pragma once

#include "run/exit_check.h"
#include "run/layers.h"

namespace alstm {

// What an exit in time remembers, in batch order.
struct ExitState {
  std::vector<int64_t> time;    // [B] timesteps so far
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
  void add_counters(const TimeExits& other);
  size_t bytes() const {
    return in_.bytes() + out_.bytes() + snapshots_.bytes() + state_.past.capacity() * sizeof(float);
  }

  // As StackState::run, by means of `layers`.
  void run(Layers& layers, const Rows<const float>& x, const Rows<float>& y, int steps, const int64_t* sizes,
           bool open_ended);
  // One timestep of the rows `rows` [n] of the batch, ascending, from x to y; the first `go_on` of them are checked.
  // The batch must be in order, and stays so: rows that have exited are passed over.
  void run_chosen(Layers& layers, const int* rows, int n, int go_on, const Rows<const float>& x, const Rows<float>& y);
  // Row `to` becomes row `from` of another batch with the same policy. Both must be in order.
  void take(int to, const TimeExits& other, int from);
  // Every row to its own position: rows that have exited lie anywhere from now on.
  void put_in_order();

  const ExitState& state() const { return state_; }
  void load(const ExitState& state);
  int64_t checks() const { return checks_; }
  int64_t exits() const { return exits_; }  // rows

 private:
  struct Alive;
  struct Chunk;
  bool times_differ() const;
  void move_exited();
  void run_apart(Layers& layers, const Rows<const float>& x, const Rows<float>& y, int steps, const Alive& alive,
                 bool open_ended);
  void check_chosen(int n);
  Chunk next_chunk(int t, int steps);
  void run_active(Layers& layers, const Rows<const float>& x, const Chunk& chunk);
  void check(const Chunk& chunk, int steps, bool open_ended);
  void check_block(const Chunk& chunk);
  bool open(int64_t time) const;
  size_t map_at(int64_t time) const;
  int64_t time_of(const TimeRow& at) const { return state_.time[batch_.row_at(at.b)] + at.t - 1; }
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
  std::vector<int> rows_;     // of a timestep of rows whose times differ
  std::vector<int> running_;  // those of the chosen rows that have not exited
  std::vector<int> due_;      // those of them that are checked
  bool passes_over_ = false;  // whether rows that have exited may lie between the others
  Buffer<float> mapped_;      // results of maps
  int64_t checks_ = 0, exits_ = 0;
};

}  // namespace alstm
