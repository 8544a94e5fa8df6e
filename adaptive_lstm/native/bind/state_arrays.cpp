#include "bind/state_arrays.h"

#include <algorithm>

#include "bind/turns.h"

namespace alstm {

namespace {

using Shape = std::vector<size_t>;

std::string shown(const Shape& shape) {
  std::string out = "[";
  for (size_t n : shape) out += (out.size() > 1 ? ", " : "") + std::to_string(n);
  return out + "]";
}

// The address of an array, which must have this shape.
template <class T>
T* at(const Values<T>& array, const Shape& shape, const char* name) {
  Shape got;
  for (size_t i = 0; array && i < array->ndim(); i++) got.push_back(array->shape(i));
  if (!array || got != shape)
    throw std::invalid_argument(std::string(name) + ": got " + (array ? "shape " + shown(got) : "None") +
                                ", expected shape " + shown(shape));
  return array->data();
}

template <class T>
T* absent(const Values<T>& array, const char* name) {
  if (array)
    throw std::invalid_argument(std::string(name) +
                                ": got an array, expected None: this policy remembers no such value");
  return nullptr;
}

void check_entries(size_t n, const StackState& state, const char* name) {
  if (n && n != size_t(state.cells()))
    throw std::invalid_argument(std::string(name) + ": got " + std::to_string(n) + " entries, expected none or " +
                                std::to_string(state.cells()) + " (one per layer and direction)");
}

void check_range(const int64_t* values, size_t n, int64_t least, int64_t most, const char* name) {
  for (size_t i = 0; i < n; i++)
    if (values[i] < least || values[i] > most)
      throw std::invalid_argument(std::string(name) + ": got " + std::to_string(values[i]) + ", expected " +
                                  std::to_string(least) + " to " + std::to_string(most));
}

// All of a cell's h or c. Layers may differ in width in a plan that was made by hand.
template <class T>
T* states_at(const Values<T>& array, const StackState& state, size_t batch, bool h) {
  const char* name = h ? "h" : "c";
  size_t cells = 0, total = 0, width = 0;
  for (const auto& layer : state.plan().layers())
    for (const Cell& cell : layer) {
      cells++;
      width = size_t(h ? cell.output : cell.hidden);
      total += width;
    }
  if (total == cells * width) return at(array, {cells, batch, width}, name);
  return at(array, {1, batch, total}, name);
}

template <class T>
std::vector<T*> sent_at(const std::vector<Values<T>>& arrays, StackState& state, size_t batch, bool x) {
  const char* name = x ? "sent x" : "sent h";
  std::vector<T*> out;
  check_entries(arrays.size(), state, name);
  for (size_t k = 0; k < arrays.size(); k++) {
    const Operand& operand = x ? state.cell(int(k)).x : state.cell(int(k)).recurrent;
    if (!operand.thresholded())
      out.push_back(absent(arrays[k], name));
    else
      out.push_back(arrays[k] ? at(arrays[k], {batch, size_t(operand.matrix->source_cols())}, name) : nullptr);
  }
  return out;
}

template <class Float, class Int>
HoldArrays<Float, Int> hold_at(const HoldValues<Float, Int>& values, const CellState& owner, size_t batch) {
  const auto& [x_used, h_used, run, gates, queue, queued] = values;
  const Hold* decider = owner.decider;
  const size_t input = size_t(owner.cell->input), output = size_t(owner.cell->output);
  const bool queues = decider && decider->action == kQueueInput;
  HoldArrays<Float, Int> out;
  out.x_used = decider ? at(x_used, {batch, input}, "x_used") : absent(x_used, "x_used");
  out.h_used = decider ? at(h_used, {batch, output}, "h_used") : absent(h_used, "h_used");
  out.run = at(run, {batch}, "run");
  out.gates = at(gates, {batch, size_t(4 * owner.cell->hidden)}, "gates");
  out.queue = queues ? at(queue, {batch, size_t(decider->cap), input}, "queue") : absent(queue, "queue");
  out.queued = queues ? at(queued, {batch}, "queued") : absent(queued, "queued");
  return out;
}

template <class Float, class Int>
std::vector<HoldArrays<Float, Int>> all_hold_at(const std::vector<HoldValues<Float, Int>>& hold, StackState& state,
                                                size_t batch) {
  require(hold.empty() || state.policy().holds(), "hold: got values, but this policy holds nothing");
  check_entries(hold.size(), state, "hold");
  std::vector<HoldArrays<Float, Int>> out;
  for (size_t k = 0; k < hold.size(); k++) out.push_back(hold_at(hold[k], state.cell(int(k)), batch));
  return out;
}

template <class Float, class Int, class Bool>
struct ExitArrays {
  Int* time;
  Bool* exited;
  Float* translation;
  Int* streak;
  Float* past;
};

template <class Float, class Int, class Bool>
ExitArrays<Float, Int, Bool> exit_at(const ExitValues<Float, Int, Bool>& values, const StackState& state,
                                     size_t batch) {
  require(state.policy().time_exit.has_value(), "exit: got values, but this policy has no exit in time");
  const auto& [time, exited, translation, streak, past] = values;
  const size_t width = size_t(state.plan().output(0));
  return {at(time, {batch}, "time"), at(exited, {batch}, "exited"), at(translation, {batch, width}, "translation"),
          at(streak, {batch}, "streak"), at(past, {batch, size_t(state.policy().time_exit->window), width}, "past")};
}

// The counts of a layer that are given for a batch.
void check_counts(const HoldArrays<const float, const int64_t>& in, const Hold* decider, size_t batch) {
  check_range(in.run, batch, -1, kMostCounted, "run");
  if (!in.queued) return;
  check_range(in.queued, batch, 0, decider->cap, "queued");
  for (size_t b = 0; b < batch; b++)
    check_range(in.queued + b, 1, 0, std::max<int64_t>(in.run[b], 0), "queued (at most the timesteps held, run)");
}

}  // namespace

bool read_state(const StackState& shared, Values<float> h, Values<float> c, const SentValues& sent_x,
                const SentValues& sent_h, const AllHoldValues& hold, const TimeExitValues& exit) {
  StackState& state = const_cast<StackState&>(shared);
  const Reading guard(state);
  const size_t batch = size_t(state.batch().size());
  float *h_out = states_at(h, state, batch, true), *c_out = states_at(c, state, batch, false);
  const auto x_out = sent_at(sent_x, state, batch, true), sent_h_out = sent_at(sent_h, state, batch, false);
  const auto hold_out = all_hold_at(hold, state, batch);
  state.store(h_out, c_out);
  for (size_t k = 0; k < x_out.size(); k++)
    if (x_out[k]) store_sent(state.cell(int(k)).x, state.batch(), x_out[k]);
  for (size_t k = 0; k < sent_h_out.size(); k++)
    if (sent_h_out[k]) store_sent(state.cell(int(k)).recurrent, state.batch(), sent_h_out[k]);
  for (size_t k = 0; k < hold_out.size(); k++) store_hold(state.cell(int(k)), state.batch(), hold_out[k]);
  if (!exit) return state.started();
  const auto out = exit_at(*exit, state, batch);
  const ExitState& now = state.exit_state();
  std::copy(now.time.begin(), now.time.end(), out.time);
  std::copy(now.exited.begin(), now.exited.end(), out.exited);
  std::copy(now.translation.begin(), now.translation.end(), out.translation);
  std::copy(now.streak.begin(), now.streak.end(), out.streak);
  std::copy(now.past.begin(), now.past.end(), out.past);
  return state.started();
}

void write_state(StackState& state, Values<const float> h, Values<const float> c, const GivenSentValues& sent_x,
                 const GivenSentValues& sent_h, const AllGivenHoldValues& hold, const GivenTimeExitValues& exit) {
  const Exclusive guard(state);
  require(h && h->ndim() == 3 && h->shape(1) <= size_t(kMostRows), "h: expected 3 dimensions, and at most 2^26 rows");
  const size_t batch = h->shape(1);
  const float *h_in = states_at(h, state, batch, true), *c_in = states_at(c, state, batch, false);
  const auto x_in = sent_at(sent_x, state, batch, true), sent_h_in = sent_at(sent_h, state, batch, false);
  const auto hold_in = all_hold_at(hold, state, batch);
  for (size_t k = 0; k < hold_in.size(); k++) check_counts(hold_in[k], state.cell(int(k)).decider, batch);
  ExitState exit_in;
  if (exit) {
    const auto in = exit_at(*exit, state, batch);
    check_range(in.time, batch, 0, kMostCounted, "time");
    check_range(in.streak, batch, 0, kMostCounted, "streak");
    exit_in.time.assign(in.time, in.time + batch);
    const uint8_t* exited = reinterpret_cast<const uint8_t*>(in.exited);  // a bool of numpy may be any byte
    for (size_t b = 0; b < batch; b++) exit_in.exited.push_back(exited[b] != 0);
    exit_in.streak.assign(in.streak, in.streak + batch);
    const size_t width = size_t(state.plan().output(0));
    exit_in.translation.assign(in.translation, in.translation + batch * width);
    exit_in.past.assign(in.past, in.past + batch * size_t(state.policy().time_exit->window) * width);
  }
  state.reset(int(batch));
  state.load(h_in, c_in);
  for (size_t k = 0; k < x_in.size(); k++)
    if (x_in[k]) state.load_sent(state.cell(int(k)).x, x_in[k]);
  for (size_t k = 0; k < sent_h_in.size(); k++)
    if (sent_h_in[k]) state.load_sent(state.cell(int(k)).recurrent, sent_h_in[k]);
  for (size_t k = 0; k < hold_in.size(); k++) state.load_hold(state.cell(int(k)), hold_in[k]);
  if (exit) state.load_exit(exit_in);
}

}  // namespace alstm
