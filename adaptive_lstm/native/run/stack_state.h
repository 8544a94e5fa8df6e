// The mutable side of a run: what a batch of sequences has reached, and the scratch of the thread that advances it.
#pragma once

#include <atomic>
#include <memory>

#include "run/delta_state.h"

namespace alstm {

// A batch of rows in time: row b of timestep t starts at base + (offset ? offset[t] : t * time) + b * row.
struct Sequence {
  float* base;
  ptrdiff_t time, row;
  const ptrdiff_t* offset = nullptr;
  float* at(ptrdiff_t t, ptrdiff_t b) const { return base + (offset ? offset[t] : t * time) + b * row; }
};

// A sequence of our own: rows of all timesteps one after the other.
struct Rows {
  Buffer<float> data;
  std::vector<ptrdiff_t> offset;  // [T] start in floats
};

// Rows of a layer that run together: items [first, first + count) of the work list, each of another batch row. `late`:
// their inputs waited in a queue; they are rows [late, late + count) of the outputs worked off late. -1: timestep t's
// own.
struct Wave {
  int t;
  size_t first;
  int count;
  ptrdiff_t late;
};

struct Place {
  int t, b;  // timestep and position in the batch
};

struct Workspace {
  Buffer<float> gates, estimate, units, delta, projected;
  Buffer<float> gathered;  // [C] the values of an operand that the columns of a pruned matrix read
  Buffer<int16_t> whole, delta_q;
  Buffer<float> largest;  // [rows of `whole`] what their sums are multiplied by where the matrix is dynamic
  Buffer<int32_t> cols;
  Buffer<uint8_t> scratch;
  std::vector<int> sizes;        // [T] batch rows alive at each timestep
  std::vector<ptrdiff_t> start;  // [T + 1] first row of a timestep when all rows are packed one after the other
  Rows given, wanted;            // only the offsets of x and y, where those are packed
  std::vector<Rows> level;       // outputs of layers, two in turn, or all of them for an exit in depth
  Rows in, out;                  // x and y of the rows that have not left
  // Holding
  std::vector<uint8_t> actions[2];   // per direction, packed rows
  std::vector<const float*> item_x;  // the work list of a chunk: inputs and
  std::vector<int> item_row;         // batch rows
  std::vector<Wave> waves, late;     // of the chunk; those of the whole run that are late
  std::vector<int> late_row;         // batch rows of `late`
  std::vector<int> coasting;         // batch rows
  Buffer<float> late_out[2];         // outputs worked off late, of two layers in turn
  // Leaving
  Buffer<float> states, answer, below;  // [block, L * D * P], [block, R]
  std::vector<Place> asked;             // [block] what a question is about
  std::vector<uint8_t> leaves;          // [B] which positions leave after this layer
  Buffer<float> foreseen;               // [packed rows, D * P] outputs of those that left in depth
  std::vector<int> from;                // a new order of rows
  std::vector<uint8_t> mark, row;       // scratch of reorder
};

// Distance between rows of `n` floats in our own buffers: a cache line more than the row. Rows a power of two apart
// would all compete for the same few places in the first-level cache.
constexpr ptrdiff_t padded(ptrdiff_t n) { return n + 16; }

// Timesteps whose input side is computed at once. About 64 rows of gate pre-activations stay in the second-level cache.
constexpr int chunk_steps(int batch) { return batch < 64 ? 64 / (batch < 1 ? 1 : batch) : 1; }

constexpr int kAsk = 64;  // questions and translations computed at once

class State {
 public:
  State(std::shared_ptr<const Plan> plan, std::shared_ptr<const Policy> policy, int batch);
  void reset(int batch);  // zero states, nothing sent, held or left, counters cleared
  void clear_counters();

  // h: [L * D, B, P], c: [L * D, B, H], contiguous.
  void load(const float* h, const float* c);
  void store(float* h, float* c) const;

  // Runs every layer over `steps` timesteps. x, y: rows of input() and D * output(last) floats. sizes: [T] batch rows
  // alive at each step (packed order, not increasing) or null for all; with sizes, `time` of x and y is ignored and
  // rows follow each other. Returns false, with nothing changed, if `check` and an input is not finite. open_ended:
  // rows may go on after x, so they are asked whether to leave after their last timestep too.
  bool run(const Sequence& x, const Sequence& y, int steps, const int64_t* sizes, bool check, bool open_ended);

  const Plan& plan() const { return *plan_; }
  const Policy& policy() const { return *policy_; }
  int batch() const { return batch_; }
  const DirectionState& direction(int layer, int d) const { return states_[layer][d]; }
  const ExitCounts& exits() const { return exits_; }
  // The values last sent, as floats, [B, C]; loading them recomputes acc.
  void store_sent(int layer, int d, bool recurrent, float* out) const;
  void load_sent(int layer, int d, bool recurrent, const float* sent);
  bool delta(int layer, int d, bool recurrent) const;  // is this operand thresholded?
  // What is remembered for holding, gates [B, 4H] in torch order; null where the layer does not remember it.
  struct HeldArrays {
    float *x_used, *h_used;
    int64_t* run;
    float *gates, *queue;
    int64_t* queued;
  };
  void store_held(int layer, int d, const HeldArrays& out) const;
  void load_held(int layer, int d, const HeldArrays& in);
  const Left& left() const { return left_; }
  void load_left(const Left& left);

