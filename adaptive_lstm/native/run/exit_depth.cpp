// Exits in depth: leave out the layers above, for single timesteps or for whole sequences.
#include <algorithm>
#include <cstring>

#include "run/stack_state.h"
#include "run/confidence.h"

namespace alstm {

// Asks about the states gathered of layers 0..layer; keeps of the places listed those that leave.
void State::decide_in_depth(int layer, const std::vector<Affine>& maps) {
  const DepthExit& exit = *policy_->depth;
  const Affine& question = exit.head ? exit.logits[layer] : maps[layer];
  const float* said = answer(question, work_.answer);
  const float* below = exit.head ? nullptr : answer(maps[layer - 1], work_.below);
  size_t leaving = 0;
  for (size_t i = 0; i < work_.asked.size(); i++, said += question.stride()) {
    const float before =
        exit.head ? 0.0f : float(moved(said, below + ptrdiff_t(i) * maps[layer - 1].stride(), question.rows()));
    const bool sure = exit.head ? confidence(*exit.head, said, question.rows()) > exit.thresholds[layer]
                                : before < exit.thresholds[layer];
    if (sure) work_.asked[leaving++] = work_.asked[i];
  }
  work_.asked.resize(leaving);
}

// Asks at every timestep whether its rows leave after this layer.
void State::leave_steps(int layer, int steps) {
  const size_t rows = size_t(work_.start[steps] * width(layer));
  if (work_.foreseen.size() < rows) work_.foreseen.resize(rows);
  work_.asked.clear();
  for (int t = 0; t < steps; t++)
    for (int b = 0; b < work_.sizes[t]; b++) {
      bool runs = true;
      for (int d = 0; d < plan_->directions(); d++) runs = runs && work_.actions[d][work_.start[t] + b] == kRun;
      if (!runs) continue;
      work_.asked.push_back({t, b});
      if (work_.asked.size() == kAsk) leave_block(layer);
    }
  leave_block(layer);
}

void State::leave_block(int layer) {
  const DepthExit& exit = *policy_->depth;
  exits_.asked_depth[layer] += int64_t(work_.asked.size());
  gather_outputs(layer);
  decide_in_depth(layer, exit.steps);
  if (work_.asked.empty()) return;
  exits_.left_depth[layer] += int64_t(work_.asked.size());
  gather_outputs(layer);
  const float* translation = answer(exit.steps[layer], work_.answer);
  for (const Place& place : work_.asked) {
    const ptrdiff_t row = work_.start[place.t] + place.b;
    std::memcpy(work_.foreseen.data() + row * width(layer), translation, width(layer) * sizeof(float));
    for (int d = 0; d < plan_->directions(); d++) work_.actions[d][row] = kExited;
    translation += exit.steps[layer].stride();
  }
  work_.asked.clear();
}

// Asks every sequence whether it leaves after this layer, and takes those that do out of the batch. Returns how many
// timesteps those have that stay.
int State::leave_sequences(int layer, const Sequence& y, int steps) {
  const DepthExit& exit = *policy_->depth;
  const int n = active_;
  work_.leaves.assign(batch_, 0);
  exits_.asked_depth[layer] += n;
  bool any = false;
  for (int first = 0; first < n; first += kAsk) {
    work_.asked.clear();
    for (int b = first; b < std::min(n, first + kAsk); b++) work_.asked.push_back({0, b});
    gather_states(0, layer);
    decide_in_depth(layer, exit.finals);
    if (work_.asked.empty()) continue;
    any = true;
    exits_.left += int64_t(work_.asked.size());
    gather_states(0, layer);
    const float* translation = answer(exit.finals[layer], work_.answer);
    for (const Place& place : work_.asked) {
      work_.leaves[place.b] = 1;
      for (int d = 0; d < plan_->directions(); d++) {
        DirectionState& s = states_[layers() - 1][d];
        const int output = plan_->output(layers() - 1);
        std::memcpy(s.h.data() + size_t(place.b) * s.h_stride, translation + ptrdiff_t(d) * output,
                    output * sizeof(float));
      }
      translation += exit.finals[layer].stride();
    }
  }
  if (!any) return steps;
  work_.asked.clear();
  for (int t = 0; t < steps; t++)
    for (int b = 0; b < work_.sizes[t]; b++) {
      if (!work_.leaves[b]) continue;
      work_.asked.push_back({t, b});
      if (work_.asked.size() == kAsk) translate_outputs(layer, y, steps);
    }
  translate_outputs(layer, y, steps);
  return take_out(layer, steps);
}

// Outputs of the places listed, whose rows leave after this layer.
void State::translate_outputs(int layer, const Sequence& y, int steps) {
  const Affine& map = policy_->depth->steps[layer];
  exits_.left_depth[layer] += int64_t(work_.asked.size());
  gather_outputs(layer);
  const float* translation = answer(map, work_.answer);
  for (const Place& place : work_.asked) {
    float* out = y.at(place.t, order_[place.b]);
    std::memcpy(out, translation, width(layer) * sizeof(float));
    // The final states are outputs too: of the last timestep forward, of the first backward.
    const bool last = place.t + 1 == steps || place.b >= work_.sizes[place.t + 1];
    for (int d = 0; d < plan_->directions(); d++) {
      if (d ? place.t > 0 : !last) continue;
      const DirectionState& s = states_[layers() - 1][d];
      const int output = plan_->output(layers() - 1);
      std::memcpy(out + ptrdiff_t(d) * output, s.h.data() + size_t(place.b) * s.h_stride, output * sizeof(float));
    }
    translation += map.stride();
  }
  work_.asked.clear();
}

// Takes the rows that leave out of the outputs so far and out of the batch. Returns how many timesteps the rest have.
int State::take_out(int layer, int steps) {
  ptrdiff_t to = 0;
  for (int t = 0; t < steps; t++) {
    int stay = 0;
    for (int b = 0; b < work_.sizes[t]; b++) {
      if (work_.leaves[b]) continue;
      const ptrdiff_t from = work_.start[t] + b, stride = padded(width(0));
      for (int l = 0; l <= layer; l++)
        std::memmove(work_.level[l].data.data() + to * stride, work_.level[l].data.data() + from * stride,
                     width(0) * sizeof(float));
      for (int d = 0; policy_->holds() && d < plan_->directions(); d++) work_.actions[d][to] = work_.actions[d][from];
      to++, stay++;
    }
    work_.sizes[t] = stay;
  }
  while (steps && !work_.sizes[steps - 1]) steps--;
  work_.sizes.resize(steps);
  set_sizes(steps);
  regroup([this](int i) { return !work_.leaves[i]; });
  return steps;
}

}  // namespace alstm
