// A cell with large matrices, by several threads: each has some of its units, and they wait for each other twice a
// timestep, once all have read h and once it is written.
#pragma once

#include "run/cell_run.h"
#include "run/rounds.h"

namespace alstm {

// To how many threads the units of a cell can be shared out, with the bits of one: 1 where its matrices are small, or
// not stored whole.
int most_parts(const CellState& state);

class CellParts {
 public:
  // As many parts as threads. scratch: of each. in, out: of the cell's direction, which is forward.
  CellParts(CellState& state, const Kernels& kernels, std::vector<Scratch>& scratch, int threads,
            const Rows<const float>& in, const Rows<float>& out, const RowLayout& layout, uint32_t tick);
  void run(int who);  // in each thread
  void count();       // what was done, in one

 private:
  struct Part {
    Matrix w_ih, w_hh;
    int first, blocks;  // row blocks
  };
  void project(const Part& part, Scratch& scratch, int t0, int t1);
  void recur(const Part& part, Scratch& scratch, int t);
  void advance(const Part& part, int t);
  float* gates(int t) {
    return scratch_[0].gates.data() + (layout_.start[t] - layout_.start[t / chunk_ * chunk_]) * stride_;
  }

  CellState& state_;
  const Cell& cell_;
  const Kernels& kernels_;
  std::vector<Scratch>& scratch_;
  const Rows<const float> in_;
  const Rows<float> out_;
  const RowLayout& layout_;
  const uint32_t tick_;
  const int chunk_;
  const ptrdiff_t stride_;
  std::vector<Part> parts_;
  Rounds rounds_;
};

}  // namespace alstm