  std::atomic<bool> busy{false};  // guards against two threads advancing one state

 private:
  const PackedMatrix& matrix(int layer, int d, bool recurrent) const;
  int layers() const { return int(states_.size()); }
  ptrdiff_t width(int layer) const { return ptrdiff_t(plan_->output(layer)) * plan_->directions(); }

  // run/layers.cpp: layers and timesteps
  Sequence laid_out(Rows& rows, ptrdiff_t width, float* base);  // of work_.sizes; base null: in rows.data
  void set_sizes(int steps);                                    // from work_.sizes
  void run_layers(const Sequence& x, const Sequence& y, int steps);
  void run_direction(int layer, int d, const Sequence& in, const Sequence& out, int steps);
  void project(int layer, int d, const Sequence& in, int t0, int t1);
  void project_delta(int layer, int d, const Sequence& in, int t0, int t1);
  int send_input(int layer, int d, int b, const float* x, ptrdiff_t row, bool product, bool reverse);
  bool product_pays(int layer, int d, int rows) const;
  void multiply_input(int layer, int d, int rows);
  void put_operand(const PackedMatrix& m, const float* z, ptrdiff_t row);
  const float* limits(int layer, int d, bool recurrent) const;
  void pin();  // pruned units of the rows that run, to where they stand
  // `rows` [n]: which batch rows, ascending; null: the first n.
  void recur(int layer, int d, float* gates, const int* rows, int n, bool reverse);
  void advance(int layer, int d, const float* gates, ptrdiff_t stride, const int* from, const int* rows, int n,
               bool reverse);

  // run/hold.cpp: a direction in which rows do different things
  void begin_actions();
  void run_held(int layer, int d, const Sequence& in, const Sequence& out, int steps);
  void decide(int layer, int d, const Sequence& in, int t);
  bool still(const Hold& hold, const Direction& w, const DirectionState& s, int b, const float* x) const;
  void list_late(int layer, int d, const Sequence& in, int t, size_t& next);
  void list_own(int layer, int d, const Sequence& in, int t, int steps);
  void project_items(int layer, int d, size_t first, int n);
  void run_wave(int layer, int d, const Sequence& in, const Wave& wave, float* gates, bool guess);
  void finish_timestep(int layer, int d, const Sequence& out, int t);
  void keep_queue(int layer, int d, const Sequence& in, int t0, int t1);

  // run/exit_check.cpp: questions about the places in work_.asked
  ptrdiff_t states_stride() const { return padded(width(0) * layers()); }
  void gather_outputs(int layer);
  void gather_states(int first, int last);
  const float* answer(const Affine& map, Buffer<float>& out);

  // run/exit_time.cpp, run/exit_depth.cpp: rows that leave
  void run_in_time(const Sequence& x, const Sequence& y, int steps, const int64_t* sizes, bool open_ended);
  void ask_in_time(int n);
  void ask_block();
  void leave_steps(int layer, int steps);
  void leave_block(int layer);
  int leave_sequences(int layer, const Sequence& y, int steps);
  void decide_in_depth(int layer, const std::vector<Affine>& maps);
  void translate_outputs(int layer, const Sequence& y, int steps);
  int take_out(int layer, int steps);

  void grow_workspace();
  template <class F>
  void each_array(F&& f) {
    for (auto& layer : states_)
      for (DirectionState& s : layer) s.each_array(f);
  }

  // run/stack_state.cpp: where rows lie
  void reorder(const std::vector<int>& from);  // position i takes the row at from[i]
  void rejoin();                               // all rows back in their own places
  template <class F>
  void regroup(F&& stays);  // positions for which it is not true behind those for which it is

  std::shared_ptr<const Plan> plan_;
  std::shared_ptr<const Policy> policy_;
  int batch_ = 0;
  uint32_t tick_ = 0;
  bool loaded_ = false;  // h may not be where pruned units stand
  std::vector<std::vector<DirectionState>> states_;
  std::vector<int> order_;  // [B] which batch row lies at a position: rows that have left are moved behind the others
  int active_ = 0;          // the first so many have not left; they are in ascending order
  Left left_;
  ExitCounts exits_;
  Workspace work_;
};

template <class F>
void State::regroup(F&& stays) {
  std::vector<int>& from = work_.from;
  from.clear();
  for (int i = 0; i < active_; i++)
    if (stays(i)) from.push_back(i);
  const int stay = int(from.size());
  if (stay == active_) return;
  for (int i = 0; i < active_; i++)
    if (!stays(i)) from.push_back(i);
  for (int i = active_; i < batch_; i++) from.push_back(i);
  reorder(from);
  for (int& i : from) i = order_[i];
  order_.swap(from);
  active_ = stay;
}

}  // namespace alstm
