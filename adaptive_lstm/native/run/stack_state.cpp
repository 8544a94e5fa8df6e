#include "run/stack_state.h"

#include <algorithm>
#include <cstring>

#include "cpu/dispatch.h"
#include "cpu/flush_denormals.h"

namespace alstm {

StackState::StackState(std::shared_ptr<const Plan> plan, std::shared_ptr<const Policy> policy, int batch)
    : plan_(std::move(plan)),
      policy_(std::move(policy)),
      kernels_(active_kernels()),
      batch_(*plan_, *policy_),
      layers_(*plan_, *policy_, kernels_, batch_) {
  if (policy_->time_exit) time_exits_.emplace(*policy_, *plan_, kernels_, batch_);
  reset(batch);
}

void StackState::reset(int batch) {
  clear_counters();
  restart(batch);
}

void StackState::restart(int batch) {
  try {
    set_size(batch);
  } catch (...) {
    set_size(0);
    throw;
  }
}

void StackState::set_size(int batch) {
  batch_.reset(batch);
  layers_.reset();
  if (time_exits_) time_exits_->reset();
  started_ = false;
}

void StackState::clear_counters() {
  timesteps_ = 0;
  batch_.clear_counters();
  if (layers_.depth_exits()) layers_.depth_exits()->clear_counters();
  if (time_exits_) time_exits_->clear_counters();
}

void StackState::add_counters(const StackState& other) {
  timesteps_ += other.timesteps_;
  batch_.add_counters(other.batch_);
  if (layers_.depth_exits()) layers_.depth_exits()->add_counters(*other.layers_.depth_exits());
  if (time_exits_) time_exits_->add_counters(*other.time_exits_);
}

StackState& StackState::helper(size_t number) {
  while (helpers_.size() <= number) helpers_.push_back(std::make_unique<StackState>(plan_, policy_, 0));
  return *helpers_[number];
}

bool StackState::finite(const Rows<const float>& x, const RowLayout& layout) const {
  const int width = plan_->input();
  for (int t = 0; t < layout.steps(); t++) {
    if (x.row == width) {
      if (!kernels_.finite(x.at(t, 0), size_t(layout.sizes[t]) * width)) return false;
      continue;
    }
    for (int b = 0; b < layout.sizes[t]; b++)
      if (!kernels_.finite(x.at(t, b), width)) return false;
  }
  return true;
}

bool StackState::load(const Rows<const float>& h, const Rows<const float>& c, bool check) {
  const int cells = int(plan_->layers().size()) * plan_->directions();
  for (int i = 0; check && i < cells; i++) {
    const Cell& of = *cell(i).cell;
    for (int b = 0; b < batch_.size(); b++)
      if (!kernels_.finite(h.at(i, b), of.output) || !kernels_.finite(c.at(i, b), of.hidden)) return false;
  }
  batch_.load(h, c);
  return true;
}

bool StackState::run_rows(const Rows<const float>& x, const Rows<float>& y, int steps, const int64_t* sizes, int first,
                          RunOptions options) {
  const FlushDenormals flushed;
  const int rows = batch_.size();
  const Rows<const float> in = (sizes ? in_.rows(sizes, steps, x.base, x.row) : x).from_row(first);
  const Rows<float> out = (sizes ? out_.rows(sizes, steps, y.base, y.row) : y).from_row(first);
  if (sizes) {
    sizes_.clear();
    for (int t = 0; t < steps && (!first || sizes[t] > first); t++)
      sizes_.push_back(std::min<int64_t>(sizes[t] - first, rows));
    steps = int(sizes_.size());
  }
  layout_.sizes.resize(steps);
  layout_.rows = nullptr;
  const int all = time_exits_ ? rows : batch_.active();
  for (int t = 0; t < steps; t++) layout_.sizes[t] = sizes ? int(sizes_[t]) : all;
  layout_.number_rows();
  if (options.check && !finite(in, layout_)) return false;
  timesteps_ += layout_.start.back();
  threads_of_last_run = options.threads > 1 ? layers_.threads(rows, steps, options.threads) : 1;
  if (time_exits_)
    time_exits_->run(layers_, in, out, steps, sizes ? sizes_.data() : nullptr, options.open_ended);
  else if (threads_of_last_run > 1)
    threads_of_last_run = layers_.run_together(in, out, layout_, threads_of_last_run);
  else
    layers_.run(in, out, layout_);
  layers_.count_steps(steps);
  started_ = started_ || steps > 0;
  return true;
}

bool StackState::step(const float* x, float* y) {
  const ptrdiff_t width = ptrdiff_t(plan_->output(int(plan_->layers().size()) - 1)) * plan_->directions();
  RunOptions options;
  options.check = options.open_ended = true;
  return run({x, 0, plan_->input()}, {y, 0, width}, 1, nullptr, options);
}

void StackState::ahead() {
  const FlushDenormals flushed;
  layers_.ahead();
}

void StackState::leave(const int64_t* rows, size_t n, const float* h) {
  const int width = plan_->output(int(plan_->layers().size()) - 1);
  const auto found = [&](int position) { return std::lower_bound(rows, rows + n, int64_t(batch_.row_at(position))); };
  const auto leaves = [&](int position) {
    const int64_t* at = found(position);
    return at != rows + n && *at == batch_.row_at(position);
  };
  for (int i = 0; i < batch_.active(); i++)
    if (leaves(i)) std::memcpy(batch_.top()[0].h_row(i), h + (found(i) - rows) * width, width * sizeof(float));
  batch_.top()[0].h_is_given();
  batch_.make_room();
  batch_.regroup([&](int i) { return !leaves(i); });
}

size_t StackState::bytes() const {
  size_t all = batch_.bytes() + layers_.bytes() + (time_exits_ ? time_exits_->bytes() : 0);
  for (const auto& helper : helpers_) all += helper->bytes();
  return all;
}

ExitCounts StackState::exit_counts() const {
  ExitCounts out;
  if (time_exits_) {
    out.checks = time_exits_->checks();
    out.exits = time_exits_->exits();
  }
  out.depth_checks.resize(plan_->layers().size());
  out.depth_exits.resize(plan_->layers().size());
  if (const auto& depth = layers_.depth_exits()) {
    out.exits += depth->sequences();
    out.depth_checks = depth->checks();
    out.depth_exits = depth->exits();
  }
  return out;
}

CellState& StackState::cell(int index) {
  const int directions = plan_->directions();
  return batch_.layers()[index / directions][index % directions];
}

void StackState::load_sent(Operand& operand, const float* sent) {
  alstm::load_sent(operand, batch_, kernels_, sent);
  batch_.forget_ahead();
  started_ = true;
}

void StackState::load_hold(CellState& state, const HoldArrays<const float, const int64_t>& in) {
  alstm::load_hold(state, batch_, kernels_, in);
  started_ = true;
}

void StackState::load_exit(const ExitState& state) {
  time_exits_->load(state);
  started_ = true;
}

}  // namespace alstm
