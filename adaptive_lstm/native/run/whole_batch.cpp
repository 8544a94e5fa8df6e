#include "run/whole_batch.h"

#include <algorithm>

#include "kernels/tuning.h"

namespace alstm {

int block_rows(const Plan& plan, int steps) {
  ptrdiff_t widest = plan.input();
  for (size_t l = 0; l < plan.layers().size(); l++)
    widest = std::max(widest, padded(ptrdiff_t(plan.output(int(l))) * plan.directions()));
  const ptrdiff_t row_bytes = std::max<ptrdiff_t>(1, steps) * widest * ptrdiff_t(sizeof(float));
  return int(std::clamp<ptrdiff_t>(kBlockBytes / row_bytes, kLeastBlockRows, kMostBlockRows));
}

bool run_whole(StackState& state, const WholeBatch& batch, int block, bool check) {
  state.clear_counters();
  RunOptions options;
  options.check = check;
  for (int first = 0; first < batch.rows || first == 0; first += block) {
    const int n = std::min(block, batch.rows - first);
    state.restart(n);
    if (batch.h_0.base && !state.load(batch.h_0.from_row(first), batch.c_0.from_row(first), check)) return false;
    if (!state.run_rows(batch.x, batch.y, batch.steps, batch.sizes, first, options)) return false;
    state.store(batch.h_n.from_row(first), batch.c_n.from_row(first));
  }
  return true;
}

}  // namespace alstm
