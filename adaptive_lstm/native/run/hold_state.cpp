#include "run/hold_state.h"

#include <algorithm>

#include "run/batch.h"
#include "run/confidence.h"

namespace alstm {

namespace {

// Calls visit(row of torch's order, packed row) for every gate of the units that are computed.
template <class Visit>
void each_gate(const Cell& cell, Visit visit) {
  for (int gate = 0; gate < 4; gate++)
    for (int k = 0; k < int(cell.live.size()); k++)
      visit(gate * cell.hidden + cell.live[k], k / kUnits * kRowBlock + gate * kUnits + k % kUnits);
}

}  // namespace

void HoldState::reset(const Cell& cell, const Hold* decider, int batch) {
  run.assign(batch, -1);
  gates.assign(size_t(batch) * cell.rows(), 0.0f);
  share = 0;
  if (!decider) return;
  x_used.assign(size_t(batch) * cell.input, 0.0f);
  h_used.assign(size_t(batch) * cell.output, 0.0f);
  x_size.assign(batch, 0.0);
  if (decider->action != kQueueInput) return;
  queue.assign(size_t(batch) * decider->cap * cell.input, 0.0f);
  queued.assign(batch, 0);
  since.assign(batch, 0);
}

void store_hold(const CellState& state, const Batch& batch, const HoldArrays<float, int64_t>& out) {
  const Cell& cell = *state.cell;
  const HoldState& hold = state.hold;
  for (int i = 0; i < batch.size(); i++) {
    const size_t b = size_t(batch.row_at(i)), gates = size_t(4) * cell.hidden;
    out.run[b] = hold.run[i];
    if (cell.pruned()) std::fill_n(out.gates + b * gates, gates, 0.0f);
    each_gate(cell, [&](int r, int p) { out.gates[b * gates + r] = hold.gates[size_t(i) * cell.rows() + p]; });
    if (!hold.x_used.empty()) {
      std::copy_n(hold.x_used.data() + size_t(i) * cell.input, cell.input, out.x_used + b * cell.input);
      std::copy_n(hold.h_used.data() + size_t(i) * cell.output, cell.output, out.h_used + b * cell.output);
    }
    if (hold.queued.empty()) continue;
    const size_t row = size_t(state.decider->cap) * cell.input, used = size_t(hold.queued[i]) * cell.input;
    std::copy_n(hold.queue.data() + size_t(i) * row, used, out.queue + b * row);
    std::fill(out.queue + b * row + used, out.queue + (b + 1) * row, 0.0f);
    out.queued[b] = hold.queued[i];
  }
}

void load_hold(CellState& state, const Batch& batch, const Kernels& kernels,
               const HoldArrays<const float, const int64_t>& in) {
  const Cell& cell = *state.cell;
  HoldState& hold = state.hold;
  for (int i = 0; i < batch.size(); i++) {
    const size_t b = size_t(batch.row_at(i)), gates = size_t(4) * cell.hidden;
    hold.run[i] = in.run[b];
    each_gate(cell, [&](int r, int p) { hold.gates[size_t(i) * cell.rows() + p] = in.gates[b * gates + r]; });
    if (!hold.x_used.empty()) {
      std::copy_n(in.x_used + b * cell.input, cell.input, hold.x_used.data() + size_t(i) * cell.input);
      std::copy_n(in.h_used + b * cell.output, cell.output, hold.h_used.data() + size_t(i) * cell.output);
      hold.x_size[i] = rms(kernels, in.x_used + b * cell.input, cell.input);
    }
    if (hold.queued.empty()) continue;
    const size_t row = size_t(state.decider->cap) * cell.input;
    std::copy_n(in.queue + b * row, row, hold.queue.data() + size_t(i) * row);
    hold.queued[i] = in.queued[b];
  }
}

}  // namespace alstm
