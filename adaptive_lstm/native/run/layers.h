// Every layer over some timesteps.
//
// Layer by layer, and inside a layer in chunks of timesteps: the input side of a chunk is one matrix product (its
// timesteps are known), the recurrent side goes step by step. Nothing below allocates once the buffers have grown.
#pragma once

#include <optional>

#include "run/exit_depth.h"
#include "run/snapshots.h"

namespace alstm {

class Layers {
 public:
  Layers(const Plan& plan, const Policy& policy, const Kernels& kernels, Batch& batch);
  void reset();                 // room for the batch as it is now
  void make_room_for_chosen();  // for runs of rows that do not follow each other (RowLayout::rows)

  // From x to y, rows of input() and D * output(last) floats. Exits of whole sequences change the layout. `snapshots`,
  // where given, takes the states that it wants; nothing is held then.
  void run(const Rows<const float>& x, const Rows<float>& y, RowLayout& layout, Snapshots* snapshots = nullptr);
  // The same by several threads, threads() at most, with the same bits. Returns how many.
  int run_together(const Rows<const float>& x, const Rows<float>& y, RowLayout& layout, int threads);
  // How many threads a run of so many batch rows and timesteps has work for, `most` at most: the directions of a layer,
  // layers that follow each other chunk by chunk, or the units of large layers. One where rows may do different things.
  int threads(int rows, int steps, int most) const;
  // Computes what is certain of the recurrent side of the next timestep, whose results stay the same to the bit.
  void ahead();
  size_t bytes() const;  // of outputs between layers and of scratch
  void count_steps(int steps) { tick_ += uint32_t(steps), since_reset_ += uint32_t(steps); }  // of a whole run

  std::optional<DepthExits>& depth_exits() { return depth_exits_; }
  const std::optional<DepthExits>& depth_exits() const { return depth_exits_; }

 private:
  ptrdiff_t width(int layer) const { return ptrdiff_t(plan_.output(layer)) * plan_.directions(); }
  PackedRows& output(int layer);
  bool recurs_next(int layer) const;
  uint32_t tick(const CellState& state) const {  // CellRun::tick
    return state.x.in_order() || state.recurrent.in_order() ? since_reset_ : tick_;
  }
  void run_layer(int layer, const Rows<const float>& in, const Rows<float>& out, const RowLayout& layout, bool held);
  void run_cell(CellRun& cell, int layer, const Rows<const float>& in, const Rows<float>& out, const RowLayout& layout);
  void run_chunk(CellRun& cell, int layer, const Rows<const float>& in, const Rows<float>& out, const RowLayout& layout,
                 int t0, int t1);
  int wave_steps(int rows, int steps) const;
  int wave_threads(int rows, int steps, int most) const;
  int part_threads(int most) const;
  void run_wave(const Rows<const float>& x, const Rows<float>& y, const RowLayout& layout, int threads);
  void run_parts(const Rows<const float>& x, const Rows<float>& y, const RowLayout& layout, int threads);
  bool exceeds();

  const Plan& plan_;
  const Policy& policy_;
  const Kernels& kernels_;
  Batch& batch_;
  std::vector<Scratch> scratch_;  // of this thread, and of those that helped it
  HoldScratch hold_;
  std::vector<PackedRows> outputs_;  // of all layers for an exit in depth, else of two layers in turn
  std::optional<DepthExits> depth_exits_;
  Snapshots* snapshots_ = nullptr;  // of the run that is under way
  // Timesteps of all runs, and of those since the last reset(). Where the direction of a timestep decides about bits,
  // it follows the latter: a sequence then gives the same whatever ran before.
  uint32_t tick_ = 0, since_reset_ = 0;
};

}  // namespace alstm
