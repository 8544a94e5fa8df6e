#include "state.h"

#include <algorithm>
#include <cstring>

#include "dispatch.h"

namespace alstm {

void Memory::reset(const Matrix& w, int batch) {
  if (w.format == Format::q8) {
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

State::State(std::shared_ptr<const Plan> plan, std::shared_ptr<const DeltaPolicy> policy, int batch)
    : plan_(std::move(plan)), policy_(std::move(policy)) {
  for (const auto& layer : plan_->layers()) states_.emplace_back(layer.size());
  reset(batch);
}

bool State::delta(int layer, int d, bool recurrent) const {
  if (policy_->layers.empty()) return false;
  const Thresholds& t = policy_->layers[layer][d];
  return !(recurrent ? t.h : t.x).empty();
}

const Matrix& State::matrix(int layer, int d, bool recurrent) const {
  const Direction& w = plan_->layers()[layer][d];
  return (recurrent ? w.w_hh : w.w_ih)->view();
}

void State::reset(int batch) {
  batch_ = batch;
  int cols = 0, rows = 0, units = 0;
  for (size_t l = 0; l < states_.size(); l++)
    for (size_t d = 0; d < states_[l].size(); d++) {
      const Direction& w = plan_->layers()[l][d];
      DirectionState& s = states_[l][d];
      s.units = w.units();
      s.h_stride = int(padded(w.w_hr ? w.w_hr->view().rows : w.units()));
      s.h.assign(size_t(batch) * s.h_stride, 0.0f);
      s.c.assign(size_t(batch) * s.units, 0.0f);
      if (delta(int(l), int(d), false)) s.x.reset(w.w_ih->view(), batch);
      if (delta(int(l), int(d), true)) s.recurrent.reset(w.w_hh->view(), batch);
      s.x_activity = 0;
      cols = std::max({cols, w.w_ih->view().cols, w.w_hh->view().cols});
      rows = std::max(rows, w.rows());
      units = std::max(units, w.units());
    }
  clear_counters();
  // A chunk holds this many rows of gate pre-activations at most (see run_direction).
  const size_t chunk = size_t(std::max(batch, 1)) * chunk_steps(batch);
  auto grow = [](auto& buffer, size_t n) {
    if (buffer.size() < n) buffer.resize(n);
  };
  grow(work_.gates, chunk * padded(rows));
  grow(work_.estimate, chunk * cols);
  grow(work_.whole, chunk * cols);
  grow(work_.units, size_t(batch) * units);
  grow(work_.cols, cols + kListSlack);
  grow(work_.delta, cols + kListSlack);
  grow(work_.delta_q, cols + kListSlack);
  grow(work_.scratch, scratch_bytes(int(std::max<size_t>(chunk, 2)), cols));
}

void State::clear_counters() {
  for (auto& layer : states_)
    for (DirectionState& s : layer) s.sent_x = s.sent_h = s.steps = 0;
}

void State::load(const float* h, const float* c) {
  for (size_t l = 0; l < states_.size(); l++)
    for (size_t d = 0; d < states_[l].size(); d++) {
      const Direction& w = plan_->layers()[l][d];
      DirectionState& s = states_[l][d];
      for (int b = 0; b < batch_; b++, h += w.output, c += w.hidden) {
        std::memcpy(s.h.data() + size_t(b) * s.h_stride, h, w.output * sizeof(float));
        std::memcpy(s.c.data() + size_t(b) * s.units, c, w.hidden * sizeof(float));
      }
    }
}

void State::store(float* h, float* c) const {
  for (size_t l = 0; l < states_.size(); l++)
    for (size_t d = 0; d < states_[l].size(); d++) {
      const Direction& w = plan_->layers()[l][d];
      const DirectionState& s = states_[l][d];
      for (int b = 0; b < batch_; b++, h += w.output, c += w.hidden) {
        std::memcpy(h, s.h.data() + size_t(b) * s.h_stride, w.output * sizeof(float));
        std::memcpy(c, s.c.data() + size_t(b) * s.units, w.hidden * sizeof(float));
      }
    }
}

void State::store_sent(int layer, int d, bool recurrent, float* out) const {
  const Matrix& w = matrix(layer, d, recurrent);
  const DirectionState& s = states_[layer][d];
  const Memory& m = recurrent ? s.recurrent : s.x;
  const Direction& dir = plan_->layers()[layer][d];
  const int cols = recurrent ? dir.output : dir.input;
  const float step = w.levels ? 1.0f / float(w.levels) : 1.0f;
  for (int b = 0; b < batch_; b++)
    for (int k = 0; k < cols; k++) {
      const size_t at = size_t(b) * w.cols + k;
      *out++ = w.format == Format::q8 ? float(m.sent_q[at]) * (w.step ? w.step[k] : step) : m.sent[at];
    }
}

void State::load_sent(int layer, int d, bool recurrent, const float* sent) {
  const Matrix& w = matrix(layer, d, recurrent);
  DirectionState& s = states_[layer][d];
  Memory& m = recurrent ? s.recurrent : s.x;
  const Direction& dir = plan_->layers()[layer][d];
  const int cols = recurrent ? dir.output : dir.input;
  for (int b = 0; b < batch_; b++, sent += cols) {
    if (w.format == Format::q8)
      active_kernels().quantize(w, sent, cols, m.sent_q.data() + size_t(b) * w.cols);
    else
      std::memcpy(m.sent.data() + size_t(b) * w.cols, sent, cols * sizeof(float));
    m.valid[b] = 0;
    m.fresh[b] = 0;
  }
}

}  // namespace alstm
