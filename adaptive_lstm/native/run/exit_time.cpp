#include "run/exit_time.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "run/confidence.h"

namespace alstm {

namespace {

size_t bucket(const std::vector<int64_t>& starts, int64_t time) {
  return size_t(std::upper_bound(starts.begin(), starts.end(), time) - starts.begin()) - 1;
}

}  // namespace

// How many rows of the batch, exited or not, have a timestep t.
struct TimeExits::Alive {
  const int64_t* sizes;  // null: all
  int batch;
  int64_t at(int t) const { return sizes ? sizes[t] : int64_t(batch); }
};

TimeExits::TimeExits(const TimeExit& exit, const Plan& plan, const Kernels& kernels, Batch& batch)
    : exit_(exit),
      kernels_(kernels),
      batch_(batch),
      input_(plan.input()),
      output_(plan.output(int(plan.layers().size()) - 1)),
      block_(plan) {
  grow_for(exit.translations, mapped_);
  grow_for(exit.logits, mapped_);
}

void TimeExits::reset() {
  const int batch = batch_.size();
  state_.time = 0;
  state_.exited.assign(batch, 0);
  state_.translation.assign(size_t(batch) * output_, 0.0f);
  state_.streak.assign(batch, 0);
  state_.past.assign(size_t(batch) * exit_.window * output_, std::numeric_limits<float>::quiet_NaN());
}

void TimeExits::clear_counters() { checks_ = exits_ = 0; }

void TimeExits::load(const ExitState& state) {
  state_ = state;
  batch_.regroup([this](int i) { return !state_.exited[batch_.row_at(i)]; });
}

void TimeExits::run(Layers& layers, const Rows<const float>& x, const Rows<float>& y, int steps, const int64_t* sizes,
                    bool open_ended) {
  const int every = exit_.every;
  const Alive alive{sizes, batch_.size()};
  for (int t = 0; t < steps;) {
    const int until = int(std::min<int64_t>(steps, int64_t(t) + every - state_.time % every));
    run_active(layers, x, y, t, until, alive);
    for (int u = t; u < until; u++)
      for (int i = batch_.active(); i < batch_.size(); i++)
        if (batch_.row_at(i) < alive.at(u)) copy_translation(i, u, y);
    state_.time += until - t;
    t = until;
    if (state_.time % every) continue;
    // Without an open end a row is not checked after its last timestep, where there is nothing left to skip.
    int64_t go_on = 0;
    if (open_ended)
      go_on = alive.at(until - 1);
    else if (until < steps)
      go_on = alive.at(until);
    const int before = batch_.active();
    check(std::min(batch_.active_below(alive.at(until - 1)), batch_.active_below(go_on)));
    for (int i = batch_.active(); i < before; i++) copy_translation(i, until - 1, y);
  }
}

// Timesteps [t0, t1) of the rows that have not exited.
void TimeExits::run_active(Layers& layers, const Rows<const float>& x, const Rows<float>& y, int t0, int t1,
                           const Alive& alive) {
  layout_.sizes.clear();
  for (int t = t0; t < t1; t++) {
    const int active = batch_.active_below(alive.at(t));
    if (!active) break;
    layout_.sizes.push_back(active);
  }
  const int steps = layout_.steps();
  if (!steps) return;
  layout_.number_rows();
  const Rows<float> in = in_.rows(layout_, input_), out = out_.rows(layout_, output_);
  for (int t = 0; t < steps; t++)
    for (int i = 0; i < layout_.sizes[t]; i++)
      std::memcpy(in.at(t, i), x.at(t0 + t, batch_.row_at(i)), input_ * sizeof(float));
  layers.run(in, out, layout_);
  for (int t = 0; t < steps; t++)
    for (int i = 0; i < layout_.sizes[t]; i++)
      std::memcpy(y.at(t0 + t, batch_.row_at(i)), out.at(t, i), output_ * sizeof(float));
}

void TimeExits::copy_translation(int position, int t, const Rows<float>& y) const {
  const int b = batch_.row_at(position);
  std::memcpy(y.at(t, b), state_.translation.data() + size_t(b) * output_, output_ * sizeof(float));
}

// Checks the first n rows, and takes those that exit out of the batch.
void TimeExits::check(int n) {
  checks_ += n;
  for (int first = 0; first < n; first += kCheckRows) {
    block_.rows.clear();
    for (int i = first; i < std::min(n, first + kCheckRows); i++) block_.rows.push_back({0, i});
    check_block();
  }
  batch_.regroup([this](int i) { return !state_.exited[batch_.row_at(i)]; });
}

// Checks the rows listed; those that exit get their translation.
void TimeExits::check_block() {
  const int top = int(batch_.layers().size()) - 1;
  const int64_t now = state_.time - 1;
  const float threshold = exit_.thresholds[bucket(exit_.threshold_starts, now)];
  const size_t map = bucket(exit_.map_starts, now);
  const Affine* translation = exit_.translations.empty() ? nullptr : &exit_.translations[map];
  const Affine* question = exit_.head ? &exit_.logits[map] : translation;
  block_.gather_states(batch_, translation ? 0 : top, top);
  const float* mapped = question ? block_.map(kernels_, *question, mapped_) : block_.states();
  const ptrdiff_t stride = question ? question->stride() : block_.stride();
  const int n = question ? question->rows() : output_;
  size_t exiting = 0;
  for (size_t i = 0; i < block_.rows.size(); i++, mapped += stride)
    if (should_exit(batch_.row_at(block_.rows[i].b), mapped, n, threshold)) block_.rows[exiting++] = block_.rows[i];
  block_.rows.resize(exiting);
  exits_ += int64_t(exiting);
  if (exiting) translate(translation);
}

// Whether batch row b exits, from the result of its check: logits [n], or a translation. Counts towards its patience.
bool TimeExits::should_exit(int b, const float* mapped, int n, float threshold) {
  float* past = state_.past.data() + size_t(b) * exit_.window * output_;
  bool exits;
  if (exit_.head)
    exits = confidence(*exit_.head, mapped, n) > threshold;
  else
    exits = float(rms_change(kernels_, mapped, past, output_)) < threshold;  // false for NaN, before the first
  if (exit_.window) {
    std::memmove(past, past + output_, size_t(exit_.window - 1) * output_ * sizeof(float));
    std::memcpy(past + size_t(exit_.window - 1) * output_, mapped, output_ * sizeof(float));
  }
  state_.streak[b] = exits ? state_.streak[b] + 1 : 0;
  return state_.streak[b] >= exit_.patience;
}

// The rows listed exit with this translation of their states; null: with the top layer's.
void TimeExits::translate(const Affine* translation) {
  const int top = int(batch_.layers().size()) - 1;
  batch_.top()[0].h_is_given();
  block_.gather_states(batch_, translation ? 0 : top, top);
  const float* final = translation ? block_.map(kernels_, *translation, mapped_) : block_.states();
  for (const TimeRow& at : block_.rows) {
    const int b = batch_.row_at(at.b);
    state_.exited[b] = 1;
    std::memcpy(state_.translation.data() + size_t(b) * output_, final, output_ * sizeof(float));
    std::memcpy(batch_.top()[0].h_row(at.b), final, output_ * sizeof(float));
    final += translation ? translation->stride() : block_.stride();
  }
}

}  // namespace alstm
