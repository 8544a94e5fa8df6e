#include "run/exit_time.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>

#include "kernels/tuning.h"
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
  // How many rows are checked after `done` timesteps of a run: without an open end a row is not checked after its last
  // timestep, where there is nothing left to skip.
  int64_t after(int done, int steps, bool open_ended) const {
    if (open_ended) return at(done - 1);
    return done < steps ? at(done) : 0;
  }
};

// Timesteps [begin, end) of a run, with the checks at their end and inside them; the outputs of rows that exit go to y.
struct TimeExits::Chunk {
  int begin, end;
  int64_t time;  // timesteps before `begin`, of earlier runs too
  const Alive* alive;
  const Rows<float>* y;
};

TimeExits::TimeExits(const Policy& policy, const Plan& plan, const Kernels& kernels, Batch& batch)
    : exit_(*policy.time_exit),
      kernels_(kernels),
      batch_(batch),
      input_(plan.input()),
      output_(plan.output(int(plan.layers().size()) - 1)),
      runs_ahead_(!policy.holds() && !policy.depth_exit),
      block_(plan) {
  for (const auto& layer : batch.layers())
    for (const CellState& s : layer) runs_ahead_ &= !s.x.thresholded() && !s.recurrent.thresholded();
  grow_for(exit_.translations, mapped_);
  grow_for(exit_.logits, mapped_);
}

void TimeExits::reset() {
  const int batch = batch_.size();
  passes_over_ = false;
  state_.time.assign(batch, 0);
  state_.exited.assign(batch, 0);
  state_.translation.assign(size_t(batch) * output_, 0.0f);
  state_.streak.assign(batch, 0);
  state_.past.assign(size_t(batch) * exit_.window * output_, std::numeric_limits<float>::quiet_NaN());
}

void TimeExits::clear_counters() { checks_ = exits_ = 0; }

void TimeExits::add_counters(const TimeExits& other) {
  checks_ += other.checks_;
  exits_ += other.exits_;
}

void TimeExits::load(const ExitState& state) {
  state_ = state;
  passes_over_ = true;
  move_exited();
}

void TimeExits::move_exited() {
  if (passes_over_) batch_.regroup([this](int i) { return !state_.exited[batch_.row_at(i)]; });
  passes_over_ = false;
}

bool TimeExits::times_differ() const {
  int64_t shared = -1;
  for (size_t b = 0; b < state_.time.size(); b++) {
    if (state_.exited[b]) continue;
    if (shared >= 0 && state_.time[b] != shared) return true;
    shared = state_.time[b];
  }
  return false;
}

void TimeExits::run(Layers& layers, const Rows<const float>& x, const Rows<float>& y, int steps, const int64_t* sizes,
                    bool open_ended) {
  const Alive alive{sizes, batch_.size()};
  if (times_differ()) return run_apart(layers, x, y, steps, alive, open_ended);
  move_exited();
  for (int t = 0; t < steps;) {
    Chunk chunk = next_chunk(t, steps);
    chunk.alive = &alive;
    chunk.y = &y;
    run_active(layers, x, chunk);
    for (int u = t; u < chunk.end; u++)
      for (int i = batch_.active(); i < batch_.size(); i++)
        if (batch_.row_at(i) < alive.at(u)) copy_translation(batch_.row_at(i), u, y);
    t = chunk.end;
    check(chunk, steps, open_ended);
    for (int64_t& time : state_.time) time += chunk.end - chunk.begin;
  }
}

// Whether a check after timestep `time` can pass: no confidence exceeds 1. Without a head a check is always made, as
// later ones compare with it.
bool TimeExits::open(int64_t time) const {
  return !exit_.head || exit_.thresholds[bucket(exit_.threshold_starts, time)] < 1.0f;
}

size_t TimeExits::map_at(int64_t time) const { return bucket(exit_.map_starts, time); }

TimeExits::Chunk TimeExits::next_chunk(int t, int steps) {
  const int64_t every = exit_.every, now = batch_.size() ? state_.time[batch_.row_at(0)] : 0, last = now + steps - t;
  int64_t first = (now / every + 1) * every;
  while (first <= last && !open(first - 1)) first += every;
  int64_t checks = 1;
  if (runs_ahead_)
    checks = std::clamp<int64_t>(now / (every * kAheadPart), 1, kCheckRows / std::max(batch_.active(), 1) + 1);
  const int64_t end = std::min(last, first + (checks - 1) * every);
  snapshots_.start(batch_, int(std::min(first, end) - now), int(every), int(end - now));
  return {t, t + int(end - now), now, nullptr, nullptr};
}

