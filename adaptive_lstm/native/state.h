// The mutable side of a run: what a batch of sequences has reached, and the scratch of the thread that advances it.
#pragma once

#include <atomic>
#include <memory>

#include "plan.h"

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
};

struct DirectionState {
  Buffer<float> h, c;  // [B, h_stride], [B, units]
  int h_stride = 0, units = 0;
  Memory x, recurrent;
  int64_t sent_x = 0, sent_h = 0;  // columns computed since the counters were cleared, over all batch rows
  int64_t steps = 0;               // batch rows times timesteps since then
  double x_activity = 0;           // share of input columns sent in the last chunk
};

// A batch of rows in time: row b of timestep t starts at base + (offset ? offset[t] : t * time) + b * row.
struct Sequence {
  float* base;
  ptrdiff_t time, row;
  const ptrdiff_t* offset = nullptr;
  float* at(ptrdiff_t t, ptrdiff_t b) const { return base + (offset ? offset[t] : t * time) + b * row; }
};

struct Workspace {
  Buffer<float> gates, estimate, units, delta, layer[2];
  Buffer<int16_t> whole, delta_q;
  Buffer<int32_t> cols;
  Buffer<uint8_t> scratch;
  std::vector<int> sizes;            // [T] batch rows alive at each timestep
  std::vector<ptrdiff_t> start;      // [T + 1] first row of a timestep when all rows are packed one after the other
  std::vector<ptrdiff_t> offset[4];  // [T] start in floats, for x, y and the two buffers between layers
};

// Distance between rows of `n` floats in our own buffers: a cache line more than the row. Rows a power of two apart
// would all compete for the same few places in the first-level cache.
constexpr ptrdiff_t padded(ptrdiff_t n) { return n + 16; }

// Timesteps whose input side is computed at once. About 64 rows of gate pre-activations stay in the second-level cache.
constexpr int chunk_steps(int batch) { return batch < 64 ? 64 / (batch < 1 ? 1 : batch) : 1; }

class State {
 public:
  State(std::shared_ptr<const Plan> plan, std::shared_ptr<const DeltaPolicy> policy, int batch);
  void reset(int batch);  // zero states, nothing sent, counters cleared
  void clear_counters();

  // h: [L * D, B, P], c: [L * D, B, H], contiguous.
  void load(const float* h, const float* c);
  void store(float* h, float* c) const;

  // Runs every layer over `steps` timesteps. x, y: rows of input() and D * output(last) floats. sizes: [T] batch rows
  // alive at each step (packed order, not increasing) or null for all; with sizes, `time` of x and y is ignored and
  // rows follow each other. Returns false, with nothing changed, if `check` and an input is not finite.
  bool run(const Sequence& x, const Sequence& y, int steps, const int64_t* sizes, bool check);

  const Plan& plan() const { return *plan_; }
  int batch() const { return batch_; }
  DirectionState& direction(int layer, int d) { return states_[layer][d]; }
  // The values last sent, as floats, [B, C]; loading them recomputes acc.
  void store_sent(int layer, int d, bool recurrent, float* out) const;
  void load_sent(int layer, int d, bool recurrent, const float* sent);
  bool delta(int layer, int d, bool recurrent) const;  // is this operand thresholded?

  std::atomic<bool> busy{false};  // guards against two threads advancing one state

 private:
  const Matrix& matrix(int layer, int d, bool recurrent) const;
  void run_direction(int layer, int d, const Sequence& in, const Sequence& out, int steps);
  void project(int layer, int d, const Sequence& in, int t0, int t1);
  void project_delta(int layer, int d, const Sequence& in, int t0, int t1);
  void recur(int layer, int d, float* gates, int rows, bool reverse);

  std::shared_ptr<const Plan> plan_;
  std::shared_ptr<const DeltaPolicy> policy_;
  int batch_ = 0;
  uint32_t tick_ = 0;
  std::vector<std::vector<DirectionState>> states_;
  Workspace work_;
};

}  // namespace alstm
