// Holding: a direction in which rows do different things at a timestep (see Action).
//
// A layer that does not decide, or decides by its input alone, knows what all timesteps of a chunk do before it runs
// them: the input side is one matrix product over the rows that run. Where the decision needs h, a chunk is either
// projected on the chance that its rows run, or every timestep on its own.
#include <algorithm>
#include <cstring>

#include "pack/tuning.h"
#include "run/delta.h"
#include "cpu/dispatch.h"
#include "run/confidence.h"

namespace alstm {

// Before the first layer every row runs.
void State::begin_actions() {
  const size_t rows = size_t(work_.start.back());
  for (int d = 0; d < plan_->directions(); d++) work_.actions[d].assign(rows, kRun);
  work_.late.clear(), work_.late_row.clear();
  if (const size_t cap = size_t(policy_->queue())) {
    work_.late.reserve(rows + size_t(batch_) * cap);
    work_.late_row.reserve(rows + size_t(batch_) * cap);
    for (Buffer<float>& out : work_.late_out) {
      const size_t n = (rows + size_t(batch_) * cap) * size_t(padded(plan_->output(0)));
      if (out.size() < n) out.resize(n);
    }
  }
}

bool State::still(const Hold& hold, const Direction& w, const DirectionState& s, int b, const float* x) const {
  const float* x_used = s.held.x_used.data() + size_t(b) * w.input;
  if (hold.x) {
    const double change = moved(x, x_used, w.input);
    if (!(change == 0 && *hold.x > 0) && !(change < *hold.x * s.held.x_size[b])) return false;
  }
  const float* h = s.h.data() + size_t(b) * s.h_stride;
  return !hold.h || moved(h, s.held.h_used.data() + size_t(b) * w.output, w.output) < *hold.h;
}

// Turns the actions of the layer below at timestep t into those of this layer.
void State::decide(int layer, int d, const Sequence& in, int t) {
  if (!policy_->holds()) return;
  const Hold* hold = policy_->decider(layer);
  const Direction& w = plan_->layers()[layer][d];
  DirectionState& s = states_[layer][d];
  uint8_t* actions = work_.actions[d].data() + work_.start[t];
  for (int b = 0; b < work_.sizes[t]; b++) {
    uint8_t& action = actions[b];
    int64_t& run = s.held.run[b];
    // A row that never ran has no gates to keep: the layers above an exit in depth may be in that place.
    if (action == kHoldGates && run < 0) action = kHoldState;
    if (hold && action == kRun) {
      const float* x = in.at(t, b);
      const bool held = run >= 0 && run < hold->cap && still(*hold, w, s, b, x);
      s.held.share += ((held ? 1.0 : 0.0) - s.held.share) / 32;
      if (held) {
        action = hold->action;
      } else {
        std::memcpy(s.held.x_used.data() + size_t(b) * w.input, x, w.input * sizeof(float));
        if (hold->x) s.held.x_size[b] = rms(x, w.input);
      }
    }
    run = action == kRun ? 0 : run < 0 ? -1 : run + 1;
  }
}

// Lists what has waited of the rows that run at timestep t, oldest first; `next`: the first entry of work_.late that
// an earlier timestep has not used.
void State::list_late(int layer, int d, const Sequence& in, int t, size_t& next) {
  const int input = plan_->layers()[layer][d].input;
  const Hold* hold = policy_->decider(layer);
  auto add = [this](const float* x, int row) {
    work_.item_x.push_back(x);
    work_.item_row.push_back(row);
  };
  if (!hold) {  // the layer below has worked these off
    const ptrdiff_t stride = padded(input);
    const float* outputs = work_.late_out[(layer - 1) & 1].data();
    for (; next < work_.late.size() && work_.late[next].t == t; next++) {
      const Wave& below = work_.late[next];
      work_.waves.push_back({t, work_.item_x.size(), below.count, below.late});
      for (int i = 0; i < below.count; i++)
        add(outputs + (below.late + i) * stride, work_.late_row[size_t(below.late) + i]);
    }
    return;
  }
  Held& held = states_[layer][d].held;
  const uint8_t* actions = work_.actions[d].data() + work_.start[t];
  const int64_t cap = hold->cap;
  for (int64_t j = 0, some = 1; some; j++) {
    const Wave wave{t, work_.item_x.size(), 0, ptrdiff_t(work_.late_row.size())};
    some = 0;
    for (int b = 0; b < work_.sizes[t]; b++) {
      if (actions[b] != kRun || j >= held.queued[b] + held.since[b]) continue;
      const int64_t back = held.queued[b] + held.since[b] - j;  // the timesteps just before t have waited last
      add(j < held.queued[b] ? held.queue.data() + (b * cap + j) * input : in.at(t - back, b), b);
      work_.late_row.push_back(b);
      some++;
    }
    if (!some) break;
    work_.waves.push_back(wave);
    work_.waves.back().count = int(some);
    work_.late.push_back(work_.waves.back());
  }
  for (int b = 0; b < work_.sizes[t]; b++) {
    if (actions[b] == kRun) held.queued[b] = held.since[b] = 0;
    if (actions[b] == kQueueInput) held.since[b]++;
  }
}

// Lists the rows that run at timestep t.
void State::list_own(int layer, int d, const Sequence& in, int t, int steps) {
  Wave wave{t, work_.item_x.size(), 0, -1};
  DirectionState& s = states_[layer][d];
  const uint8_t* actions = work_.actions[d].data() + work_.start[t];
  const int begun = d ? t + 1 < steps ? work_.sizes[t + 1] : 0 : t ? work_.sizes[t] : 0;
  for (int b = 0; b < work_.sizes[t]; b++) {
    if (actions[b] == kRun) {
      work_.item_x.push_back(in.at(t, b));
      work_.item_row.push_back(b);
      wave.count++;
    } else if (b >= begun) {  // only the first timestep of a sequence sends every column, also where it does not run
      if (delta(layer, d, false)) s.x.fresh[b] = 0;
      if (delta(layer, d, true)) s.recurrent.fresh[b] = 0;
    }
  }
  work_.waves.push_back(wave);
}

// The input side of n listed rows into the first rows of work_.gates.
void State::project_items(int layer, int d, size_t first, int n) {
  const Kernels& k = active_kernels();
  const Direction& dir = plan_->layers()[layer][d];
  const Matrix& w = dir.w_ih->view();
  DirectionState& s = states_[layer][d];
  const float* const* x = work_.item_x.data() + first;
  if (!n) return;
  if (delta(layer, d, false)) {
    const bool product = product_pays(layer, d, n);
    int64_t sent = 0;
    for (int i = 0; i < n; i++)
      sent += send_input(layer, d, work_.item_row[first + i], x[i], i, product, (tick_ + i) & 1);
    s.sent_x += sent;
    s.x_activity = double(sent) / double(int64_t(n) * dir.w_ih->useful());
    if (product) multiply_input(layer, d, n);
    return;
  }
  if (w.format != Format::int8 && n == 1 && dir.w_ih->kept().empty())
    return k.dense(w, x[0], w.cols, 1, dir.bias.data(), work_.gates.data(), padded(w.rows), tick_ & 1);
  for (int i = 0; i < n; i++) put_operand(*dir.w_ih, x[i], i);
  multiply_input(layer, d, n);
}

// Runs the rows of a wave, whose input side lies in `gates`. guess: whether they run is decided only now.
void State::run_wave(int layer, int d, const Sequence& in, const Wave& wave, float* gates, bool guess) {
  const Direction& dir = plan_->layers()[layer][d];
  DirectionState& s = states_[layer][d];
  const ptrdiff_t stride = padded(dir.rows());
  int* rows = work_.item_row.data() + wave.first;
  int n = wave.count;
  if (guess) {
    decide(layer, d, in, wave.t);
    const uint8_t* actions = work_.actions[d].data() + work_.start[wave.t];
    n = 0;
    for (int i = 0; i < wave.count; i++) {
      if (actions[rows[i]] != kRun) continue;
      if (n < i) std::memcpy(gates + n * stride, gates + i * stride, dir.rows() * sizeof(float)), rows[n] = rows[i];
      n++;
    }
  }
  if (!n) return;
  if (policy_->decider(layer) && wave.late < 0)
    for (int i = 0; i < n; i++)
      std::memcpy(s.held.h_used.data() + size_t(rows[i]) * dir.output, s.h.data() + size_t(rows[i]) * s.h_stride,
                  dir.output * sizeof(float));
  if (!delta(layer, d, false)) s.sent_x += int64_t(n) * dir.w_ih->useful();
  recur(layer, d, gates, rows, n, (wave.t + tick_) & 1);
  for (int i = 0; policy_->holds() && i < n; i++)
    std::memcpy(s.held.gates.data() + size_t(rows[i]) * dir.rows(), gates + i * stride, dir.rows() * sizeof(float));
  for (int i = 0; wave.late >= 0 && i < n; i++)
    std::memcpy(work_.late_out[layer & 1].data() + (wave.late + i) * padded(dir.output),
                s.h.data() + size_t(rows[i]) * s.h_stride, dir.output * sizeof(float));
}

// What the rows that do not run do at timestep t, and everybody's output.
void State::finish_timestep(int layer, int d, const Sequence& out, int t) {
  const Direction& dir = plan_->layers()[layer][d];
  DirectionState& s = states_[layer][d];
  const uint8_t* actions = work_.actions[d].data() + work_.start[t];
  work_.coasting.clear();
  for (int b = 0; b < work_.sizes[t]; b++) {
    if (actions[b] == kHoldGates) work_.coasting.push_back(b);
    if (actions[b] == kExited && layer + 1 == layers()) {
      float* h = s.h.data() + size_t(b) * s.h_stride;
      std::memcpy(h, work_.foreseen.data() + (work_.start[t] + b) * width(layer) + ptrdiff_t(d) * dir.output,
                  dir.output * sizeof(float));
      dir.pin(h);
    }
  }
  if (const int n = int(work_.coasting.size())) {
    const int* rows = work_.coasting.data();
    advance(layer, d, s.held.gates.data(), dir.rows(), rows, rows, n, t & 1);
  }
  for (int b = 0; b < work_.sizes[t]; b++)
    std::memcpy(out.at(t, b) + ptrdiff_t(d) * dir.output, s.h.data() + size_t(b) * s.h_stride,
                dir.output * sizeof(float));
}

// Keeps the inputs of timesteps [t0, t1) that wait.
void State::keep_queue(int layer, int d, const Sequence& in, int t0, int t1) {
  const int input = plan_->layers()[layer][d].input;
  Held& held = states_[layer][d].held;
  const int64_t cap = policy_->queue();
  for (int b = 0; b < work_.sizes[t0]; b++) {
    int end = t1;
    while (work_.sizes[end - 1] <= b) end--;  // the row's last timestep
    for (; held.since[b]; held.since[b]--, held.queued[b]++)
      std::memcpy(held.queue.data() + (b * cap + held.queued[b]) * input, in.at(end - held.since[b], b),
                  input * sizeof(float));
  }
}

void State::run_held(int layer, int d, const Sequence& in, const Sequence& out, int steps) {
  const Hold* hold = policy_->decider(layer);
  const Direction& dir = plan_->layers()[layer][d];
  const DirectionState& s = states_[layer][d];
  const int chunk = chunk_steps(batch_), room = chunk * std::max(batch_, 1);
  const bool queues = policy_->queue() > 0, by_h = hold && hold->h;
  size_t next = 0;
  for (int done = 0, some; done < steps; done += some) {
    const bool guess = by_h && !queues && !delta(layer, d, false) && s.held.share < kMostlyHeld;
    some = by_h && !guess ? 1 : std::min(chunk, steps - done);
    work_.item_x.clear(), work_.item_row.clear(), work_.waves.clear();
    for (int i = 0; i < some; i++) {
      const int t = d ? steps - 1 - done - i : done + i;
      if (!guess) decide(layer, d, in, t);
      if (queues) list_late(layer, d, in, t, next);
      list_own(layer, d, in, t, steps);
    }
    for (size_t w = 0; w < work_.waves.size();) {
      size_t end = w;
      int rows = 0;
      while (end < work_.waves.size() && rows + work_.waves[end].count <= room) rows += work_.waves[end++].count;
      const size_t first = work_.waves[w].first;
      project_items(layer, d, first, rows);
      for (; w < end; w++) {
        const Wave& wave = work_.waves[w];
        run_wave(layer, d, in, wave, work_.gates.data() + ptrdiff_t(wave.first - first) * padded(dir.rows()), guess);
        if (wave.late < 0) finish_timestep(layer, d, out, wave.t);
      }
    }
    if (queues && hold) keep_queue(layer, d, in, done, done + some);
  }
}

}  // namespace alstm
