// States: checks what Python passes, and forwards.
#include <algorithm>

#include "bind/bind.h"
#include "run/stack_state.h"

using namespace alstm;

namespace {

// One thread at a time may advance a state.
class Exclusive {
 public:
  explicit Exclusive(StackState& state) : state_(state) {
    if (state_.busy.exchange(true))
      throw std::runtime_error("this stream is being advanced by another thread; give every thread its own stream");
  }
  ~Exclusive() { state_.busy = false; }

 private:
  StackState& state_;
};

void check_operand(const Buffer<float>& thresholds, const PackedMatrix& matrix, const char* wrong_size) {
  if (thresholds.empty()) return;
  require(int(thresholds.size()) == matrix.source_cols(), wrong_size);
  require(matrix.view().format != Format::int8 || matrix.view().layout == Layout::columns,
          "thresholded int8 matrices must be packed with columns=True");
}

void check_columns(const Plan& plan, const Policy& policy) {
  if (policy.columns.empty()) return;
  require(policy.columns.size() == plan.layers().size(), "the policy needs one entry per layer");
  for (size_t l = 0; l < plan.layers().size(); l++) {
    require(policy.columns[l].size() == plan.layers()[l].size(), "the policy needs one entry per direction");
    for (size_t d = 0; d < policy.columns[l].size(); d++) {
      const Thresholds& thresholds = policy.columns[l][d];
      const Cell& cell = plan.layers()[l][d];
      check_operand(thresholds.x, *cell.w_ih, "x thresholds need one value per input column");
      check_operand(thresholds.h, *cell.w_hh, "h thresholds need one value per recurrent column");
    }
  }
}

void check_maps(const std::vector<Affine>& maps, int rows, int cols) {
  for (const Affine& map : maps)
    require((!rows || map.rows() == rows) && map.cols() == cols, "a map does not fit the stack");
}

void check_time_exit(const Plan& plan, const Policy& policy) {
  const TimeExit& exit = *policy.time_exit;
  const int width = plan.output(0), all = int(plan.layers().size()) * width;
  require(plan.directions() == 1 && !policy.exits_sequences(),
          "exits in time need one direction, and no exits of whole sequences in depth");
  check_maps(exit.translations, width, all);
  check_maps(exit.logits, 0, exit.translations.empty() ? width : all);
}

void check_depth_exit(const Plan& plan, const DepthExit& exit) {
  const int layers = int(plan.layers().size()), width = plan.output(0) * plan.directions();
  require(int(exit.checks.size()) == layers - 1, "an exit in depth needs one entry per layer but the top");
  for (int l = 0; l + 1 < layers; l++) {
    check_maps({exit.steps[l], exit.finals[l]}, width, (l + 1) * width);
    if (exit.head) check_maps({exit.logits[l]}, 0, (l + 1) * width);
  }
}

std::shared_ptr<StackState> make_state(std::shared_ptr<Plan> plan, std::shared_ptr<Policy> policy, int batch) {
  require(batch >= 0, "the batch size must not be negative");
  check_columns(*plan, *policy);
  const int layers = int(plan->layers().size());
  require(policy->hold.empty() || int(policy->hold.size()) == layers, "the policy needs one entry per layer");
  require(!policy->queue() || (plan->directions() == 1 && !policy->depth_exit),
          "queues need one direction, and no exits in depth");
  if (policy->time_exit || policy->depth_exit || policy->queue())
    for (int l = 1; l < layers; l++)
      require(plan->output(l) == plan->output(0), "exits and queues need layers of one width");
  if (policy->time_exit) check_time_exit(*plan, *policy);
  if (policy->depth_exit) check_depth_exit(*plan, *policy->depth_exit);
  return std::make_shared<StackState>(plan, policy, batch);
}

template <class T>
T* at(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

bool run(StackState& state, uintptr_t x, ptrdiff_t x_time, ptrdiff_t x_row, uintptr_t y, ptrdiff_t y_time,
         ptrdiff_t y_row, int steps, uintptr_t sizes, bool check, bool open_ended) {
  Exclusive guard(state);
  RunOptions options;
  options.check = check;
  options.open_ended = open_ended;
  return state.run({at<const float>(x), x_time, x_row}, {at<float>(y), y_time, y_row}, steps, at<const int64_t>(sizes),
                   options);
}

// A whole run of a state that was reset, in one call, because calls from Python cost as much as a short sequence: from
// zeros or h_0 [L * D, B, P] and c_0 [L * D, B, H], which may be null together, to h_n and c_n of the same shapes.
bool forward(StackState& state, uintptr_t x, ptrdiff_t x_time, ptrdiff_t x_row, uintptr_t y, ptrdiff_t y_time,
             ptrdiff_t y_row, int steps, uintptr_t sizes, bool check, uintptr_t h_0, uintptr_t c_0, uintptr_t h_n,
             uintptr_t c_n) {
  Exclusive guard(state);
  RunOptions options;
  options.check = check;
  if (h_0) state.load(at<const float>(h_0), at<const float>(c_0));
  if (!state.run({at<const float>(x), x_time, x_row}, {at<float>(y), y_time, y_row}, steps, at<const int64_t>(sizes),
                 options))
    return false;
  state.store(at<float>(h_n), at<float>(c_n));
  return true;
}

// One step of a stream on contiguous x [B, I] and y [B, D * P].
bool step(StackState& state, uintptr_t x, uintptr_t y) {
  Exclusive guard(state);
  return state.step(at<const float>(x), at<float>(y));
}

void check_state_shapes(const StackState& state, size_t h, size_t c) {
  const size_t batch = size_t(state.batch().size());
  size_t want_h = 0, want_c = 0;
  for (const auto& layer : state.plan().layers())
    for (const Cell& cell : layer) {
      want_h += batch * cell.output;
      want_c += batch * cell.hidden;
    }
  require(h == want_h && c == want_c, "h or c has the wrong number of values for this state");
}

void reset(StackState& state, int batch) {
  Exclusive guard(state);
  state.reset(batch);
}

void load(StackState& state, Array<float, 3> h, Array<float, 3> c) {
  Exclusive guard(state);
  check_state_shapes(state, h.size(), c.size());
  state.load(h.data(), c.data());
}

void store(StackState& state, Out<float, 3> h, Out<float, 3> c) {
  Exclusive guard(state);
  check_state_shapes(state, h.size(), c.size());
  state.store(h.data(), c.data());
}

CellState& cell_of(StackState& state, int cell) {
  require(cell >= 0 && cell < int(state.plan().layers().size()) * state.plan().directions(), "no such cell");
  return state.cell(cell);
}

// The thresholded operand "x" or "h" of a cell, of which `values` floats are exchanged.
Operand& operand_of(StackState& state, int cell, const std::string& name, size_t values) {
  CellState& owner = cell_of(state, cell);
  require(name == "x" || name == "h", "operand must be x or h");
  Operand& operand = name == "x" ? owner.x : owner.recurrent;
  require(operand.thresholded(), "this operand has no thresholds, so it remembers nothing");
  require(values == size_t(state.batch().size()) * operand.matrix->source_cols(), "wrong number of values");
  return operand;
}

void load_sent_checked(StackState& state, int cell, const std::string& operand, Array<float, 2> sent) {
  Exclusive guard(state);
  state.load_sent(operand_of(state, cell, operand, sent.size()), sent.data());
}

void store_sent_checked(StackState& state, int cell, const std::string& operand, Out<float, 2> sent) {
  Exclusive guard(state);
  store_sent(operand_of(state, cell, operand, sent.size()), state.batch(), sent.data());
}

template <class T>
using Flat = std::optional<Out<T, 1>>;

template <class T>
T* values(const Flat<T>& array, size_t n) {
  require((array ? array->size() : 0) == n, "wrong number of values");
  return array ? array->data() : nullptr;
}

// All arrays are flat; those that the layer does not remember are None.
template <class Float, class Int>
HoldArrays<Float, Int> hold_arrays(const StackState& state, const CellState& owner, Flat<Int> run, Flat<Float> gates,
                                   Flat<Float> x_used, Flat<Float> h_used, Flat<Float> queue, Flat<Int> queued) {
  require(state.policy().holds(), "this policy holds nothing");
  const Hold* decider = owner.decider;
  const Cell& cell = *owner.cell;
  const size_t batch = size_t(state.batch().size());
  const size_t cap = decider && decider->action == kQueueInput ? size_t(decider->cap) : 0;
  HoldArrays<Float, Int> out;
  out.x_used = values(x_used, decider ? batch * cell.input : 0);
  out.h_used = values(h_used, decider ? batch * cell.output : 0);
  out.run = values(run, batch);
  out.gates = values(gates, batch * 4 * cell.hidden);
  out.queue = values(queue, batch * cap * cell.input);
  out.queued = values(queued, cap ? batch : 0);
  return out;
}

void store_hold_checked(StackState& state, int cell, Flat<int64_t> run, Flat<float> gates, Flat<float> x_used,
                        Flat<float> h_used, Flat<float> queue, Flat<int64_t> queued) {
  Exclusive guard(state);
  const CellState& owner = cell_of(state, cell);
  store_hold(owner, state.batch(), hold_arrays(state, owner, run, gates, x_used, h_used, queue, queued));
}

void load_hold_checked(StackState& state, int cell, Flat<const int64_t> run, Flat<const float> gates,
                       Flat<const float> x_used, Flat<const float> h_used, Flat<const float> queue,
                       Flat<const int64_t> queued) {
  Exclusive guard(state);
  CellState& owner = cell_of(state, cell);
  const auto in = hold_arrays(state, owner, run, gates, x_used, h_used, queue, queued);
  for (int b = 0; in.queued && b < state.batch().size(); b++)
    require(in.queued[b] >= 0 && in.queued[b] <= owner.decider->cap, "a queue holds 0 to cap inputs");
  state.load_hold(owner, in);
}

const ExitState& check_exit(const StackState& state, size_t exited, size_t translation, size_t streak, size_t past) {
  require(state.policy().time_exit.has_value(), "this policy has no exit in time");
  const ExitState& now = state.exit_state();
  require(exited == now.exited.size() && translation == now.translation.size() && streak == now.streak.size() &&
              past == now.past.size(),
          "wrong number of values");
  return now;
}

// Returns the timesteps so far. All arrays are flat, `exited` as bytes.
int64_t store_exit(StackState& state, Out<uint8_t, 1> exited, Out<float, 1> translation, Out<int64_t, 1> streak,
                   Out<float, 1> past) {
  Exclusive guard(state);
  const ExitState& now = check_exit(state, exited.size(), translation.size(), streak.size(), past.size());
  std::copy(now.exited.begin(), now.exited.end(), exited.data());
  std::copy(now.translation.begin(), now.translation.end(), translation.data());
  std::copy(now.streak.begin(), now.streak.end(), streak.data());
  std::copy(now.past.begin(), now.past.end(), past.data());
  return now.time;
}

void load_exit(StackState& state, int64_t time, Array<uint8_t, 1> exited, Array<float, 1> translation,
               Array<int64_t, 1> streak, Array<float, 1> past) {
  Exclusive guard(state);
  check_exit(state, exited.size(), translation.size(), streak.size(), past.size());
  require(time >= 0, "time must not be negative");
  ExitState given;
  given.time = time;
  given.exited.assign(exited.data(), exited.data() + exited.size());
  given.translation.assign(translation.data(), translation.data() + translation.size());
  given.streak.assign(streak.data(), streak.data() + streak.size());
  given.past.assign(past.data(), past.data() + past.size());
  state.load_exit(given);
}

// Per cell: columns of x sent, columns of h sent, row steps that ran, row steps that advanced.
std::vector<std::tuple<int64_t, int64_t, int64_t, int64_t>> counters(const StackState& state) {
  std::vector<std::tuple<int64_t, int64_t, int64_t, int64_t>> out;
  for (const auto& layer : state.batch().layers())
    for (const CellState& cell : layer) out.emplace_back(cell.x.sent, cell.recurrent.sent, cell.ran, cell.advanced);
  return out;
}

// Exit checks in time, rows that exited, and per layer exit checks in depth and translated timesteps.
auto exit_counters(const StackState& state) {
  const ExitCounts counts = state.exit_counts();
  return std::make_tuple(counts.checks, counts.exits, counts.depth_checks, counts.depth_exits);
}

void clear_counters(StackState& state) {
  Exclusive guard(state);
  state.clear_counters();
}

}  // namespace

void bind_state(nb::module_& m) {
  nb::class_<StackState>(m, "State")
      .def(nb::new_(&make_state), nb::arg("plan"), nb::arg("policy"), nb::arg("batch"))
      .def("reset", &reset, nb::arg("batch"))
      .def("load", &load, nb::arg("h"), nb::arg("c"))
      .def("store", &store, nb::arg("h"), nb::arg("c"))
      .def("load_sent", &load_sent_checked, nb::arg("cell"), nb::arg("operand"), nb::arg("sent"))
      .def("store_sent", &store_sent_checked, nb::arg("cell"), nb::arg("operand"), nb::arg("sent"))
      .def("load_hold", &load_hold_checked, nb::arg("cell"), nb::arg("run"), nb::arg("gates"), nb::arg("x_used").none(),
           nb::arg("h_used").none(), nb::arg("queue").none(), nb::arg("queued").none())
      .def("store_hold", &store_hold_checked, nb::arg("cell"), nb::arg("run"), nb::arg("gates"),
           nb::arg("x_used").none(), nb::arg("h_used").none(), nb::arg("queue").none(), nb::arg("queued").none())
      .def("load_exit", &load_exit, nb::arg("time"), nb::arg("exited"), nb::arg("translation"), nb::arg("streak"),
           nb::arg("past"))
      .def("store_exit", &store_exit, nb::arg("exited"), nb::arg("translation"), nb::arg("streak"), nb::arg("past"))
      .def("run", &run, nb::arg("x"), nb::arg("x_time"), nb::arg("x_row"), nb::arg("y"), nb::arg("y_time"),
           nb::arg("y_row"), nb::arg("steps"), nb::arg("sizes") = 0, nb::kw_only(), nb::arg("check"),
           nb::arg("open_ended"), nb::call_guard<nb::gil_scoped_release>())
      .def("forward", &forward, nb::arg("x"), nb::arg("x_time"), nb::arg("x_row"), nb::arg("y"), nb::arg("y_time"),
           nb::arg("y_row"), nb::arg("steps"), nb::arg("sizes"), nb::arg("check"), nb::arg("h_0"), nb::arg("c_0"),
           nb::arg("h_n"), nb::arg("c_n"), nb::call_guard<nb::gil_scoped_release>())
      .def("step", &step, nb::arg("x"), nb::arg("y"), nb::call_guard<nb::gil_scoped_release>())
      .def("counters", &counters)
      .def("exit_counters", &exit_counters)
      .def("clear_counters", &clear_counters)
      .def_prop_ro("started", &StackState::started)
      .def_prop_ro("batch", [](const StackState& state) { return state.batch().size(); });
}
