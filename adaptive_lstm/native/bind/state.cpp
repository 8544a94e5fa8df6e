// States: checks what Python asks of them, and forwards.
#include <algorithm>

#include "bind/bind.h"
#include "run/stack_state.h"

using namespace alstm;

namespace {

// One thread at a time may advance a state.
class Exclusive {
 public:
  explicit Exclusive(State& state) : state_(state) {
    if (state_.busy.exchange(true))
      throw std::runtime_error("this stream is being advanced by another thread; give every thread its own stream");
  }
  ~Exclusive() { state_.busy = false; }

 private:
  State& state_;
};

void check_columns(const Plan& plan, const Policy& policy) {
  if (policy.columns.empty()) return;
  if (policy.columns.size() != plan.layers().size())
    throw std::invalid_argument("the policy needs one entry per layer");
  for (size_t l = 0; l < plan.layers().size(); l++) {
    if (policy.columns[l].size() != plan.layers()[l].size())
      throw std::invalid_argument("the policy needs one entry per direction");
    for (size_t d = 0; d < policy.columns[l].size(); d++) {
      const Thresholds& t = policy.columns[l][d];
      const Direction& w = plan.layers()[l][d];
      if (!t.x.empty() && int(t.x.size()) != w.input)
        throw std::invalid_argument("x thresholds need one value per input column");
      if (!t.h.empty() && int(t.h.size()) != w.output)
        throw std::invalid_argument("h thresholds need one value per recurrent column");
      for (const auto* m : {t.x.empty() ? nullptr : w.w_ih.get(), t.h.empty() ? nullptr : w.w_hh.get()})
        if (m && m->view().format == Format::int8 && m->view().layout != Layout::columns)
          throw std::invalid_argument("thresholded int8 matrices must be packed with columns=True");
    }
  }
}

void check_maps(const std::vector<Affine>& maps, int rows, int cols) {
  for (const Affine& map : maps)
    if ((rows && map.rows() != rows) || map.cols() != cols) throw std::invalid_argument("a map does not fit the stack");
}

void check_leaving(const Plan& plan, const Policy& policy) {
  const int layers = int(plan.layers().size()), width = plan.output(0) * plan.directions();
  if (!policy.hold.empty() && int(policy.hold.size()) != layers)
    throw std::invalid_argument("the policy needs one entry per layer");
  if (policy.queue() && (plan.directions() > 1 || policy.depth))
    throw std::invalid_argument("queues need one direction, and no exits in depth");
  for (int l = 1; l < layers; l++)
    if ((policy.time || policy.depth || policy.queue()) && plan.output(l) != plan.output(0))
      throw std::invalid_argument("exits and queues need layers of one width");
  if (policy.time) {
    if (plan.directions() > 1 || policy.leaves_sequences())
      throw std::invalid_argument("exits in time need one direction, and no other sequences that leave");
    check_maps(policy.time->translations, width, layers * width);
    check_maps(policy.time->logits, 0, policy.time->translations.empty() ? width : layers * width);
  }
  if (!policy.depth) return;
  if (int(policy.depth->asks.size()) != layers - 1)
    throw std::invalid_argument("an exit in depth needs one entry per layer but the top");
  for (int l = 0; l + 1 < layers; l++) {
    check_maps({policy.depth->steps[l], policy.depth->finals[l]}, width, (l + 1) * width);
    if (policy.depth->head) check_maps({policy.depth->logits[l]}, 0, (l + 1) * width);
  }
}

std::shared_ptr<State> make_state(std::shared_ptr<Plan> plan, std::shared_ptr<Policy> policy, int batch) {
  if (batch < 0) throw std::invalid_argument("the batch size must not be negative");
  check_columns(*plan, *policy);
  check_leaving(*plan, *policy);
  return std::make_shared<State>(plan, policy, batch);
}

bool run(State& state, uintptr_t x, ptrdiff_t x_time, ptrdiff_t x_row, uintptr_t y, ptrdiff_t y_time, ptrdiff_t y_row,
         int steps, uintptr_t sizes, bool check, bool open_ended) {
  Exclusive guard(state);
  return state.run({reinterpret_cast<float*>(x), x_time, x_row}, {reinterpret_cast<float*>(y), y_time, y_row}, steps,
                   reinterpret_cast<const int64_t*>(sizes), check, open_ended);
}

// A whole run of a state that was reset, in one call, because calls from Python cost as much as a short sequence: from
// zeros or h_0 [L * D, B, P] and c_0 [L * D, B, H], which may be null together, to h_n and c_n of the same shapes.
bool forward(State& state, uintptr_t x, ptrdiff_t x_time, ptrdiff_t x_row, uintptr_t y, ptrdiff_t y_time,
             ptrdiff_t y_row, int steps, uintptr_t sizes, bool check, uintptr_t h_0, uintptr_t c_0, uintptr_t h_n,
             uintptr_t c_n) {
  Exclusive guard(state);
  if (h_0) state.load(reinterpret_cast<const float*>(h_0), reinterpret_cast<const float*>(c_0));
  if (!state.run({reinterpret_cast<float*>(x), x_time, x_row}, {reinterpret_cast<float*>(y), y_time, y_row}, steps,
                 reinterpret_cast<const int64_t*>(sizes), check, false))
    return false;
  state.store(reinterpret_cast<float*>(h_n), reinterpret_cast<float*>(c_n));
  return true;
}

// One step of a stream on contiguous x [B, I] and y [B, D * P].
bool step(State& state, uintptr_t x, uintptr_t y) {
  Exclusive guard(state);
  const Plan& plan = state.plan();
  const ptrdiff_t width = ptrdiff_t(plan.output(int(plan.layers().size()) - 1)) * plan.directions();
  return state.run({reinterpret_cast<float*>(x), 0, plan.input()}, {reinterpret_cast<float*>(y), 0, width}, 1, nullptr,
                   true, true);
}

void check_state_shapes(State& s, size_t hn, size_t cn) {
  size_t h = 0, c = 0;
  for (const auto& layer : s.plan().layers())
    for (const Direction& d : layer) h += size_t(s.batch()) * d.output, c += size_t(s.batch()) * d.hidden;
  if (hn != h || cn != c) throw std::invalid_argument("h or c has the wrong number of values for this state");
}

const Direction& check_layer(State& s, int l, int d) {
  if (l < 0 || l >= int(s.plan().layers().size()) || d < 0 || d >= s.plan().directions())
    throw std::invalid_argument("no such layer");
  return s.plan().layers()[l][d];
}

void check_sent(State& s, int l, int d, bool recurrent, size_t n) {
  const Direction& dir = check_layer(s, l, d);
  if (!s.delta(l, d, recurrent)) throw std::invalid_argument("this operand has no thresholds, so it remembers nothing");
  if (n != size_t(s.batch()) * (recurrent ? dir.output : dir.input))
    throw std::invalid_argument("wrong number of values");
}

template <class T>
T* values(const std::optional<Out<T, 1>>& array, size_t n) {
  if ((array ? array->size() : 0) != n) throw std::invalid_argument("wrong number of values");
  return array ? array->data() : nullptr;
}

using Floats = std::optional<Out<float, 1>>;
using Ints = std::optional<Out<int64_t, 1>>;

// All arrays flat; those that the layer does not remember are None. `put`: into the state, else out of it.
void held(State& s, int l, int d, bool put, Ints run, Floats gates, Floats x_used, Floats h_used, Floats queue,
          Ints queued) {
  Exclusive guard(s);
  const Direction& dir = check_layer(s, l, d);
  if (!s.policy().holds()) throw std::invalid_argument("this policy holds nothing");
  const Hold* hold = s.policy().decider(l);
  const size_t batch = size_t(s.batch()), cap = hold && hold->action == kQueueInput ? size_t(hold->cap) : 0;
  const State::HeldArrays arrays{values(x_used, hold ? batch * dir.input : 0),
                                 values(h_used, hold ? batch * dir.output : 0),
                                 values(run, batch),
                                 values(gates, batch * 4 * dir.hidden),
                                 values(queue, batch * cap * dir.input),
                                 values(queued, cap ? batch : 0)};
  if (!put) return s.store_held(l, d, arrays);
  for (size_t b = 0; cap && b < batch; b++)
    if (arrays.queued[b] < 0 || arrays.queued[b] > int64_t(cap))
      throw std::invalid_argument("a queue holds 0 to cap inputs");
  s.load_held(l, d, arrays);
}

// The same of an exit in time; done as bytes. Returns the timesteps so far.
int64_t left(State& s, bool put, int64_t time, Out<uint8_t, 1> done, Out<float, 1> final, Out<int64_t, 1> streak,
             Out<float, 1> past) {
  Exclusive guard(s);
  if (!s.policy().time) throw std::invalid_argument("this policy has no exit in time");
  const Left& now = s.left();
  if (done.size() != now.done.size() || final.size() != now.final.size() || streak.size() != now.streak.size() ||
      past.size() != now.past.size())
    throw std::invalid_argument("wrong number of values");
  if (put) {
    if (time < 0) throw std::invalid_argument("time must not be negative");
    Left given;
    given.time = time;
    given.done.assign(done.data(), done.data() + done.size());
    given.final.assign(final.data(), final.data() + final.size());
    given.streak.assign(streak.data(), streak.data() + streak.size());
    given.past.assign(past.data(), past.data() + past.size());
    s.load_left(given);
    return time;
  }
  std::copy(now.done.begin(), now.done.end(), done.data());
  std::copy(now.final.begin(), now.final.end(), final.data());
  std::copy(now.streak.begin(), now.streak.end(), streak.data());
  std::copy(now.past.begin(), now.past.end(), past.data());
  return now.time;
}

}  // namespace

