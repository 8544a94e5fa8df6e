// States at timesteps inside a chunk, so that a row can go back to one of them: what runs ahead of exit checks.
#pragma once

#include "run/batch.h"

namespace alstm {

class Snapshots {
 public:
  // Of the timesteps after which `first`, first + every, ... and less than `end` timesteps of the chunk are done.
  void start(const Batch& batch, int first, int every, int end);
  bool has(int done) const { return done >= first_ && done < end_ && (done - first_) % every_ == 0; }

  // Takes the first n rows of a cell; layers have one cell each.
  void take(const CellState& state, int layer, int n, int done);
  const float* h(int layer, int b, int done) const { return at(layer, b, done); }
  void restore(CellState& state, int layer, int b, int done) const;
  size_t bytes() const { return values_.capacity() * sizeof(float); }

 private:
  const float* at(int layer, int b, int done) const {
    const size_t number = size_t((done - first_) / every_) * size_t(layers_) + size_t(layer);
    return values_.data() + (number * size_t(rows_) + size_t(b)) * width_;
  }

  int first_ = 0, every_ = 1, end_ = 0, layers_ = 0, rows_ = 0;
  size_t width_ = 0;      // of the widest cell's h and c
  Buffer<float> values_;  // [snapshots, layers, rows, width]
};

}  // namespace alstm
