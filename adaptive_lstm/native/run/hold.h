// Holding: rows of a cell that do different things at a timestep (see Action).
#pragma once

#include "run/cell_run.h"

namespace alstm {

// What every packed row does in the layer that runs, per direction.
struct Actions {
  int directions = 1;
  std::vector<uint8_t> of[2];

  void start(int directions, size_t rows);  // before the first layer every row runs
  bool runs(ptrdiff_t row) const;           // in all directions
  void set(ptrdiff_t row, Action action);
  void move(ptrdiff_t to, ptrdiff_t from);
};

// Rows of a cell that run together: entries [first, first + count) of a work list, each of another batch row. `late`:
// their inputs waited in a queue, and they are rows [late, late + count) of the outputs replayed late; -1: these are
// the timestep's own inputs.
struct RowGroup {
  int t;
  size_t first;
  int count;
  ptrdiff_t late;
};

// The buffers of Holding, which the cells of a run use one after the other.
struct HoldScratch {
  Actions actions;
  // The work list of a chunk.
  std::vector<const float*> x;
  std::vector<int> row;
  std::vector<RowGroup> groups;
  std::vector<int> holding_gates;  // batch rows that reuse their gates at a timestep
  // Groups of the whole run that are replayed late, their batch rows, and their outputs of two layers in turn.
  std::vector<RowGroup> late;
  std::vector<int> late_row;
  Buffer<float> late_out[2];
  // Of the cell that runs: where the pre-activations lie with which a batch row has just run, until they are stored in
  // HoldState::gates (null: they are); what is kept of those that it holds, and whether it is. [B], [B, R], [B]
  std::vector<const float*> fresh;
  Buffer<float> kept;
  std::vector<uint8_t> has_kept;

  size_t bytes() const;  // of what grows with the length of a run
  void reserve(const Policy& policy, int batch);
  void start(const Policy& policy, const Plan& plan, const RowLayout& layout, int batch);
  void start_cell(const Cell& cell, bool holds_gates, int batch);
};

// Where a cell stands in its run.
struct HeldCell {
  const Policy& policy;
  const RowLayout& layout;
  int batch;  // rows that scratch has room for
  int layer, direction;
  const float* translations;  // top layer: [packed rows] outputs of rows that have exited in depth; else null
  ptrdiff_t translation_stride;
};

// Runs one cell over all timesteps of a run.
//
// A layer that does not decide, or decides by its input alone, knows what timesteps do before it runs them: the input
// side is one matrix product over the rows that run, of as many timesteps as it takes to fill a chunk with such rows.
// Where the decision needs h, either a chunk is projected in the expectation that its rows run, or each timestep on its
// own.
class Holding {
 public:
  Holding(CellRun& run, HoldScratch& scratch, const HeldCell& held, const Rows<const float>& in,
          const Rows<float>& out);
  void run();

 private:
  int start_chunk(int done);  // returns how many timesteps it has
  void run_groups();
  void decide(int t);
  bool unchanged(const Hold& hold, int b, const float* x) const;
  void list_late(int t);
  void list_late_from_below(int t);
  void list_own(int t);
  void run_group(const RowGroup& group, float* gates);
  int keep_running(const RowGroup& group, float* gates);
  void finish_timestep(int t);
  void store_gates(int b);
  void keep_queue(int t0, int t1);

  uint8_t* actions_at(int t) { return actions_.data() + layout_.start[t]; }

  CellRun& run_;
  HoldScratch& scratch_;
  const HeldCell held_;
  const Rows<const float> in_;
  const Rows<float> out_;
  const RowLayout& layout_;
  CellState& state_;
  HoldState& hold_;
  std::vector<uint8_t>& actions_;
  const bool queues_;
  bool guess_ = false;    // whether rows of the chunk are projected before it is known that they run
  size_t next_late_ = 0;  // first late group of the layer below that no timestep has used yet
};

}  // namespace alstm
