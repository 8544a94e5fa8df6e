#include "run/stack_state.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>

#include "cpu/dispatch.h"

namespace alstm {

void Memory::reset(const Matrix& w, int batch) {
  if (w.format == Format::int8) {
    sent_q.assign(size_t(batch) * w.cols, 0);
    acc_q.assign(size_t(batch) * w.rows, 0);
  } else {
    sent.assign(size_t(batch) * w.cols, 0.0f);
    acc.assign(size_t(batch) * w.rows, 0.0f);
  }
  valid.assign(batch, 1);
  fresh.assign(batch, 1);
  age.assign(batch, 0);
  moved.assign(batch, 0.0f);
}

void Held::reset(const Direction& w, const Hold* decider, int batch) {
  run.assign(batch, -1);
  gates.assign(size_t(batch) * w.rows(), 0.0f);
  share = 0;
  if (!decider) return;
  x_used.assign(size_t(batch) * w.input, 0.0f);
  h_used.assign(size_t(batch) * w.output, 0.0f);
  x_size.assign(batch, 0.0);
  if (decider->action != kQueueInput) return;
  queue.assign(size_t(batch) * decider->cap * w.input, 0.0f);
  queued.assign(batch, 0);
  since.assign(batch, 0);
}

void Left::reset(const TimeExit& exit, int output, int batch) {
  time = 0;
  done.assign(batch, 0);
  final.assign(size_t(batch) * output, 0.0f);
  streak.assign(batch, 0);
  past.assign(size_t(batch) * exit.window * output, std::numeric_limits<float>::quiet_NaN());
}

State::State(std::shared_ptr<const Plan> plan, std::shared_ptr<const Policy> policy, int batch)
    : plan_(std::move(plan)), policy_(std::move(policy)) {
  for (const auto& layer : plan_->layers()) states_.emplace_back(layer.size());
  for (int l = 0; l < layers(); l++)
    for (int d = 0; d < plan_->directions(); d++)
      for (bool recurrent : {false, true}) {
        const PackedMatrix& m = matrix(l, d, recurrent);
        if (!delta(l, d, recurrent) || m.kept().empty()) continue;
        Buffer<float>& limit = recurrent ? states_[l][d].limit_h : states_[l][d].limit_x;
        limit.resize(m.kept().size());
        const Thresholds& all = policy_->columns[l][d];
        m.gather((recurrent ? all.h : all.x).data(), limit.data());
      }
  reset(batch);
}

bool State::delta(int layer, int d, bool recurrent) const {
  if (policy_->columns.empty()) return false;
  const Thresholds& t = policy_->columns[layer][d];
  return !(recurrent ? t.h : t.x).empty();
}

const PackedMatrix& State::matrix(int layer, int d, bool recurrent) const {
  const Direction& w = plan_->layers()[layer][d];
  return *(recurrent ? w.w_hh : w.w_ih);
}

// Thresholds of the columns that a matrix has.
const float* State::limits(int layer, int d, bool recurrent) const {
  const Thresholds& all = policy_->columns[layer][d];
  const DirectionState& s = states_[layer][d];
  const Buffer<float>& some = recurrent ? s.limit_h : s.limit_x;
  return (some.empty() ? recurrent ? all.h : all.x : some).data();
}

void State::pin() {
  for (size_t l = 0; l < states_.size(); l++)
    for (size_t d = 0; d < states_[l].size(); d++)
      for (int i = 0; i < active_; i++)
        plan_->layers()[l][d].pin(states_[l][d].h.data() + size_t(i) * states_[l][d].h_stride);
  loaded_ = false;
}

void State::reset(int batch) {
  batch_ = active_ = batch;
  order_.resize(batch);
  std::iota(order_.begin(), order_.end(), 0);
  for (size_t l = 0; l < states_.size(); l++)
    for (size_t d = 0; d < states_[l].size(); d++) {
      const Direction& w = plan_->layers()[l][d];
      DirectionState& s = states_[l][d];
      s.units = w.units();
      s.h_stride = int(padded(w.w_hr ? w.w_hr->view().rows : round_up(w.hidden, kUnits)));
      s.h.assign(size_t(batch) * s.h_stride, 0.0f);
      s.c.assign(size_t(batch) * s.units, 0.0f);
      if (delta(int(l), int(d), false)) s.x.reset(w.w_ih->view(), batch);
      if (delta(int(l), int(d), true)) s.recurrent.reset(w.w_hh->view(), batch);
      if (policy_->holds()) s.held.reset(w, policy_->decider(int(l)), batch);
      s.x_activity = 0;
    }
  pin();
  if (policy_->time) left_.reset(*policy_->time, plan_->output(layers() - 1), batch);
  clear_counters();
  grow_workspace();
}

// Room for everything whose size does not depend on the number of timesteps.
void State::grow_workspace() {
  int cols = 0, rows = 0, units = 0, h_stride = 0;
  for (size_t l = 0; l < states_.size(); l++)
    for (size_t d = 0; d < states_[l].size(); d++) {
      const Direction& w = plan_->layers()[l][d];
      cols = std::max({cols, w.w_ih->view().cols, w.w_hh->view().cols});
      rows = std::max(rows, w.rows());
      units = std::max(units, w.units());
      h_stride = std::max(h_stride, states_[l][d].h_stride);
    }
  // A chunk holds this many rows of gate pre-activations at most (see run_direction).
  const size_t batch = size_t(std::max(batch_, 1)), chunk = batch * chunk_steps(batch_);
  auto grow = [](auto& buffer, size_t n) {
    if (buffer.size() < n) buffer.resize(n);
  };
  grow(work_.gates, chunk * padded(rows));
  grow(work_.estimate, chunk * cols);
  grow(work_.largest, chunk);
  grow(work_.whole, chunk * cols + kListSlack);  // kernels may read on to a multiple of 32 columns
  grow(work_.units, batch * units);
  grow(work_.gathered, cols);
  grow(work_.cols, cols + kListSlack);
  grow(work_.delta, cols + kListSlack);
  grow(work_.delta_q, cols + kListSlack);
  grow(work_.scratch, scratch_bytes(int(std::max<size_t>(chunk, 2)), cols));
  if (work_.level.empty()) work_.level.resize(policy_->depth ? states_.size() : 2);
  if (policy_->holds() || policy_->leaves_steps()) {
    const size_t items = chunk + batch * size_t(policy_->queue());
    grow(work_.projected, batch * h_stride);
    work_.item_x.reserve(items);
    work_.item_row.reserve(items);
    work_.waves.reserve(items + chunk);
    work_.coasting.reserve(batch);
  }
  if (!policy_->time && !policy_->depth) return;
  int answer = 0;
  auto widest = [&answer](const std::vector<Affine>& maps) {
    for (const Affine& m : maps) answer = std::max(answer, m.weight->view().rows);
  };
  if (policy_->time) widest(policy_->time->translations), widest(policy_->time->logits);
  if (policy_->depth) widest(policy_->depth->steps), widest(policy_->depth->finals), widest(policy_->depth->logits);
  grow(work_.states, size_t(kAsk) * padded(width(0) * layers()));
  grow(work_.answer, size_t(kAsk) * padded(answer));
  grow(work_.below, size_t(kAsk) * padded(answer));
  work_.asked.reserve(kAsk);
  work_.leaves.reserve(batch);
  work_.from.reserve(batch);
  work_.mark.reserve(batch);
  size_t row = 0;
  each_array([&](auto& array) { row = std::max(row, array.size() / batch * sizeof(array[0])); });
  grow(work_.row, row);
}

void State::clear_counters() {
  for (auto& layer : states_)
    for (DirectionState& s : layer) s.sent_x = s.sent_h = s.ran = s.moved = 0;
  exits_.asked = exits_.left = 0;
  exits_.asked_depth.assign(states_.size(), 0);
  exits_.left_depth.assign(states_.size(), 0);
}

void State::reorder(const std::vector<int>& from) {
  const int n = int(from.size());
  each_array([&](auto& array) {
    if (array.empty()) return;
    const size_t row = array.size() / size_t(batch_) * sizeof(array[0]);
    uint8_t* data = reinterpret_cast<uint8_t*>(array.data());
    work_.mark.assign(n, 0);
    for (int i = 0; i < n; i++) {  // cycle by cycle
      if (work_.mark[i] || from[i] == i) continue;
      std::memcpy(work_.row.data(), data + i * row, row);
      int to = i;
      for (; from[to] != i; to = from[to]) {
        std::memcpy(data + to * row, data + from[to] * row, row);
        work_.mark[to] = 1;
      }
      std::memcpy(data + to * row, work_.row.data(), row);
      work_.mark[to] = 1;
    }
  });
}

void State::rejoin() {
  if (active_ == batch_) return;
  work_.from.resize(batch_);
  for (int i = 0; i < batch_; i++) work_.from[order_[i]] = i;
  reorder(work_.from);
  std::iota(order_.begin(), order_.end(), 0);
  active_ = batch_;
}

void State::load(const float* h, const float* c) {
  for (size_t l = 0; l < states_.size(); l++)
    for (size_t d = 0; d < states_[l].size(); d++) {
      const Direction& w = plan_->layers()[l][d];
      DirectionState& s = states_[l][d];
      for (int i = 0; i < batch_; i++) {
        std::memcpy(s.h.data() + size_t(i) * s.h_stride, h + size_t(order_[i]) * w.output, w.output * sizeof(float));
        float* own = s.c.data() + size_t(i) * s.units;
        for (size_t k = 0; k < w.lives.size(); k++) own[k] = c[size_t(order_[i]) * w.hidden + w.lives[k]];
      }
      h += size_t(batch_) * w.output, c += size_t(batch_) * w.hidden;
    }
  loaded_ = true;
}

void State::store(float* h, float* c) const {
  for (size_t l = 0; l < states_.size(); l++)
    for (size_t d = 0; d < states_[l].size(); d++) {
      const Direction& w = plan_->layers()[l][d];
      const DirectionState& s = states_[l][d];
      for (int i = 0; i < batch_; i++) {
        std::memcpy(h + size_t(order_[i]) * w.output, s.h.data() + size_t(i) * s.h_stride, w.output * sizeof(float));
        float* all = c + size_t(order_[i]) * w.hidden;
        if (w.pruned()) std::memset(all, 0, w.hidden * sizeof(float));
        for (size_t k = 0; k < w.lives.size(); k++) all[w.lives[k]] = s.c[size_t(i) * s.units + k];
      }
      h += size_t(batch_) * w.output, c += size_t(batch_) * w.hidden;
    }
}

void State::store_sent(int layer, int d, bool recurrent, float* out) const {
  const PackedMatrix& packed = matrix(layer, d, recurrent);
  const Matrix& w = packed.view();
  const DirectionState& s = states_[layer][d];
  const Memory& m = recurrent ? s.recurrent : s.x;
  const int cols = packed.source_cols();
  const float step = w.levels ? 1.0f / float(w.levels) : 1.0f;
  if (!packed.kept().empty()) std::fill_n(out, size_t(batch_) * cols, 0.0f);
  for (int i = 0; i < batch_; i++)
    for (int k = 0; k < packed.useful(); k++) {
      const size_t at = size_t(i) * w.cols + k;
      out[size_t(order_[i]) * cols + (packed.kept().empty() ? k : packed.kept()[k])] =
          w.format == Format::int8 ? float(m.sent_q[at]) * (w.step ? w.step[k] : step) : m.sent[at];
    }
}

void State::load_sent(int layer, int d, bool recurrent, const float* sent) {
  const PackedMatrix& packed = matrix(layer, d, recurrent);
  const Matrix& w = packed.view();
  DirectionState& s = states_[layer][d];
  Memory& m = recurrent ? s.recurrent : s.x;
  const int cols = packed.source_cols(), useful = packed.useful();
  for (int i = 0; i < batch_; i++) {
    const float* row = packed.gather(sent + size_t(order_[i]) * cols, work_.gathered.data());
    if (w.format == Format::int8)
      active_kernels().quantize(w, row, useful, m.sent_q.data() + size_t(i) * w.cols);
    else
      std::memcpy(m.sent.data() + size_t(i) * w.cols, row, useful * sizeof(float));
    m.valid[i] = 0;
    m.fresh[i] = 0;
  }
}

}  // namespace alstm
