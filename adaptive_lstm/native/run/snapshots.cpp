#include "run/snapshots.h"

#include <algorithm>
#include <cstring>

#include "run/rows.h"

namespace alstm {

void Snapshots::start(const Batch& batch, int first, int every, int end) {
  first_ = first;
  every_ = every;
  end_ = end;
  layers_ = int(batch.layers().size());
  rows_ = batch.active();
  width_ = 0;
  for (const auto& layer : batch.layers()) width_ = std::max(width_, size_t(layer[0].cell->output + layer[0].units));
  const int taken = end > first ? (end - 1 - first) / every + 1 : 0;
  grow(values_, size_t(taken) * size_t(layers_) * size_t(rows_) * width_);
}

void Snapshots::take(const CellState& state, int layer, int n, int done) {
  const int output = state.cell->output;
  for (int b = 0; b < n; b++) {
    float* to = const_cast<float*>(at(layer, b, done));
    std::memcpy(to, state.h_row(b), size_t(output) * sizeof(float));
    std::memcpy(to + output, state.c_row(b), size_t(state.units) * sizeof(float));
  }
}

void Snapshots::restore(CellState& state, int layer, int b, int done) const {
  const float* from = at(layer, b, done);
  const int output = state.cell->output;
  std::memcpy(state.h_row(b), from, size_t(output) * sizeof(float));
  std::memcpy(state.c_row(b), from + output, size_t(state.units) * sizeof(float));
}

}  // namespace alstm
