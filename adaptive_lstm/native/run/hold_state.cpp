// What a state remembers for holding and for exits in time, to and from plain arrays in the rows' own order.
#include <algorithm>

#include "run/stack_state.h"
#include "run/confidence.h"

namespace alstm {

namespace {

// Calls visit(row of torch's order, packed row) for every gate of the units that are computed.
template <class Visit>
void each_gate(const Direction& w, Visit visit) {
  for (int gate = 0; gate < 4; gate++)
    for (int k = 0; k < int(w.lives.size()); k++)
      visit(gate * w.hidden + w.lives[k], k / kUnits * kRowBlock + gate * kUnits + k % kUnits);
}

}  // namespace

void State::store_held(int layer, int d, const HeldArrays& out) const {
  const Direction& w = plan_->layers()[layer][d];
  const Held& held = states_[layer][d].held;
  for (int i = 0; i < batch_; i++) {
    const size_t b = size_t(order_[i]);
    out.run[b] = held.run[i];
    if (w.pruned()) std::fill_n(out.gates + b * 4 * w.hidden, 4 * w.hidden, 0.0f);
    each_gate(w, [&](int r, int p) { out.gates[b * 4 * w.hidden + r] = held.gates[size_t(i) * w.rows() + p]; });
    if (!held.x_used.empty()) {
      std::copy_n(held.x_used.data() + size_t(i) * w.input, w.input, out.x_used + b * w.input);
      std::copy_n(held.h_used.data() + size_t(i) * w.output, w.output, out.h_used + b * w.output);
    }
    if (held.queued.empty()) continue;
    const size_t row = size_t(policy_->queue()) * w.input, used = size_t(held.queued[i]) * w.input;
    std::copy_n(held.queue.data() + size_t(i) * row, used, out.queue + b * row);
    std::fill(out.queue + b * row + used, out.queue + (b + 1) * row, 0.0f);
    out.queued[b] = held.queued[i];
  }
}

void State::load_held(int layer, int d, const HeldArrays& in) {
  const Direction& w = plan_->layers()[layer][d];
  Held& held = states_[layer][d].held;
  for (int i = 0; i < batch_; i++) {
    const size_t b = size_t(order_[i]);
    held.run[i] = in.run[b];
    each_gate(w, [&](int r, int p) { held.gates[size_t(i) * w.rows() + p] = in.gates[b * 4 * w.hidden + r]; });
    if (!held.x_used.empty()) {
      std::copy_n(in.x_used + b * w.input, w.input, held.x_used.data() + size_t(i) * w.input);
      std::copy_n(in.h_used + b * w.output, w.output, held.h_used.data() + size_t(i) * w.output);
      held.x_size[i] = rms(in.x_used + b * w.input, w.input);
    }
    if (held.queued.empty()) continue;
    const size_t row = size_t(policy_->queue()) * w.input;
    std::copy_n(in.queue + b * row, row, held.queue.data() + size_t(i) * row);
    held.queued[i] = in.queued[b];
  }
}

void State::load_left(const Left& left) {
  left_ = left;
  regroup([this](int i) { return !left_.done[order_[i]]; });
}

}  // namespace alstm
