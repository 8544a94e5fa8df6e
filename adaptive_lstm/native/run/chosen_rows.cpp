// Steps and copies of chosen rows of a batch, in place: the others are not looked at.
#include <algorithm>
#include <cstring>

#include "cpu/flush_denormals.h"
#include "run/stack_state.h"

namespace alstm {

namespace {

struct Bytes {
  uint8_t* data;
  size_t row;
};

// Where the rows of everything that a cell remembers lie, in a fixed order.
void list_arrays(CellState& cell, std::vector<Bytes>& out) {
  const size_t rows = size_t(cell.rows());
  out.clear();
  cell.each_array([&](auto& array) {
    out.push_back({reinterpret_cast<uint8_t*>(array.data()), array.size() / rows * sizeof(array[0])});
  });
}

template <class T>
void copy_row(T& to, size_t to_row, const T& from, size_t from_row, size_t width) {
  std::copy_n(from.data() + from_row * width, width, to.data() + to_row * width);
}

}  // namespace

void Batch::take(int to, const Batch& other, int from) {
  std::vector<Bytes> own, theirs;
  for (size_t l = 0; l < layers_.size(); l++)
    for (size_t d = 0; d < layers_[l].size(); d++) {
      CellState& mine = layers_[l][d];
      CellState& source = const_cast<CellState&>(other.layers_[l][d]);
      list_arrays(mine, own);
      list_arrays(source, theirs);
      for (size_t i = 0; i < own.size(); i++)
        if (own[i].row) std::memcpy(own[i].data + to * own[i].row, theirs[i].data + from * own[i].row, own[i].row);
      mine.may_exceed |= source.may_exceed;
      mine.ahead.ready = false;
    }
  loaded_ |= other.loaded_;
}

void TimeExits::take(int to, const TimeExits& other, int from) {
  const ExitState& source = other.state_;
  state_.time[to] = source.time[from];
  state_.exited[to] = source.exited[from];
  state_.streak[to] = source.streak[from];
  copy_row(state_.translation, size_t(to), source.translation, size_t(from), size_t(output_));
  copy_row(state_.past, size_t(to), source.past, size_t(from), size_t(exit_.window) * output_);
}

void StackState::put_in_order() {
  if (time_exits_) return time_exits_->put_in_order();
  batch_.restore_constants();  // as there
  batch_.rejoin();
}

bool StackState::step_rows(const int64_t* rows, int n, const float* x, float* y) {
  const FlushDenormals flushed;
  const ptrdiff_t input = plan_->input();
  const ptrdiff_t width = ptrdiff_t(plan_->output(int(plan_->layers().size()) - 1)) * plan_->directions();
  if (!kernels_.finite(x, size_t(n) * size_t(input))) return false;
  if (!n) return true;
  put_in_order();
  layers_.make_room_for_chosen();
  chosen_.assign(rows, rows + n);
  const Rows<const float> in{x, 0, input};
  const Rows<float> out{y, 0, width};
  if (time_exits_) {
    time_exits_->run_chosen(layers_, chosen_.data(), n, n, in, out);
  } else {
    layout_.sizes.assign(1, n);
    layout_.number_rows();
    layout_.rows = chosen_.data();
    layers_.run(in, out, layout_);
    layout_.rows = nullptr;
  }
  layers_.count_steps(1);
  timesteps_ += n;
  started_ = true;
  return true;
}

bool StackState::run_starting(const Rows<const float>& x, const Rows<float>& y, int steps, const uint8_t* starts,
                              StackState& fresh, RunOptions options) {
  const int rows = batch_.size();
  layout_.sizes.assign(size_t(steps), rows);
  if (options.check && !finite(x, layout_)) return false;
  options.check = false;
  const auto start = [&](int t) { return starts + ptrdiff_t(t) * rows; };
  const auto any = [&](int t) { return std::any_of(start(t), start(t) + rows, [](uint8_t yes) { return yes; }); };
  const int64_t first = 0;
  for (int begin = 0, end; begin < steps; begin = end) {
    for (int64_t b = 0; b < rows; b++)
      if (start(begin)[b]) take_rows(&b, fresh, &first, 1);
    for (end = begin + 1; end < steps && !any(end);) end++;
    run(x.from_time(begin), y.from_time(begin), end - begin, nullptr, options);
  }
  return true;
}

void StackState::take_rows(const int64_t* to, StackState& other, const int64_t* from, int n) {
  put_in_order();
  other.put_in_order();
  for (int i = 0; i < n; i++) {
    batch_.take(int(to[i]), other.batch_, int(from[i]));
    if (time_exits_) time_exits_->take(int(to[i]), *other.time_exits_, int(from[i]));
  }
  started_ |= other.started_;
}

}  // namespace alstm
