#include "run/exit_depth.h"

#include <algorithm>
#include <cstring>

#include "run/confidence.h"

namespace alstm {

DepthExits::DepthExits(const DepthExit& exit, const Plan& plan, const Kernels& kernels, Batch& batch)
    : exit_(exit),
      kernels_(kernels),
      batch_(batch),
      width_(ptrdiff_t(plan.output(0)) * plan.directions()),
      block_(plan),
      checks_(plan.layers().size()),
      exits_(plan.layers().size()) {
  for (const std::vector<Affine>* maps : {&exit.steps, &exit.finals, &exit.logits}) {
    grow_for(*maps, mapped_);
    grow_for(*maps, mapped_below_);
  }
}

void DepthExits::clear_counters() {
  std::fill(checks_.begin(), checks_.end(), 0);
  std::fill(exits_.begin(), exits_.end(), 0);
  sequences_ = 0;
}

void DepthExits::add_counters(const DepthExits& other) {
  for (size_t l = 0; l < checks_.size(); l++) {
    checks_[l] += other.checks_[l];
    exits_[l] += other.exits_[l];
  }
  sequences_ += other.sequences_;
}

// Keeps, of the rows listed, those that exit after this layer. The states must have been gathered.
void DepthExits::keep_exiting(int layer, const std::vector<Affine>& maps) {
  const Affine& check = exit_.head ? exit_.logits[layer] : maps[layer];
  const float threshold = exit_.thresholds[layer];
  const float* mapped = block_.map(kernels_, check, mapped_);
  const float* below = exit_.head ? nullptr : block_.map(kernels_, maps[layer - 1], mapped_below_);
  size_t exiting = 0;
  for (size_t i = 0; i < block_.rows.size(); i++, mapped += check.stride()) {
    bool exits;
    if (exit_.head) {
      exits = confidence(*exit_.head, mapped, check.rows()) > threshold;
    } else {
      const float* before = below + ptrdiff_t(i) * maps[layer - 1].stride();
      exits = float(rms_change(kernels_, mapped, before, check.rows())) < threshold;
    }
    if (exits) block_.rows[exiting++] = block_.rows[i];
  }
  block_.rows.resize(exiting);
}

void DepthExits::exit_steps(int layer, const LayersBelow& below) {
  const RowLayout& layout = below.layout;
  grow(translations_, size_t(layout.start.back() * width_));
  block_.rows.clear();
  for (int t = 0; t < layout.steps(); t++)
    for (int b = 0; b < layout.sizes[t]; b++) {
      if (!below.actions.runs(layout.row(t, b))) continue;
      block_.rows.push_back({t, b});
      if (block_.full()) exit_block_of_steps(layer, below);
    }
  exit_block_of_steps(layer, below);
}

void DepthExits::exit_block_of_steps(int layer, const LayersBelow& below) {
  checks_[layer] += int64_t(block_.rows.size());
  block_.gather_outputs(below.outputs, below.layout, layer);
  keep_exiting(layer, exit_.steps);
  if (block_.rows.empty()) return;
  exits_[layer] += int64_t(block_.rows.size());
  block_.gather_outputs(below.outputs, below.layout, layer);
  const float* translation = block_.map(kernels_, exit_.steps[layer], mapped_);
  for (const TimeRow& at : block_.rows) {
    const ptrdiff_t row = below.layout.row(at.t, at.b);
    std::memcpy(translations_.data() + row * width_, translation, width_ * sizeof(float));
    below.actions.set(row, kExited);
    translation += exit_.steps[layer].stride();
  }
  block_.rows.clear();
}

void DepthExits::exit_sequences(int layer, const LayersBelow& below, const Rows<float>& y) {
  const int n = batch_.active();
  exiting_.assign(batch_.size(), 0);
  checks_[layer] += n;
  bool any = false;
  for (int first = 0; first < n; first += kCheckRows) {
    block_.rows.clear();
    for (int b = first; b < std::min(n, first + kCheckRows); b++) block_.rows.push_back({0, b});
    any |= exit_block_of_sequences(layer);
  }
  if (!any) return;
  translate_outputs(layer, below, y);
  take_out(layer, below);
}

// Final states of the sequences listed that exit. Returns whether any does.
bool DepthExits::exit_block_of_sequences(int layer) {
  block_.gather_states(batch_, 0, layer);
  keep_exiting(layer, exit_.finals);
  if (block_.rows.empty()) return false;
  sequences_ += int64_t(block_.rows.size());
  block_.gather_states(batch_, 0, layer);
  const float* translation = block_.map(kernels_, exit_.finals[layer], mapped_);
  for (const TimeRow& at : block_.rows) {
    exiting_[at.b] = 1;
    const float* part = translation;
    for (CellState& s : batch_.top()) {
      std::memcpy(s.h_row(at.b), part, s.cell->output * sizeof(float));
      s.h_is_given();
      part += s.cell->output;
    }
    translation += exit_.finals[layer].stride();
  }
  return true;
}

// Outputs of all timesteps of the sequences that exit.
void DepthExits::translate_outputs(int layer, const LayersBelow& below, const Rows<float>& y) {
  block_.rows.clear();
  for (int t = 0; t < below.layout.steps(); t++)
    for (int b = 0; b < below.layout.sizes[t]; b++) {
      if (!exiting_[b]) continue;
      block_.rows.push_back({t, b});
      if (block_.full()) translate_block(layer, below, y);
    }
  translate_block(layer, below, y);
}

void DepthExits::translate_block(int layer, const LayersBelow& below, const Rows<float>& y) {
  const RowLayout& layout = below.layout;
  exits_[layer] += int64_t(block_.rows.size());
  block_.gather_outputs(below.outputs, layout, layer);
  const float* translation = block_.map(kernels_, exit_.steps[layer], mapped_);
  for (const TimeRow& at : block_.rows) {
    float* out = y.at(at.t, batch_.row_at(at.b));
    std::memcpy(out, translation, width_ * sizeof(float));
    // The final states are outputs too: of the last timestep forward, of the first backward.
    const bool last = at.t + 1 == layout.steps() || at.b >= layout.sizes[at.t + 1];
    for (size_t d = 0; d < batch_.top().size(); d++) {
      const CellState& s = batch_.top()[d];
      const bool is_final = d ? at.t == 0 : last;
      if (is_final) std::memcpy(out + ptrdiff_t(d) * s.cell->output, s.h_row(at.b), s.cell->output * sizeof(float));
    }
    translation += exit_.steps[layer].stride();
  }
  block_.rows.clear();
}

// Takes the sequences that exit out of the outputs so far and out of the batch. The layout keeps the timesteps of the
// others.
void DepthExits::take_out(int layer, const LayersBelow& below) {
  RowLayout& layout = below.layout;
  const ptrdiff_t stride = padded(width_);
  ptrdiff_t to = 0;
  for (int t = 0; t < layout.steps(); t++) {
    int stay = 0;
    for (int b = 0; b < layout.sizes[t]; b++) {
      if (exiting_[b]) continue;
      const ptrdiff_t from = layout.row(t, b);
      for (int l = 0; l <= layer; l++) {
        float* outputs = below.outputs[l].data();
        std::memmove(outputs + to * stride, outputs + from * stride, width_ * sizeof(float));
      }
      if (!below.actions.of[0].empty()) below.actions.move(to, from);
      to++;
      stay++;
    }
    layout.sizes[t] = stay;
  }
  while (!layout.sizes.empty() && !layout.sizes.back()) layout.sizes.pop_back();
  layout.number_rows();
  batch_.regroup([this](int i) { return !exiting_[i]; });
}

}  // namespace alstm
