// Exits in time: run a few timesteps, ask, go on with the rows that stay. Rows that leave are taken out of the batch.
#include <algorithm>
#include <cstring>

#include "run/stack_state.h"
#include "run/confidence.h"

namespace alstm {

namespace {

size_t bucket(const std::vector<int64_t>& starts, int64_t time) {
  return size_t(std::upper_bound(starts.begin(), starts.end(), time) - starts.begin()) - 1;
}

}  // namespace

void State::run_in_time(const Sequence& x, const Sequence& y, int steps, const int64_t* sizes, bool open_ended) {
  const int every = policy_->time->every, top = layers() - 1, output = plan_->output(top);
  auto alive = [&](int t) { return sizes ? sizes[t] : int64_t(batch_); };
  auto running = [&](int64_t n) {  // how many rows of the first n of the batch have not left
    return int(std::lower_bound(order_.begin(), order_.begin() + active_, n) - order_.begin());
  };
  auto copy_final = [&](int position, int t) {
    const int b = order_[position];
    std::memcpy(y.at(t, b), left_.final.data() + size_t(b) * output, output * sizeof(float));
  };
  for (int t = 0, until; t < steps; t = until) {
    until = int(std::min<int64_t>(steps, t + every - left_.time % every));
    work_.sizes.clear();
    for (int u = t; u < until && running(alive(u)); u++) work_.sizes.push_back(running(alive(u)));
    if (const int some = int(work_.sizes.size())) {
      set_sizes(some);
      const Sequence in = laid_out(work_.in, plan_->input(), nullptr), out = laid_out(work_.out, output, nullptr);
      for (int u = 0; u < some; u++)
        for (int i = 0; i < work_.sizes[u]; i++)
          std::memcpy(in.at(u, i), x.at(t + u, order_[i]), plan_->input() * sizeof(float));
      run_layers(in, out, some);
      for (int u = 0; u < some; u++)
        for (int i = 0; i < work_.sizes[u]; i++)
          std::memcpy(y.at(t + u, order_[i]), out.at(u, i), output * sizeof(float));
    }
    for (int u = t; u < until; u++)
      for (int i = active_; i < batch_; i++)
        if (order_[i] < alive(u)) copy_final(i, u);
    left_.time += until - t;
    if (left_.time % every) continue;
    const int before = active_;
    // Without an open end a row is not asked after its last timestep, where nothing is left to leave out.
    ask_in_time(std::min(running(alive(until - 1)), running(open_ended      ? alive(until - 1)
                                                            : until < steps ? alive(until)
                                                                            : 0)));
    for (int i = active_; i < before; i++) copy_final(i, until - 1);
  }
}

// Puts the question to the first n rows.
void State::ask_in_time(int n) {
  exits_.asked += n;
  for (int first = 0; first < n; first += kAsk) {
    work_.asked.clear();
    for (int i = first; i < std::min(n, first + kAsk); i++) work_.asked.push_back({0, i});
    ask_block();
  }
  regroup([this](int i) { return !left_.done[order_[i]]; });
}

// Puts the question to the rows listed; those that leave are done, with their translation.
void State::ask_block() {
  const TimeExit& exit = *policy_->time;
  const int top = layers() - 1, output = plan_->output(top);
  const int64_t now = left_.time - 1;
  const float threshold = exit.thresholds[bucket(exit.threshold_starts, now)];
  const size_t map = bucket(exit.map_starts, now);
  const Affine* translation = exit.translations.empty() ? nullptr : &exit.translations[map];
  const Affine* question = exit.head ? &exit.logits[map] : translation;
  gather_states(translation ? 0 : top, top);
  const float* said = question ? answer(*question, work_.answer) : work_.states.data();
  const ptrdiff_t stride = question ? question->stride() : states_stride();
  size_t leaving = 0;
  for (size_t i = 0; i < work_.asked.size(); i++, said += stride) {
    const int b = order_[work_.asked[i].b];
    float* past = left_.past.data() + size_t(b) * exit.window * output;
    const bool sure = exit.head ? confidence(*exit.head, said, question->rows()) > threshold
                                : float(moved(said, past, output)) < threshold;  // NaN, before the first: no
    if (exit.window) {
      std::memmove(past, past + output, size_t(exit.window - 1) * output * sizeof(float));
      std::memcpy(past + size_t(exit.window - 1) * output, said, output * sizeof(float));
    }
    left_.streak[b] = sure ? left_.streak[b] + 1 : 0;
    if (left_.streak[b] >= exit.patience) work_.asked[leaving++] = work_.asked[i];
  }
  work_.asked.resize(leaving);
  exits_.left += int64_t(leaving);
  if (!leaving) return;
  gather_states(translation ? 0 : top, top);
  const float* final = translation ? answer(*translation, work_.answer) : work_.states.data();
  for (const Place& place : work_.asked) {
    DirectionState& s = states_[top][0];
    const int b = order_[place.b];
    left_.done[b] = 1;
    std::memcpy(left_.final.data() + size_t(b) * output, final, output * sizeof(float));
    std::memcpy(s.h.data() + size_t(place.b) * s.h_stride, final, output * sizeof(float));
    final += translation ? translation->stride() : states_stride();
  }
}

}  // namespace alstm