// The same where a check is due at other timesteps in each row.
void TimeExits::run_apart(Layers& layers, const Rows<const float>& x, const Rows<float>& y, int steps,
                          const Alive& alive, bool open_ended) {
  put_in_order();
  layers.make_room_for_chosen();
  for (int t = 0; t < steps; t++) {
    const int n = int(alive.at(t));
    rows_.resize(size_t(n));
    std::iota(rows_.begin(), rows_.end(), 0);
    run_chosen(layers, rows_.data(), n, int(alive.after(t + 1, steps, open_ended)), x.from_time(t), y.from_time(t));
    for (size_t b = size_t(n); b < state_.time.size(); b++) state_.time[b]++;
  }
}

void TimeExits::put_in_order() {
  batch_.restore_constants();  // while rows that have exited are apart: they keep their translation
  batch_.rejoin();
  passes_over_ = true;
}

void TimeExits::run_chosen(Layers& layers, const int* rows, int n, int go_on, const Rows<const float>& x,
                           const Rows<float>& y) {
  int checked = 0;
  running_.clear();
  for (int i = 0; i < n; i++) {
    if (state_.exited[rows[i]]) continue;
    running_.push_back(rows[i]);
    if (i < go_on) checked++;
  }
  const int m = int(running_.size());
  layout_.sizes.assign(1, m);
  layout_.number_rows();
  layout_.rows = running_.data();
  const size_t width = size_t(output_) * sizeof(float);
  const bool all = m == n;
  const Rows<float> in = in_.rows(layout_, input_), out = out_.rows(layout_, output_);
  for (int i = 0, k = 0; i < n && !all; i++)
    if (!state_.exited[rows[i]]) std::memcpy(in.at(0, k++), x.at(0, i), input_ * sizeof(float));
  if (m) layers.run(all ? x : Rows<const float>(in), all ? y : out, layout_);
  layout_.rows = nullptr;
  for (int i = 0, k = 0; i < n && !all; i++)
    if (!state_.exited[rows[i]]) std::memcpy(y.at(0, i), out.at(0, k++), width);
  check_chosen(checked);
  for (int i = 0; i < n; i++) {
    state_.time[rows[i]]++;
    if (state_.exited[rows[i]]) std::memcpy(y.at(0, i), state_.translation.data() + size_t(rows[i]) * output_, width);
  }
}

// Checks the first n running rows after a timestep that they have just done, those that share a map together.
void TimeExits::check_chosen(int n) {
  due_.clear();
  for (int i = 0; i < n; i++)
    if ((state_.time[running_[i]] + 1) % exit_.every == 0) due_.push_back(running_[i]);
  if (due_.empty()) return;
  std::sort(due_.begin(), due_.end(), [this](int a, int b) { return state_.time[a] < state_.time[b]; });
  const Chunk chunk{0, 0, 0, nullptr, nullptr};  // writes no outputs
  snapshots_.start(batch_, 1, 1, 1);             // of no earlier timestep
  block_.rows.clear();
  for (int b : due_) {
    const TimeRow at{1, b};
    if (block_.full() || (!block_.rows.empty() && map_at(time_of(at)) != map_at(time_of(block_.rows[0]))))
      check_block(chunk);
    block_.rows.push_back(at);
  }
  check_block(chunk);
}

// The rows of a chunk that have not exited.
void TimeExits::run_active(Layers& layers, const Rows<const float>& x, const Chunk& chunk) {
  layout_.sizes.clear();
  for (int t = chunk.begin; t < chunk.end; t++) {
    const int active = batch_.active_below(chunk.alive->at(t));
    if (!active) break;
    layout_.sizes.push_back(active);
  }
  const int steps = layout_.steps();
  if (!steps) return;
  layout_.number_rows();
  if (batch_.active() == batch_.size())
    return layers.run(x.from_time(chunk.begin), chunk.y->from_time(chunk.begin), layout_, &snapshots_);
  const Rows<float> in = in_.rows(layout_, input_), out = out_.rows(layout_, output_);
  for (int t = 0; t < steps; t++)
    for (int i = 0; i < layout_.sizes[t]; i++)
      std::memcpy(in.at(t, i), x.at(chunk.begin + t, batch_.row_at(i)), input_ * sizeof(float));
  layers.run(in, out, layout_, &snapshots_);
  for (int t = 0; t < steps; t++)
    for (int i = 0; i < layout_.sizes[t]; i++)
      std::memcpy(chunk.y->at(chunk.begin + t, batch_.row_at(i)), out.at(t, i), output_ * sizeof(float));
}