void bind_state(nb::module_& m) {
  nb::class_<State>(m, "State")
      .def(nb::new_(&make_state), nb::arg("plan"), nb::arg("policy"), nb::arg("batch"))
      .def(
          "reset",
          [](State& s, int batch) {
            Exclusive guard(s);
            s.reset(batch);
          },
          nb::arg("batch"))
      .def(
          "load",
          [](State& s, Array<float, 3> h, Array<float, 3> c) {
            Exclusive guard(s);
            check_state_shapes(s, h.size(), c.size());
            s.load(h.data(), c.data());
          },
          nb::arg("h"), nb::arg("c"))
      .def(
          "store",
          [](State& s, Out<float, 3> h, Out<float, 3> c) {
            Exclusive guard(s);
            check_state_shapes(s, h.size(), c.size());
            s.store(h.data(), c.data());
          },
          nb::arg("h"), nb::arg("c"))
      .def(
          "load_sent",
          [](State& s, int l, int d, bool recurrent, Array<float, 2> v) {
            Exclusive guard(s);
            check_sent(s, l, d, recurrent, v.size());
            s.load_sent(l, d, recurrent, v.data());
          },
          nb::arg("layer"), nb::arg("direction"), nb::arg("recurrent"), nb::arg("sent"))
      .def(
          "store_sent",
          [](State& s, int l, int d, bool recurrent, Out<float, 2> v) {
            Exclusive guard(s);
            check_sent(s, l, d, recurrent, v.size());
            s.store_sent(l, d, recurrent, v.data());
          },
          nb::arg("layer"), nb::arg("direction"), nb::arg("recurrent"), nb::arg("sent"))
      .def("held", &held, nb::arg("layer"), nb::arg("direction"), nb::arg("put"), nb::arg("run"), nb::arg("gates"),
           nb::arg("x_used").none(), nb::arg("h_used").none(), nb::arg("queue").none(), nb::arg("queued").none())
      .def("left", &left, nb::arg("put"), nb::arg("time"), nb::arg("done"), nb::arg("final"), nb::arg("streak"),
           nb::arg("past"))
      .def("run", &run, nb::arg("x"), nb::arg("x_time"), nb::arg("x_row"), nb::arg("y"), nb::arg("y_time"),
           nb::arg("y_row"), nb::arg("steps"), nb::arg("sizes"), nb::arg("check"), nb::arg("open_ended"),
           nb::call_guard<nb::gil_scoped_release>())
      .def("forward", &forward, nb::arg("x"), nb::arg("x_time"), nb::arg("x_row"), nb::arg("y"),
           nb::arg("y_time"), nb::arg("y_row"), nb::arg("steps"), nb::arg("sizes"), nb::arg("check"), nb::arg("h_0"),
           nb::arg("c_0"), nb::arg("h_n"), nb::arg("c_n"), nb::call_guard<nb::gil_scoped_release>())
      .def("step", &step, nb::arg("x"), nb::arg("y"), nb::call_guard<nb::gil_scoped_release>())
      // [(columns of x sent, columns of h sent, row steps that ran, row steps that advanced)] per layer and direction
      .def("counters",
           [](State& s) {
             std::vector<std::tuple<int64_t, int64_t, int64_t, int64_t>> out;
             for (size_t l = 0; l < s.plan().layers().size(); l++)
               for (int d = 0; d < s.plan().directions(); d++) {
                 const DirectionState& state = s.direction(int(l), d);
                 out.emplace_back(state.sent_x, state.sent_h, state.ran, state.moved);
               }
             return out;
           })
      // (questions in time, rows that left, questions in depth and translated timesteps per layer)
      .def("exit_counters",
           [](State& s) {
             const ExitCounts& e = s.exits();
             return std::make_tuple(e.asked, e.left, e.asked_depth, e.left_depth);
           })
      .def("clear_counters",
           [](State& s) {
             Exclusive guard(s);
             s.clear_counters();
           })
      .def_prop_ro("batch", &State::batch);
}
