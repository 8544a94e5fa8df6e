// Exit checks: the states that a check reads, gathered for a block of rows, and affine maps of them.
#pragma once

#include "run/batch.h"
#include "run/rows.h"
#include "run/snapshots.h"

namespace alstm {

constexpr int kCheckRows = 64;  // rows that are checked and translated at once

// A row at a timestep, by its position in the batch.
struct TimeRow {
  int t, b;
};

class CheckBlock {
 public:
  explicit CheckBlock(const Plan& plan);

  std::vector<TimeRow> rows;  // at most kCheckRows

  bool full() const { return rows.size() == kCheckRows; }
  // Gathers, of the listed rows, the outputs of layers 0 to `layer`, which lie in `outputs` (packed, one per layer).
  void gather_outputs(const std::vector<PackedRows>& outputs, const RowLayout& layout, int layer);
  // Gathers h of the layers `first` to `last`: as it is now, or when so many timesteps as `rows` says were done, where
  // there is a snapshot of that.
  void gather_states(const Batch& batch, int first, int last);
  void gather_states(const Batch& batch, const Snapshots& snapshots, int first, int last);
  // The map of what was gathered of each row into `out`, map.stride() apart.
  const float* map(const Kernels& kernels, const Affine& map, Buffer<float>& out) const;

  const float* states() const { return states_.data(); }
  ptrdiff_t stride() const { return stride_; }  // between rows of states()

 private:
  ptrdiff_t width_, stride_;
  Buffer<float> states_;  // [rows, L * D * P]
};

// Room for the results of the widest of these maps.
void grow_for(const std::vector<Affine>& maps, Buffer<float>& out);

}  // namespace alstm