void TimeExits::copy_translation(int b, int t, const Rows<float>& y) const {
  std::memcpy(y.at(t, b), state_.translation.data() + size_t(b) * output_, output_ * sizeof(float));
}

// Makes the checks of a chunk, and takes the rows that exit out of the batch.
void TimeExits::check(const Chunk& chunk, int steps, bool open_ended) {
  const int64_t every = exit_.every;
  block_.rows.clear();
  for (int64_t next = every - chunk.time % every; next <= chunk.end - chunk.begin; next += every) {
    const int done = int(next), end = chunk.begin + done;
    const int n = batch_.active_below(chunk.alive->after(end, steps, open_ended));
    const int64_t time = chunk.time + done - 1;
    const bool other_map = !block_.rows.empty() && map_at(time) != map_at(time_of(block_.rows[0]));
    if (other_map || !open(time)) check_block(chunk);
    for (int i = 0; i < n; i++) {
      if (!open(time)) {
        const size_t b = size_t(batch_.row_at(i));
        if (state_.exited[b]) continue;
        checks_++;
        state_.streak[b] = 0;
        continue;
      }
      if (block_.full()) check_block(chunk);
      block_.rows.push_back({done, i});
    }
  }
  check_block(chunk);
  passes_over_ = true;
  move_exited();
}

// Checks the rows listed, in the order of their timesteps; those that exit get their translation. All have one map.
void TimeExits::check_block(const Chunk& chunk) {
  if (block_.rows.empty()) return;
  const int top = int(batch_.layers().size()) - 1;
  const size_t map = map_at(time_of(block_.rows[0]));
  const Affine* translation = exit_.translations.empty() ? nullptr : &exit_.translations[map];
  const Affine* question = exit_.head ? &exit_.logits[map] : translation;
  block_.gather_states(batch_, snapshots_, translation ? 0 : top, top);
  const float* mapped = question ? block_.map(kernels_, *question, mapped_) : block_.states();
  const ptrdiff_t stride = question ? question->stride() : block_.stride();
  const int n = question ? question->rows() : output_;
  size_t exiting = 0;
  for (size_t i = 0; i < block_.rows.size(); i++, mapped += stride) {
    const TimeRow at = block_.rows[i];
    const int b = batch_.row_at(at.b);
    if (state_.exited[b]) continue;  // at an earlier check
    checks_++;
    const float threshold = exit_.thresholds[bucket(exit_.threshold_starts, time_of(at))];
    if (!should_exit(b, mapped, n, threshold)) continue;
    state_.exited[b] = 1;
    block_.rows[exiting++] = at;
  }
  block_.rows.resize(exiting);
  exits_ += int64_t(exiting);
  if (exiting) translate(translation, chunk);
  block_.rows.clear();
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
void TimeExits::translate(const Affine* translation, const Chunk& chunk) {
  const int top = int(batch_.layers().size()) - 1;
  batch_.top()[0].h_is_given();
  block_.gather_states(batch_, snapshots_, translation ? 0 : top, top);
  const float* final = translation ? block_.map(kernels_, *translation, mapped_) : block_.states();
  for (const TimeRow& at : block_.rows) {
    const int b = batch_.row_at(at.b);
    std::memcpy(state_.translation.data() + size_t(b) * output_, final, output_ * sizeof(float));
    for (int t = chunk.begin + at.t - 1; t < chunk.end && chunk.alive->at(t) > b; t++) copy_translation(b, t, *chunk.y);
    if (snapshots_.has(at.t)) go_back(at, chunk);
    std::memcpy(batch_.top()[0].h_row(at.b), final, output_ * sizeof(float));
    final += translation ? translation->stride() : block_.stride();
  }
}

// A row that exits returns to the timestep of its check: what it has run since then counts as not run.
void TimeExits::go_back(const TimeRow& at, const Chunk& chunk) {
  int64_t ahead = 0;
  for (int t = chunk.begin + at.t; t < chunk.end && chunk.alive->at(t) > batch_.row_at(at.b); t++) ahead++;
  for (size_t l = 0; l < batch_.layers().size(); l++) {
    CellState& s = batch_.layers()[l][0];
    snapshots_.restore(s, int(l), at.b, at.t);
    s.ran -= ahead;
    s.advanced -= ahead;
    s.x.sent -= ahead * s.cell->w_ih->useful();
    s.recurrent.sent -= ahead * s.cell->w_hh->useful();
  }
}

}  // namespace alstm
