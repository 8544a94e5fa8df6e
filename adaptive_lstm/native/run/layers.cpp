#include "run/layers.h"

#include <algorithm>
#include <cstring>

namespace alstm {

Layers::Layers(const Plan& plan, const Policy& policy, const Kernels& kernels, Batch& batch)
    : plan_(plan),
      policy_(policy),
      kernels_(kernels),
      batch_(batch),
      scratch_(1),
      outputs_(policy.depth_exit ? plan.layers().size() : 2) {
  if (policy.depth_exit) depth_exits_.emplace(*policy.depth_exit, plan, kernels, batch);
}

void Layers::reset() {
  since_reset_ = 0;
  const bool rows_apart = policy_.holds() || policy_.exits_steps();
  scratch_[0].grow(batch_, rows_apart);
  if (rows_apart) hold_.reserve(policy_, batch_.size());
}

void Layers::make_room_for_chosen() { scratch_[0].grow(batch_, true); }

size_t Layers::bytes() const {
  size_t all = hold_.bytes() + (depth_exits_ ? depth_exits_->bytes() : 0);
  for (const Scratch& scratch : scratch_) all += scratch.bytes();
  for (const PackedRows& output : outputs_) all += output.bytes();
  return all;
}

PackedRows& Layers::output(int layer) { return outputs_[policy_.depth_exit ? layer : layer % 2]; }

void Layers::run(const Rows<const float>& x, const Rows<float>& y, RowLayout& layout, Snapshots* snapshots) {
  snapshots_ = snapshots;
  batch_.restore_constants();
  bool held = policy_.holds();  // whether rows may do different things
  if (held || policy_.exits_steps()) hold_.start(policy_, plan_, layout, batch_.size());
  const LayersBelow below{layout, outputs_, hold_.actions};
  const int top = int(plan_.layers().size()) - 1;
  Rows<const float> in = x;
  for (int l = 0; l < top && layout.steps(); l++) {
    const Rows<float> out = output(l).rows(layout, padded(width(l)));
    run_layer(l, in, out, layout, held);
    in = out;
    if (!depth_exits_ || !depth_exits_->checks_after(l)) continue;
    if (policy_.exits_steps()) {
      depth_exits_->exit_steps(l, below);
      held = true;
    } else {
      depth_exits_->exit_sequences(l, below, y);
      in = output(l).rows(layout, padded(width(l)));
    }
  }
  if (layout.steps() && batch_.active() < batch_.size() && policy_.exits_sequences()) {
    const Rows<float> out = output(top).rows(layout, padded(width(top)));
    run_layer(top, in, out, layout, held);
    for (int t = 0; t < layout.steps(); t++)
      for (int b = 0; b < layout.sizes[t]; b++)
        std::memcpy(y.at(t, batch_.row_at(b)), out.at(t, b), width(top) * sizeof(float));
  } else if (layout.steps()) {
    run_layer(top, in, y, layout, held);
  }
  if (policy_.exits_sequences()) batch_.rejoin();
}

void Layers::ahead() {
  if (!batch_.constants_restored()) return;
  for (int l = 0; l < int(plan_.layers().size()) && recurs_next(l); l++) {
    CellState& state = batch_.layers()[l][0];
    CellRun{*state.cell, state, kernels_, scratch_[0], false, tick(state), true}.recur_ahead(batch_.active(),
                                                                                             tick(state) & 1);
  }
}

// Whether h of a layer stays as it is until the recurrent side is computed with it. An input may let it advance without
// (held gates), or replace it (an exit in depth). If it lets h stay, what was computed serves a later timestep.
bool Layers::recurs_next(int layer) const {
  for (int l = 0; l <= layer; l++) {
    const Hold* hold = policy_.decider(l);
    if (hold && hold->action == kHoldGates) return false;
    if (l < layer && depth_exits_ && depth_exits_->checks_after(l)) return false;
  }
  return true;
}

void Layers::run_layer(int layer, const Rows<const float>& in, const Rows<float>& out, const RowLayout& layout,
                       bool held) {
  const bool top = layer + 1 == int(plan_.layers().size());
  const float* translations = top && policy_.exits_steps() ? depth_exits_->translations() : nullptr;
  for (int d = 0; d < plan_.directions(); d++) {
    CellState& state = batch_.layers()[layer][d];
    const ptrdiff_t column = ptrdiff_t(d) * state.cell->output;
    const Rows<float> own = out.from_column(column);
    CellRun cell{*state.cell, state, kernels_, scratch_[0], d > 0, tick(state), layout.steps() == 1};
    if (held) {
      const HeldCell where{policy_,     layout, batch_.size(), layer, d, translations ? translations + column : nullptr,
                           width(layer)};
      Holding(cell, hold_, where, in, own).run();
    } else {
      run_cell(cell, layer, in, own, layout);
    }
  }
}

void Layers::run_cell(CellRun& cell, int layer, const Rows<const float>& in, const Rows<float>& out,
                      const RowLayout& layout) {
  const int steps = layout.steps(), chunk = chunk_steps(batch_.size());
  for (int done = 0; done < steps; done += chunk) {
    const int some = std::min(chunk, steps - done);
    const int t0 = cell.backward ? steps - done - some : done;
    run_chunk(cell, layer, in, out, layout, t0, t0 + some);
  }
}

void Layers::run_chunk(CellRun& cell, int layer, const Rows<const float>& in, const Rows<float>& out,
                       const RowLayout& layout, int t0, int t1) {
  const ptrdiff_t stride = cell.gate_stride();
  const size_t bytes = cell.cell.output * sizeof(float);
  float* gates = cell.scratch.gates.data();
  cell.project(in, layout, t0, t1, gates);
  for (int i = 0; i < t1 - t0; i++) {
    const int t = cell.backward ? t1 - 1 - i : t0 + i;
    float* own = gates + (layout.start[t] - layout.start[t0]) * stride;
    cell.recur(own, layout.rows, layout.sizes[t], (t + cell.tick) & 1);
    for (int b = 0; b < layout.sizes[t]; b++) std::memcpy(out.at(t, b), cell.state.h_row(layout.batch_row(b)), bytes);
    if (snapshots_ && snapshots_->has(t + 1)) snapshots_->take(cell.state, layer, layout.sizes[t], t + 1);
  }
}

}  // namespace alstm
