// The mutable side of a run: what a batch of sequences has reached, and the scratch of the thread that advances it.
#pragma once

#include <memory>
#include <optional>

#include "run/exit_time.h"
#include "run/layers.h"
#include "run/turn.h"

namespace alstm {

struct RunOptions {
  bool check = false;       // refuse inputs that are not finite
  bool open_ended = false;  // rows may go on after x, so there are exit checks after their last timestep too
  int threads = 1;          // that layers and directions may use
};

struct ExitCounts {
  int64_t checks = 0, exits = 0;                   // in time; rows that exited, in time or as sequences in depth
  std::vector<int64_t> depth_checks, depth_exits;  // [L] in depth; timesteps that became translations
};

class StackState {
 public:
  StackState(std::shared_ptr<const Plan> plan, std::shared_ptr<const Policy> policy, int batch);
  // As restart, counters cleared.
  void reset(int batch);
  // Zero states, nothing sent, held or exited. If there is no memory, the batch is empty.
  void restart(int batch);
  void clear_counters();
  void add_counters(const StackState& other);

  // h: [L * D, B, P], c: [L * D, B, H], contiguous.
  void load(const float* h, const float* c) { batch_.load(h, c); }
  void store(float* h, float* c) const { batch_.store(h, c); }
  // The same as rows in memory, cells `time` apart; all layers are of one width. `check`: returns false, with nothing
  // changed, if a value is not finite.
  bool load(const Rows<const float>& h, const Rows<const float>& c, bool check);
  void store(const Rows<float>& h, const Rows<float>& c) const { batch_.store(h, c); }

  // Runs every layer over `steps` timesteps. x, y: rows of input() and D * output(last) floats. sizes: [T] batch rows
  // alive at each step (packed order, not increasing) or null for all that have not left; with sizes, `time` of x and y
  // is ignored and rows follow each other. Returns false, with nothing changed, if an input is refused.
  bool run(const Rows<const float>& x, const Rows<float>& y, int steps, const int64_t* sizes, RunOptions options) {
    return run_rows(x, y, steps, sizes, 0, options);
  }
  // The same where the state's rows are those of a larger batch from `first` on; `sizes` are of the larger batch.
  bool run_rows(const Rows<const float>& x, const Rows<float>& y, int steps, const int64_t* sizes, int first,
                RunOptions options);
  // How many threads a run of so many rows has work for inside its rows, `most` at most.
  int threads(int rows, int steps, int most) const { return layers_.threads(rows, steps, most); }
  // A state of the same plan and policy for another thread's rows, made when it is first asked for and then kept.
  StackState& helper(size_t number);
  // One step of a stream on contiguous x [B, I] and y [B, D * P].
  bool step(const float* x, float* y);
  // The same of the rows `rows` [n] alone, ascending, on contiguous x [n, I] and y [n, D * P]. Nothing else is read,
  // moved or copied. Not for exits of whole sequences in depth.
  bool step_rows(const int64_t* rows, int n, const float* x, float* y);
  // As run() of all rows, where some start anew before some timesteps: starts [T, B], one byte each. `fresh`: one row
  // of a new sequence with the same plan and policy.
  bool run_starting(const Rows<const float>& x, const Rows<float>& y, int steps, const uint8_t* starts,
                    StackState& fresh, RunOptions options);
  // Rows `to` [n] become rows `from` [n] of another state with the same plan and policy, bit for bit.
  void take_rows(const int64_t* to, StackState& other, const int64_t* from, int n);
  // Does now what is certain of the next timestep. Nothing that can be read changes, and no result. One direction only.
  void ahead();

  size_t bytes() const;  // of its own buffers, for the most part

  const Plan& plan() const { return *plan_; }
  const Policy& policy() const { return *policy_; }
  const Batch& batch() const { return batch_; }
  ExitCounts exit_counts() const;
  int64_t timesteps() const { return timesteps_; }  // of all rows together, since the counters were cleared

  // Active rows [n], ascending, exit as somebody else decided, with h [n, P] of the top layer. The rows of a later x
  // and y are those that have not left. Only where the policy has no exit in time of its own.
  void leave(const int64_t* rows, size_t n, const float* h);

  // Whether a timestep was run, or a state of a policy loaded, since the last reset. Until then nothing was sent or
  // held.
  bool started() const { return started_; }

  int cells() const { return int(plan_->layers().size()) * plan_->directions(); }
  CellState& cell(int index);  // numbered layer by layer
  void load_sent(Operand& operand, const float* sent);
  void load_hold(CellState& state, const HoldArrays<const float, const int64_t>& in);
  const ExitState& exit_state() const { return time_exits_->state(); }  // the policy must have an exit in time
  void load_exit(const ExitState& state);

  mutable Turn turn;  // of threads that share the state
  int threads_of_last_run = 1;

 private:
  void set_size(int batch);
  bool finite(const Rows<const float>& x, const RowLayout& layout) const;
  void put_in_order();  // every row at its own position, those that have exited too

  std::shared_ptr<const Plan> plan_;
  std::shared_ptr<const Policy> policy_;
  const Kernels& kernels_;
  Batch batch_;
  Layers layers_;
  std::optional<TimeExits> time_exits_;
  RowLayout layout_;
  PackedOffsets in_, out_;      // of x and y, where they are packed
  std::vector<int64_t> sizes_;  // [T] the state's rows alive at each timestep, where they are packed
  std::vector<int> chosen_;     // rows of a step_rows()
  std::vector<std::unique_ptr<StackState>> helpers_;
  int64_t timesteps_ = 0;
  bool started_ = false;
};

}  // namespace alstm
