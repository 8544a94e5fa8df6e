// States: checks what Python passes, and forwards.
#include "bind/bind.h"
#include "bind/counters.h"
#include "bind/policy_fits.h"
#include "bind/state_arrays.h"
#include "bind/turns.h"
#include "run/whole_batch.h"

using namespace alstm;

namespace {

void check_batch(int batch) { require(batch >= 0 && batch <= kMostRows, "the batch size must be 0 to 2^26"); }

std::shared_ptr<StackState> make_state(std::shared_ptr<Plan> plan, std::shared_ptr<Policy> policy, int batch) {
  check_batch(batch);
  check_fits(*plan, *policy);
  return std::make_shared<StackState>(plan, policy, batch);
}

template <class T>
T* at(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

// What can be known of addresses: they are there, and the numbers of rows alive [T] never grow.
void check_rows(int batch, uintptr_t x, uintptr_t y, int steps, const int64_t* sizes) {
  require(steps >= 0, "the number of timesteps must not be negative");
  require((x && y) || !steps || !batch, "x or y is a null address");
  int64_t most = batch;
  for (int t = 0; sizes && t < steps; most = sizes[t++])
    require(sizes[t] >= 0 && sizes[t] <= most, "sizes must be 0 to the batch size and never grow");
}

bool run(StackState& state, uintptr_t x, ptrdiff_t x_time, ptrdiff_t x_row, uintptr_t y, ptrdiff_t y_time,
         ptrdiff_t y_row, int steps, uintptr_t sizes, bool check, bool open_ended, int threads) {
  const Exclusive guard(state);
  check_rows(state.batch().size(), x, y, steps, at<const int64_t>(sizes));
  RunOptions options;
  options.check = check;
  options.open_ended = open_ended;
  options.threads = threads;
  return state.run({at<const float>(x), x_time, x_row}, {at<float>(y), y_time, y_row}, steps, at<const int64_t>(sizes),
                   options);
}

// A whole batch of `rows` sequences from a fresh start, in one call, because calls from Python cost as much as a short
// sequence: to contiguous h_n [L * D, B, P] and c_n [L * D, B, H], from zeros, or from h_0 [L * D, B] and c_0, whose
// cells and rows lie so far apart. block: rows that are run together; 0: what is fast. threads: how many may run it;
// `race` says whether they do, where it is given.
bool forward(StackState& state, int rows, uintptr_t x, ptrdiff_t x_time, ptrdiff_t x_row, uintptr_t y, ptrdiff_t y_time,
             ptrdiff_t y_row, int steps, uintptr_t sizes, bool check, uintptr_t h_n, uintptr_t c_n, uintptr_t h_0,
             ptrdiff_t h_cell, ptrdiff_t h_row, uintptr_t c_0, ptrdiff_t c_cell, ptrdiff_t c_row, int block,
             int threads, ThreadRace* race) {
  const Exclusive guard(state);
  check_batch(rows);
  require(block >= 0, "a block must not be negative");
  require(threads >= 1, "the number of threads must be at least 1");
  check_rows(rows, x, y, steps, at<const int64_t>(sizes));
  require(!h_0 == !c_0, "h_0 and c_0 are null together");
  require((h_n && c_n) || !rows, "h_n or c_n is a null address");
  const Plan& plan = state.plan();
  const ptrdiff_t output = plan.output(0), hidden = plan.layers()[0][0].hidden;
  for (const auto& layer : plan.layers())
    require(layer[0].output == output && layer[0].hidden == hidden, "whole batches need layers of one width");
  const WholeBatch batch{{at<const float>(x), x_time, x_row},
                         {at<float>(y), y_time, y_row},
                         rows,
                         steps,
                         at<const int64_t>(sizes),
                         {at<const float>(h_0), h_cell, h_row},
                         {at<const float>(c_0), c_cell, c_row},
                         {at<float>(h_n), rows * output, output},
                         {at<float>(c_n), rows * hidden, hidden}};
  if (block) return run_whole(state, batch, block, check, threads);
  return run_fastest(state, batch, check, race, threads);
}

// One step of a stream on contiguous x [B, I] and y [B, D * P].
bool step(StackState& state, uintptr_t x, uintptr_t y) {
  const Exclusive guard(state);
  require((x && y) || !state.batch().size(), "x or y is a null address");
  return state.step(at<const float>(x), at<float>(y));
}

// What is certain of the next step, in a stream's idle time.
void ahead(StackState& state) {
  const Exclusive guard(state);
  require(state.plan().directions() == 1, "only one direction has a next step");
  state.ahead();
}

// Rows [n] of a batch, ascending.
void check_ascending(const int64_t* rows, size_t n, int batch) {
  for (size_t i = 0; i < n; i++)
    require(rows[i] >= (i ? rows[i - 1] + 1 : 0) && rows[i] < batch, "rows must ascend within the batch");
}

// That no rows left as Python decided: such a batch advances as a whole.
void check_complete(const StackState& state) {
  require(state.policy().time_exit || state.batch().active() == state.batch().size(), "rows have left this batch");
}

// One step of rows [n] alone, ascending, on contiguous x [n, I] and y [n, D * P].
bool step_rows(StackState& state, uintptr_t rows, int n, uintptr_t x, uintptr_t y) {
  const Exclusive guard(state);
  require(n >= 0 && ((rows && x && y) || !n), "rows, x or y is a null address");
  require(!state.policy().exits_sequences() && state.plan().directions() == 1, "this policy runs whole sequences");
  check_ascending(at<const int64_t>(rows), size_t(n), state.batch().size());
  check_complete(state);
  return state.step_rows(at<const int64_t>(rows), n, at<const float>(x), at<float>(y));
}

void check_same_kind(const StackState& state, const StackState& other) {
  require(&state != &other && &state.plan() == &other.plan() && &state.policy() == &other.policy(),
          "rows are taken from another state of the same plan and policy");
}

// A run of all rows that is open ended, where some start anew before some timesteps: starts [T, B]. fresh: one row of a
// new sequence.
bool run_starting(StackState& state, uintptr_t x, ptrdiff_t x_time, ptrdiff_t x_row, uintptr_t y, ptrdiff_t y_time,
                  ptrdiff_t y_row, int steps, uintptr_t starts, StackState& fresh) {
  check_same_kind(state, fresh);
  const Exclusive guard(state), guard_fresh(fresh);
  check_rows(state.batch().size(), x, y, steps, nullptr);
  require(starts || !steps || !state.batch().size(), "starts is a null address");
  require(fresh.batch().size() == 1, "fresh must be of one row");
  require(!state.policy().exits_sequences() && state.plan().directions() == 1, "this policy runs whole sequences");
  check_complete(state);
  RunOptions options;
  options.check = options.open_ended = true;
  return state.run_starting({at<const float>(x), x_time, x_row}, {at<float>(y), y_time, y_row}, steps,
                            at<const uint8_t>(starts), fresh, options);
}

// Rows `to` become rows `from` of another state of the same stack and policy, bit for bit.
void take_rows(StackState& state, Array<int64_t, 1> to, StackState& other, Array<int64_t, 1> from) {
  check_same_kind(state, other);
  const Exclusive guard(state), guard_other(other);
  require(to.size() == from.size(), "to and from must be of one length");
  for (size_t i = 0; i < to.size(); i++)
    require(to.data()[i] >= 0 && to.data()[i] < state.batch().size() && from.data()[i] >= 0 &&
                from.data()[i] < other.batch().size(),
            "rows must lie within the batch");
  check_complete(state);
  check_complete(other);
  state.take_rows(to.data(), other, from.data(), int(to.size()));
}

void reset(StackState& state, int batch) {
  const Exclusive guard(state);
  check_batch(batch);
  state.reset(batch);
}

// h [L * D, B, P] alone, for the checks that Python makes.
void store_h(const StackState& state, Out<float, 3> h) {
  const Reading guard(state);
  size_t want = 0;
  for (const auto& layer : state.plan().layers())
    for (const Cell& cell : layer) want += size_t(state.batch().size()) * cell.output;
  require(h.size() == want, "h has the wrong number of values for this state");
  state.batch().store_h(h.data());
}

// Rows [n], ascending, exit with h [n, P] of the top layer, as Python has decided.
void leave(StackState& state, Array<int64_t, 1> rows, Array<float, 2> h) {
  const Exclusive guard(state);
  require(!state.policy().time_exit && !state.policy().exits_sequences() && state.plan().directions() == 1,
          "this policy decides on its own exits");
  const int top = int(state.plan().layers().size()) - 1;
  require(h.shape(0) == rows.size() && h.shape(1) == size_t(state.plan().output(top)), "h must be [rows, P]");
  check_ascending(rows.data(), rows.size(), state.batch().size());
  state.leave(rows.data(), rows.size(), h.data());
}

void clear_counters(StackState& state) {
  const Exclusive guard(state);
  state.clear_counters();
}

// Which rows have exited in time [B].
std::vector<bool> exited(const StackState& state) {
  const Reading guard(state);
  if (!state.policy().time_exit) return std::vector<bool>(size_t(state.batch().size()));
  const std::vector<uint8_t>& rows = state.exit_state().exited;
  return {rows.begin(), rows.end()};
}

int batch_of(const StackState& state) {
  const Reading guard(state);
  return state.batch().size();
}

size_t bytes_of(const StackState& state) {
  const Reading guard(state);
  return state.bytes();
}

}  // namespace

void bind_state(nb::module_& m) {
  nb::class_<ThreadRace>(m, "ThreadRace")
      .def(nb::new_([] { return std::make_shared<ThreadRace>(); }))
      .def("turn", &ThreadRace::turn, nb::arg("rows"), nb::arg("steps"), nb::arg("most"))
      .def("served", &ThreadRace::served, nb::arg("rows"), nb::arg("steps"), nb::arg("threads"), nb::arg("seconds"));
  nb::class_<StackState>(m, "State")
      .def(nb::new_(&make_state), nb::arg("plan"), nb::arg("policy"), nb::arg("batch"))
      .def("reset", &reset, nb::arg("batch"))
      .def("read", &read_state, nb::arg("h").noconvert(), nb::arg("c").noconvert(), nb::arg("sent_x").noconvert(),
           nb::arg("sent_h").noconvert(), nb::arg("hold").noconvert(), nb::arg("time_exit").noconvert().none())
      .def("write", &write_state, nb::arg("h").noconvert(), nb::arg("c").noconvert(), nb::arg("sent_x").noconvert(),
           nb::arg("sent_h").noconvert(), nb::arg("hold").noconvert(), nb::arg("time_exit").noconvert().none())
      .def("run", &run, nb::arg("x"), nb::arg("x_time"), nb::arg("x_row"), nb::arg("y"), nb::arg("y_time"),
           nb::arg("y_row"), nb::arg("steps"), nb::arg("sizes") = 0, nb::kw_only(), nb::arg("check"),
           nb::arg("open_ended"), nb::arg("threads") = 1, nb::call_guard<nb::gil_scoped_release>())
      .def("run_starting", &run_starting, nb::arg("x"), nb::arg("x_time"), nb::arg("x_row"), nb::arg("y"),
           nb::arg("y_time"), nb::arg("y_row"), nb::arg("steps"), nb::arg("starts"), nb::arg("fresh"),
           nb::call_guard<nb::gil_scoped_release>())
      .def("forward", &forward, nb::arg("rows"), nb::arg("x"), nb::arg("x_time"), nb::arg("x_row"), nb::arg("y"),
           nb::arg("y_time"), nb::arg("y_row"), nb::arg("steps"), nb::arg("sizes"), nb::arg("check"), nb::arg("h_n"),
           nb::arg("c_n"), nb::arg("h_0") = 0, nb::arg("h_cell") = 0, nb::arg("h_row") = 0, nb::arg("c_0") = 0,
           nb::arg("c_cell") = 0, nb::arg("c_row") = 0, nb::arg("block") = 0, nb::arg("threads") = 1,
           nb::arg("race").none() = nb::none(), nb::call_guard<nb::gil_scoped_release>())
      .def("step", &step, nb::arg("x"), nb::arg("y"), nb::call_guard<nb::gil_scoped_release>())
      .def("ahead", &ahead, nb::call_guard<nb::gil_scoped_release>())
      .def("step_rows", &step_rows, nb::arg("rows"), nb::arg("n"), nb::arg("x"), nb::arg("y"),
           nb::call_guard<nb::gil_scoped_release>())
      .def("take_rows", &take_rows, nb::arg("to").noconvert(), nb::arg("other"), nb::arg("from_").noconvert())
      .def("store_h", &store_h, nb::arg("h").noconvert())
      .def("leave", &leave, nb::arg("rows").noconvert(), nb::arg("h").noconvert())
      .def("counters", &counters)
      .def(
          "counted",
          [](const StackState& state, nb::object together, int64_t timesteps) {
            return Counted(state, together, timesteps);
          },
          nb::arg("together"), nb::arg("timesteps"))
      .def("clear_counters", &clear_counters)
      .def("exited", &exited)
      .def_prop_ro("bytes", &bytes_of)
      .def_prop_ro("threads", [](const StackState& state) { return state.threads_of_last_run; })
      .def_prop_ro("batch", &batch_of);
}
