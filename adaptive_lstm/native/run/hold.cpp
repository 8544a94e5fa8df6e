#include "run/hold.h"

#include <algorithm>
#include <cstring>

#include "kernels/tuning.h"
#include "run/confidence.h"

namespace alstm {

void Actions::start(int count, size_t rows) {
  directions = count;
  for (int d = 0; d < directions; d++) of[d].assign(rows, kRun);
}

bool Actions::runs(ptrdiff_t row) const {
  for (int d = 0; d < directions; d++)
    if (of[d][row] != kRun) return false;
  return true;
}

void Actions::set(ptrdiff_t row, Action action) {
  for (int d = 0; d < directions; d++) of[d][row] = action;
}

void Actions::move(ptrdiff_t to, ptrdiff_t from) {
  for (int d = 0; d < directions; d++) of[d][to] = of[d][from];
}

size_t HoldScratch::bytes() const {
  size_t all = late.capacity() * sizeof(RowGroup) + late_row.capacity() * sizeof(int);
  for (const Buffer<float>& out : late_out) all += out.capacity() * sizeof(float);
  for (const auto& of : actions.of) all += of.capacity() * sizeof(of[0]);
  return all;
}

void HoldScratch::reserve(const Policy& policy, int batch) {
  const size_t size = size_t(std::max(batch, 1)), chunk = size * chunk_steps(batch);
  const size_t items = chunk + size * size_t(policy.queue());
  x.reserve(items);
  row.reserve(items);
  groups.reserve(items + chunk);
  holding_gates.reserve(size);
}

void HoldScratch::start(const Policy& policy, const Plan& plan, const RowLayout& layout, int batch) {
  const size_t rows = size_t(layout.start.back()), cap = size_t(policy.queue());
  actions.start(plan.directions(), rows);
  late.clear();
  late_row.clear();
  if (!cap) return;
  const size_t most = rows + size_t(batch) * cap;
  late.reserve(most);
  late_row.reserve(most);
  for (Buffer<float>& out : late_out) grow(out, most * size_t(padded(plan.output(0))));
}

void HoldScratch::start_cell(const Cell& cell, bool holds_gates, int batch) {
  fresh.assign(size_t(batch), nullptr);
  if (!holds_gates) return;
  grow(kept, size_t(batch) * cell.rows());
  has_kept.assign(size_t(batch), 0);
}

Holding::Holding(CellRun& run, HoldScratch& scratch, const HeldCell& held, const Rows<const float>& in,
                 const Rows<float>& out)
    : run_(run),
      scratch_(scratch),
      held_(held),
      in_(in),
      out_(out),
      layout_(held.layout),
      state_(run.state),
      hold_(run.state.hold),
      actions_(scratch.actions.of[held.direction]),
      queues_(held.policy.queue() > 0) {
  if (held.policy.holds()) scratch.start_cell(run.cell, held.policy.holds_gates(), held.batch);
}

void Holding::run() {
  const int steps = layout_.steps();
  for (int done = 0; done < steps;) {
    const int some = start_chunk(done);
    run_groups();
    if (queues_ && state_.decider) keep_queue(done, done + some);
    done += some;
  }
}

int Holding::start_chunk(int done) {
  const bool by_h = state_.decider && state_.decider->h;
  guess_ = by_h && !queues_ && !state_.x.thresholded() && !layout_.rows && hold_.share < kMostlyHeld;
  const int steps = layout_.steps(), least = by_h && !guess_ ? 1 : chunk_steps(held_.batch);
  const size_t room = by_h || queues_ ? 0 : size_t(least) * std::max(held_.batch, 1);
  scratch_.x.clear();
  scratch_.row.clear();
  scratch_.groups.clear();
  int some = 0;
  for (; done + some < steps && (some < least || scratch_.x.size() + size_t(held_.batch) <= room); some++) {
    const int t = run_.backward ? steps - 1 - done - some : done + some;
    if (!guess_) decide(t);
    if (queues_) list_late(t);
    list_own(t);
  }
  return some;
}

// As many groups at once as there is room for.
void Holding::run_groups() {
  const std::vector<RowGroup>& groups = scratch_.groups;
  const int room = chunk_steps(held_.batch) * std::max(held_.batch, 1);
  float* gates = run_.scratch.gates.data();
  for (size_t g = 0; g < groups.size();) {
    const size_t first = groups[g].first;
    size_t end = g;
    int rows = 0;
    while (end < groups.size() && rows + groups[end].count <= room) rows += groups[end++].count;
    run_.project_listed(scratch_.x.data() + first, scratch_.row.data() + first, rows, gates);
    for (; g < end; g++) {
      run_group(groups[g], gates + ptrdiff_t(groups[g].first - first) * run_.gate_stride());
      if (groups[g].late < 0) finish_timestep(groups[g].t);
    }
    for (int b = 0; held_.policy.holds() && b < held_.batch; b++) store_gates(b);  // the next rows take their place
  }
}

// Turns the actions of the layer below at timestep t into those of this layer.
void Holding::decide(int t) {
  if (!held_.policy.holds()) return;
  const Hold* hold = state_.decider;
  const int input = run_.cell.input;
  uint8_t* actions = actions_at(t);
  for (int i = 0; i < layout_.sizes[t]; i++) {
    const int b = layout_.batch_row(i);
    uint8_t& action = actions[i];
    int64_t& run = hold_.run[b];
    // A row that never ran has no gates to reuse: the layers above an exit in depth may be in that situation.
    if (action == kHoldGates && run < 0) action = kHoldState;
    if (hold && action == kRun) {
      const float* x = in_.at(t, i);
      const bool held = run >= 0 && run < hold->cap && unchanged(*hold, b, x);
      hold_.share += ((held ? 1.0 : 0.0) - hold_.share) / 32;
      if (held) {
        action = hold->action;
      } else {
        std::memcpy(hold_.x_used.data() + size_t(b) * input, x, input * sizeof(float));
        if (hold->x) hold_.x_size[b] = rms(run_.kernels, x, input);
      }
    }
    if (action == kRun)
      run = 0;
    else if (run >= 0)
      run++;
  }
}

bool Holding::unchanged(const Hold& hold, int b, const float* x) const {
  const Cell& cell = run_.cell;
  if (hold.x) {
    const double change = rms_change(run_.kernels, x, hold_.x_used.data() + size_t(b) * cell.input, cell.input);
    const double limit = *hold.x;
    if (!(limit > 0 && change < kMinChange) && !(change < limit * hold_.x_size[b])) return false;
  }
  if (!hold.h) return true;
  const float* h_used = hold_.h_used.data() + size_t(b) * cell.output;
  return rms_change(run_.kernels, state_.h_row(b), h_used, cell.output) < *hold.h;
}

// Lists the queued inputs of the rows that run at timestep t, oldest first.
void Holding::list_late(int t) {
  if (!state_.decider) {
    list_late_from_below(t);
    return;
  }
  const int input = run_.cell.input;
  const int64_t cap = state_.decider->cap;
  const uint8_t* actions = actions_at(t);
  for (int64_t j = 0;; j++) {
    RowGroup group{t, scratch_.x.size(), 0, ptrdiff_t(scratch_.late_row.size())};
    for (int i = 0; i < layout_.sizes[t]; i++) {
      const int b = layout_.batch_row(i);
      const int64_t back = hold_.queued[b] + hold_.since[b] - j;  // the timesteps just before t have waited last
      if (actions[i] != kRun || back <= 0) continue;
      const bool earlier = j < hold_.queued[b];  // queued before this chunk
      scratch_.x.push_back(earlier ? hold_.queue.data() + (b * cap + j) * input : in_.at(t - back, i));
      scratch_.row.push_back(b);
      scratch_.late_row.push_back(b);
      group.count++;
    }
    if (!group.count) break;
    scratch_.groups.push_back(group);
    scratch_.late.push_back(group);
  }
  for (int i = 0; i < layout_.sizes[t]; i++) {
    const int b = layout_.batch_row(i);
    if (actions[i] == kRun) hold_.queued[b] = hold_.since[b] = 0;
    if (actions[i] == kQueueInput) hold_.since[b]++;
  }
}

// Lists what the layer below has replayed at timestep t.
void Holding::list_late_from_below(int t) {
  const ptrdiff_t stride = padded(run_.cell.input);
  const float* outputs = scratch_.late_out[(held_.layer - 1) & 1].data();
  for (; next_late_ < scratch_.late.size() && scratch_.late[next_late_].t == t; next_late_++) {
    const RowGroup& below = scratch_.late[next_late_];
    scratch_.groups.push_back({t, scratch_.x.size(), below.count, below.late});
    for (int i = 0; i < below.count; i++) {
      scratch_.x.push_back(outputs + (below.late + i) * stride);
      scratch_.row.push_back(scratch_.late_row[size_t(below.late) + i]);
    }
  }
}

// Lists the rows that run at timestep t.
void Holding::list_own(int t) {
  RowGroup group{t, scratch_.x.size(), 0, -1};
  const uint8_t* actions = actions_at(t);
  int begun = 0;  // rows whose sequence began before this timestep
  if (!run_.backward)
    begun = t > 0 ? layout_.sizes[t] : 0;
  else if (t + 1 < layout_.steps())
    begun = layout_.sizes[t + 1];
  for (int i = 0; i < layout_.sizes[t]; i++) {
    const int b = layout_.batch_row(i);
    if (actions[i] == kRun) {
      scratch_.x.push_back(in_.at(t, i));
      scratch_.row.push_back(b);
      group.count++;
    } else if (i >= begun) {  // only the first timestep of a sequence sends every column, also if the row is held then
      if (state_.x.thresholded()) state_.x.delta.nothing_sent[b] = 0;
      if (state_.recurrent.thresholded()) {
        if (state_.recurrent.delta.nothing_sent[b]) state_.ahead.ready = false;
        state_.recurrent.delta.nothing_sent[b] = 0;
      }
    }
  }
  scratch_.groups.push_back(group);
}

// Decides about the rows of a group that was projected before; moves those that run to the front. Returns how many.
int Holding::keep_running(const RowGroup& group, float* gates) {
  decide(group.t);
  const uint8_t* actions = actions_at(group.t);
  const ptrdiff_t stride = run_.gate_stride();
  int* rows = scratch_.row.data() + group.first;
  int n = 0;
  for (int i = 0; i < group.count; i++) {
    if (actions[rows[i]] != kRun) continue;
    if (n < i) {
      std::memcpy(gates + n * stride, gates + i * stride, run_.cell.rows() * sizeof(float));
      rows[n] = rows[i];
    }
    n++;
  }
  return n;
}

// Runs the rows of a group, whose input side lies in `gates`.
void Holding::run_group(const RowGroup& group, float* gates) {
  const Cell& cell = run_.cell;
  const int n = guess_ ? keep_running(group, gates) : group.count;
  const int* rows = scratch_.row.data() + group.first;
  if (!n) return;
  if (state_.decider && group.late < 0)
    for (int i = 0; i < n; i++)
      std::memcpy(hold_.h_used.data() + size_t(rows[i]) * cell.output, state_.h_row(rows[i]),
                  cell.output * sizeof(float));
  if (!state_.x.thresholded()) state_.x.sent += int64_t(n) * cell.w_ih->useful();
  run_.recur(gates, rows, n, (group.t + run_.tick) & 1);
  for (int i = 0; held_.policy.holds() && i < n; i++) scratch_.fresh[size_t(rows[i])] = gates + i * run_.gate_stride();
  if (group.late < 0) return;
  float* late_out = scratch_.late_out[held_.layer & 1].data();
  for (int i = 0; i < n; i++)
    std::memcpy(late_out + (group.late + i) * padded(cell.output), state_.h_row(rows[i]), cell.output * sizeof(float));
}

// Advances the rows that do not run at timestep t, and writes the outputs of all rows.
void Holding::finish_timestep(int t) {
  const Cell& cell = run_.cell;
  const uint8_t* actions = actions_at(t);
  std::vector<int>& holding_gates = scratch_.holding_gates;
  holding_gates.clear();
  for (int i = 0; i < layout_.sizes[t]; i++) {
    const int b = layout_.batch_row(i);
    if (actions[i] == kHoldGates) {
      store_gates(b);
      holding_gates.push_back(b);
    }
    if (actions[i] == kExited && held_.translations) {
      const float* translation = held_.translations + layout_.row(t, i) * held_.translation_stride;
      std::memcpy(state_.h_row(b), translation, cell.output * sizeof(float));
      cell.set_constants(state_.h_row(b));
      state_.h_is_given();
    }
  }
  if (const int n = int(holding_gates.size()))
    run_.advance_held(hold_.gates.data(), scratch_.kept.data(), scratch_.has_kept.data(), holding_gates.data(), n,
                      layout_.steps() > 1, t & 1);
  for (int i = 0; i < layout_.sizes[t]; i++)
    std::memcpy(out_.at(t, i), state_.h_row(layout_.batch_row(i)), cell.output * sizeof(float));
}

// Stores the pre-activations with which a row has just run, in case they are held.
void Holding::store_gates(int b) {
  const float*& fresh = scratch_.fresh[size_t(b)];
  if (!fresh) return;
  const size_t rows = size_t(run_.cell.rows());
  std::memcpy(hold_.gates.data() + size_t(b) * rows, fresh, rows * sizeof(float));
  if (held_.policy.holds_gates()) scratch_.has_kept[size_t(b)] = 0;
  fresh = nullptr;
}

// Keeps the inputs of timesteps [t0, t1) that are still queued.
void Holding::keep_queue(int t0, int t1) {
  const int input = run_.cell.input;
  const int64_t cap = state_.decider->cap;
  for (int i = 0; i < layout_.sizes[t0]; i++) {
    const int b = layout_.batch_row(i);
    int end = t1;
    while (layout_.sizes[end - 1] <= i) end--;  // the row's last timestep
    for (; hold_.since[b]; hold_.since[b]--) {
      float* to = hold_.queue.data() + (b * cap + hold_.queued[b]) * input;
      std::memcpy(to, in_.at(end - hold_.since[b], i), input * sizeof(float));
      hold_.queued[b]++;
    }
  }
}

}  // namespace alstm
