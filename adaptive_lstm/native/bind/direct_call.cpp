// A call of an LSTM or of an LSTM cell as one native entry: it checks what may have changed since the weights were
// packed, reads torch's tensors, runs, and makes the results. What surrounds a short sequence in Python takes longer
// than the sequence.
#include <array>
#include <memory>

#include "bind/counters.h"
#include "bind/given.h"
#include "bind/turns.h"
#include "pack/contents.h"
#include "run/whole_batch.h"

using namespace alstm;

namespace {

PyObject* item(nb::handle dict, const nb::object& name) { return PyDict_GetItemWithError(dict.ptr(), name.ptr()); }

// A weight as it was when it was packed. version: how often torch had counted a write; negative: it counts none.
struct Weight {
  nb::object name, tensor;
  uintptr_t address;
  int64_t version;
  const char* inside;  // an address within torch's own object; only ever prefetched

  // Between two calls the weights of the run push these out of the caches.
  void prefetch() const {
    __builtin_prefetch(tensor.ptr());
    for (int line = -1; line <= 1; line++) __builtin_prefetch(inside + 64 * line);
  }
};
using Weights = std::vector<std::tuple<nb::object, nb::object, uintptr_t, int64_t>>;

// The idle states of a stack, a list that Python shares; how many of what size are kept.
struct Idle {
  nb::object states;
  size_t most, most_bytes;
  nb::handle type = nb::type<StackState>();
};

// A state of a plan out of those, which it returns to; none if the list is empty.
class Lent {
 public:
  Lent(const Idle& idle, const Plan& plan) : idle_(idle) {
    const Py_ssize_t n = PyList_Size(idle.states.ptr());
    if (n <= 0) return;
    const nb::object last = nb::borrow(PyList_GetItem(idle.states.ptr(), n - 1));
    if (last.type().ptr() != idle.type.ptr() || !nb::inst_ready(last) ||
        &nb::inst_ptr<StackState>(last)->plan() != &plan)
      throw std::invalid_argument("idle must hold states of the plan");
    state_ = last;
    if (PyList_SetSlice(idle.states.ptr(), n - 1, n, nullptr)) throw nb::python_error();
  }
  ~Lent() {
    if (!*this || size_t(PyList_Size(idle_.states.ptr())) >= idle_.most || get().bytes() > idle_.most_bytes) return;
    if (PyList_Append(idle_.states.ptr(), state_.ptr())) PyErr_Clear();  // another is made when it is needed
  }
  Lent(const Lent&) = delete;

  explicit operator bool() const { return state_.is_valid(); }
  StackState& get() const { return *nb::inst_ptr<StackState>(state_); }

 private:
  const Idle& idle_;
  nb::object state_;
};

// What is gone past on the way from a module's call to here, and must do nothing. type: the module's. absent: its
// attributes that must be missing, None or empty. empty: dictionaries. methods: (owner, name, what it is).
struct Bypassed {
  nb::object type;
  std::vector<nb::object> absent, empty;
  std::vector<std::tuple<nb::object, nb::object, nb::object>> methods;

  bool does_nothing(nb::handle lstm, nb::handle attributes) const {
    if (lstm.type().ptr() != type.ptr()) return false;
    for (const nb::object& name : absent) {
      PyObject* value = item(attributes, name);
      if (value && value != Py_None && !(PyDict_Check(value) && !PyDict_Size(value))) return false;
    }
    for (const nb::object& dict : empty)
      if (PyDict_Size(dict.ptr())) return false;
    for (const auto& [owner, name, value] : methods)
      if (!nb::getattr(owner, name).is(value)) return false;
    return true;
  }
};

class DirectCall {
 public:
  // torch: reads and makes tensors.
  // bypassed: what a call goes past.
  // plan, idle: what runs.
  // weights: every parameter; contents: what they hold, or None.
  // contested: numbers of an input beyond which torch may be as fast, unless it is one row on one thread; -1: never.
  // check: inputs must be finite. states: whether calls with given states are served too.
  // one_step: whether these are calls of a cell: x [B, I] or [I], states without a dimension of cells.
  // together: puts counters together (Counted); None: nothing is counted.
  // race, most_threads: whether several threads serve a call, and () -> how many at most.
  // remembered: route and policy of a call.
  // monitor: what the module's attribute _monitor must hold; is told the rates of every call that is counted, or None.
  DirectCall(std::shared_ptr<Torch> torch, Bypassed bypassed, std::shared_ptr<Plan> plan, Idle idle,
             const Weights& weights, nb::object contents, int64_t contested, bool check, bool states, bool one_step,
             nb::object together, std::shared_ptr<ThreadRace> race, nb::object most_threads,
             std::array<nb::object, 2> remembered, nb::object monitor)
      : torch_(std::move(torch)),
        bypassed_(std::move(bypassed)),
        plan_(std::move(plan)),
        idle_(std::move(idle)),
        contents_(std::move(contents)),
        look_(contents_.is_none() ? nullptr : nb::cast<Contents*>(contents_)),
        contested_(contested),
        check_(check),
        states_(states),
        one_step_(one_step),
        together_(std::move(together)),
        race_(std::move(race)),
        most_threads_(std::move(most_threads)),
        remembered_(std::move(remembered)),
        monitor_(std::move(monitor)),
        take_(monitor_.is_none() || together_.is_none() ? nb::none() : nb::object(monitor_.attr("take"))),
        pushed_out_(plan_->bytes() >= kPushesOut),
        cells_(int64_t(plan_->layers().size()) * plan_->directions()),
        output_(plan_->output(0)),
        hidden_(plan_->layers()[0][0].hidden) {
    columns_ = plan_->directions() * (plan_->input() + output_) +
               (cells_ - plan_->directions()) * (plan_->directions() + 1) * output_;
    for (const auto& layer : plan_->layers())
      require(layer[0].output == output_ && layer[0].hidden == hidden_, "whole batches need layers of one width");
    for (const auto& [name, tensor, address, version] : weights) {
      require(torch_->is_tensor(tensor), "weights must be tensors");
      weights_.push_back({name, tensor, address, version, torch_->inside(tensor.ptr())});
    }
  }

  // output, (h_n, c_n) as of nn.LSTM.forward, or h_1, c_1 as of nn.LSTMCell.forward; None where another must decide who
  // serves, and nothing has been done.
  nb::object serve(nb::handle lstm, nb::handle x, nb::handle hx) {
    const nb::object of = nb::steal(PyObject_GenericGetDict(lstm.ptr(), nullptr));
    if (!of.is_valid()) throw nb::python_error();
    for (const Weight& weight : weights_) weight.prefetch();
    if (look_ && pushed_out_) look_->prefetch();
    Given in;
    if (!bypassed_.does_nothing(lstm, of) || !takes(of, x, hx, in)) return nb::none();
    const Lent lent(idle_, *plan_);
    if (!lent) return nb::none();
    const Shapes shapes = shapes_of(in);
    float *y = nullptr, *h = nullptr, *c = nullptr;
    const nb::object out = one_step_ ? nb::none() : torch_->make(shapes.y, y);
    const nb::object h_n = torch_->make(shapes.h, h), c_n = torch_->make(shapes.c, c);
    if (one_step_) y = h;                                  // the same numbers
    if (!run(lent.get(), in, y, h, c)) return nb::none();  // who asks another is told why
    const int64_t timesteps = int64_t(in.rows) * in.steps;
    remember(of, lent.get(), timesteps);
    if (!take_.is_none()) {
      const Rates found = rates(lent.get(), columns_, timesteps, in.rows);
      take_(found.activity, found.ran, found.exits, in.rows);
    }
    const nb::object states = nb::make_tuple(h_n, c_n);
    return one_step_ ? states : nb::make_tuple(out, states);
  }

  template <class Visit>
  int each_object(Visit visit) const {  // that may lead back here: a parameter may know its module
    for (const Weight& weight : weights_)
      if (const int stop = visit(weight.tensor)) return stop;
    for (const nb::object* held : {&idle_.states, &contents_, &together_, &remembered_[2], &monitor_, &take_, &told_})
      if (const int stop = visit(*held)) return stop;
    return 0;
  }

 private:
  bool takes(nb::handle of, nb::handle x, nb::handle hx, Given& in) {
    if (item(of, training_) != Py_False || torch_->intervenes()) return false;
    PyObject* monitor = item(of, watching_);
    if ((monitor ? monitor : Py_None) != monitor_.ptr()) return false;
    const bool grad = torch_->grad();
    if (!torch_->read(x.ptr(), in.x) || (grad && torch_->requires_grad(x.ptr()))) return false;
    if (!(one_step_ ? fits(in) : laid_out(of, in)) || (!hx.is_none() && !takes_states(hx, grad, in))) return false;
    return unchanged(of, grad);
  }

  // Whether these are sequences; finds their dimensions.
  bool laid_out(nb::handle of, Given& in) const {
    PyObject* batch_first = item(of, batch_first_);
    if ((batch_first != Py_True && batch_first != Py_False) || in.x.dims < 2) return false;
    if (in.x.dims == 3) {
      in.time = batch_first == Py_True;
      in.row = batch_first != Py_True;
    }
    return fits(in);
  }

  bool fits(Given& in) const {
    const Plain& x = in.x;
    if (one_step_) {
      if (x.dims == 3 || (x.dims == 1 && !x.dense())) return false;
      in.time = -1;
      in.row = x.dims - 2;
    }
    if (x.size[x.dims - 1] != plan_->input()) return false;
    const int64_t rows = in.row < 0 ? 1 : x.size[in.row], steps = in.time < 0 ? 1 : x.size[in.time];
    if (rows < 1 || rows > kMostRows || steps < 1 || steps > kMostSteps) return false;
    in.rows = int(rows);
    in.steps = int(steps);
    const bool small = contested_ < 0 || in.row < 0 || rows * steps * plan_->input() <= contested_;
    return small || (rows == 1 && torch_->threads() == 1);
  }

  bool takes_states(nb::handle hx, bool grad, Given& in) const {
    const bool tuple = PyTuple_CheckExact(hx.ptr()), list = PyList_CheckExact(hx.ptr());
    if (!states_ || !(tuple || list) || PySequence_Size(hx.ptr()) != 2) return false;
    for (int i = 0; i < 2; i++) {
      in.states[i] = nb::borrow(tuple ? PyTuple_GetItem(hx.ptr(), i) : PyList_GetItem(hx.ptr(), i));
      PyObject* state = in.states[i].ptr();
      Plain& seen = i ? in.c_0 : in.h_0;
      if (!torch_->read(state, seen) || (grad && torch_->requires_grad(state))) return false;
      if (seen.dims != in.x.dims || (!one_step_ && seen.size[0] != cells_) || !seen.dense()) return false;
      if (seen.size[seen.dims - 1] != (i ? hidden_ : output_)) return false;
      if (in.row >= 0 && seen.size[seen.dims - 2] != in.rows) return false;
    }
    return true;
  }

  // Whether no change of the weights is found; as Fingerprint.unchanged, with what gradients need.
  bool unchanged(nb::handle of, bool grad) {
    PyObject* parameters = item(of, parameters_);
    if (!parameters || PyDict_Size(parameters) != Py_ssize_t(weights_.size())) return false;
    for (const Weight& weight : weights_) {
      PyObject* tensor = weight.tensor.ptr();
      if (item(parameters, weight.name) != tensor || torch_->address(tensor) != weight.address) return false;
      if (weight.version >= 0 && torch_->version(tensor) != weight.version) return false;
      if (grad && torch_->requires_grad(tensor)) return false;
    }
    return !look_ || look_->look(last_timesteps(of));
  }

  int64_t last_timesteps(nb::handle of) const {
    PyObject* last = item(of, last_);
    return last && PyTuple_Check(last) && PyTuple_Size(last) > 2 ? PyLong_AsLongLong(PyTuple_GetItem(last, 2)) : 1;
  }

  bool run(StackState& state, const Given& in, float* y, float* h, float* c) const {
    const double reads = bytes_read(*plan_, in.rows, in.steps);
    const int threads = worth_waking(reads) ? nb::cast<int>(most_threads_()) : 1;
    std::optional<nb::gil_scoped_release> others_run;
    if (reads > kShort) others_run.emplace();
    const Exclusive guard(state);
    std::unique_ptr<float[]> memory;
    const Plain x = side_by_side(in.x, memory);
    const ptrdiff_t width = output_ * plan_->directions();
    const bool rows_outside = in.row == 0;
    const int row = in.row < 0 ? -1 : x.dims - 2;  // of a given state
    const WholeBatch batch{{x.data, in.time < 0 ? 0 : x.stride[in.time], in.row < 0 ? 0 : x.stride[in.row]},
                           {y, rows_outside ? width : width * in.rows, rows_outside ? width * in.steps : width},
                           in.rows,
                           in.steps,
                           nullptr,
                           rows_of(in.h_0, row),
                           rows_of(in.c_0, row),
                           {h, in.rows * output_, output_},
                           {c, in.rows * hidden_, hidden_}};
    return run_fastest(state, batch, check_, race_.get(), threads);
  }

  // Of the results of calls with so many timesteps and rows, and the rows' dimension in x.
  struct Shapes {
    std::array<int64_t, 3> key{};
    NewShape y, h, c;
  };

  // Kept for as long as inputs are of one shape. A copy, because whenever Python makes an object, its garbage collector
  // may run code of the user, and other threads, which may call here with another shape.
  Shapes shapes_of(const Given& in) {
    const std::array<int64_t, 3> key{in.steps, in.rows, in.row};
    if (key == shapes_.key) return shapes_;
    const int64_t width = output_ * plan_->directions();
    Shapes made{key, {}, {}, {}};
    if (one_step_) {
      made.h = in.row < 0 ? new_shape({output_}) : new_shape({in.rows, output_});
      made.c = in.row < 0 ? new_shape({hidden_}) : new_shape({in.rows, hidden_});
    } else if (in.row < 0) {
      made.y = new_shape({in.steps, width});
      made.h = new_shape({cells_, output_});
      made.c = new_shape({cells_, hidden_});
    } else {
      made.y = in.row == 0 ? new_shape({in.rows, in.steps, width}) : new_shape({in.steps, in.rows, width});
      made.h = new_shape({cells_, in.rows, output_});
      made.c = new_shape({cells_, in.rows, hidden_});
    }
    return shapes_ = made;
  }

  // What last_run tells of the call.
  void remember(nb::handle of, const StackState& state, int64_t timesteps) {
    if (timesteps != told_timesteps_ || state.threads_of_last_run != told_threads_ || !together_.is_none()) {
      const nb::object counted = together_.is_none() ? nb::none() : nb::cast(Counted(state, together_, timesteps));
      const auto& [route, policy] = remembered_;
      told_ = nb::make_tuple(route, state.threads_of_last_run, timesteps, counted, policy);
      told_timesteps_ = timesteps;
      told_threads_ = state.threads_of_last_run;
    }
    if (PyDict_SetItem(of.ptr(), last_.ptr(), told_.ptr())) throw nb::python_error();
  }

  static constexpr double kShort = 1 << 20;      // bytes of weights that are read before another thread would wake
  static constexpr size_t kPushesOut = 1 << 18;  // bytes of weights
  static constexpr int64_t kMostSteps = int64_t(1) << 30;

  std::shared_ptr<Torch> torch_;
  Bypassed bypassed_;
  std::shared_ptr<Plan> plan_;
  Idle idle_;
  std::vector<Weight> weights_;
  nb::object contents_;
  Contents* look_;
  int64_t contested_;
  bool check_, states_, one_step_;
  nb::object together_;
  std::shared_ptr<ThreadRace> race_;
  nb::object most_threads_;
  std::array<nb::object, 2> remembered_;
  nb::object monitor_, take_;
  bool pushed_out_;          // whether the weights of a run push all else out of the caches
  int64_t cells_, columns_;  // columns_: of all cells, x and h
  ptrdiff_t output_, hidden_;
  Shapes shapes_;
  nb::object told_;
  int64_t told_timesteps_ = -1;
  int told_threads_ = 1;
  const nb::object training_ = name("training"), batch_first_ = name("batch_first"), parameters_ = name("_parameters"),
                   last_ = name("_last"), watching_ = name("_monitor");  // attributes of an AdaptiveLSTM
};

}  // namespace

void bind_direct_call(nb::module_& m) {
  using Objects = std::vector<nb::object>;
  nb::class_<Torch>(m, "Torch")
      .def(nb::new_([](nb::handle tensor, nb::handle parameter, nb::capsule exchange, nb::object empty,
                       nb::object float32, Objects intervenes, nb::object grad, nb::object threads,
                       nb::object forward_ad, nb::object version, nb::object requires_grad, nb::object is_neg) {
             return std::make_shared<Torch>(tensor, parameter, exchange, empty, float32, std::move(intervenes), grad,
                                            threads, forward_ad, version, requires_grad, is_neg);
           }),
           nb::kw_only(), nb::arg("tensor"), nb::arg("parameter"), nb::arg("exchange"), nb::arg("empty"),
           nb::arg("float32"), nb::arg("intervenes"), nb::arg("grad"), nb::arg("threads"), nb::arg("forward_ad"),
           nb::arg("version"), nb::arg("requires_grad"), nb::arg("is_neg"));
  nb::class_<Bypassed>(m, "Bypassed")
      .def(nb::new_([](nb::object type, Objects absent, Objects empty,
                       std::vector<std::tuple<nb::object, nb::object, nb::object>> methods) {
             return Bypassed{type, std::move(absent), std::move(empty), std::move(methods)};
           }),
           nb::arg("of"), nb::kw_only(), nb::arg("absent"), nb::arg("empty"), nb::arg("methods"));
  nb::class_<DirectCall>(m, "DirectCall", nb::type_slots(collected<DirectCall>()))
      .def(
          nb::new_([](std::shared_ptr<Torch> torch, const Bypassed& bypassed, std::shared_ptr<Plan> plan, nb::list idle,
                      size_t most, size_t most_bytes, const Weights& weights, nb::object contents, int64_t contested,
                      bool check, bool states, bool one_step, nb::object together, std::shared_ptr<ThreadRace> race,
                      nb::object most_threads, nb::object route, nb::object policy, nb::object monitor) {
            return std::make_shared<DirectCall>(torch, bypassed, plan, Idle{idle, most, most_bytes}, weights, contents,
                                                contested, check, states, one_step, together, race, most_threads,
                                                std::array<nb::object, 2>{route, policy}, monitor);
          }),
          nb::arg("torch"), nb::arg("bypassed"), nb::arg("plan"), nb::kw_only(), nb::arg("idle"), nb::arg("most_idle"),
          nb::arg("most_bytes"), nb::arg("weights"), nb::arg("contents").none(), nb::arg("contested"), nb::arg("check"),
          nb::arg("states"), nb::arg("one_step"), nb::arg("together").none(), nb::arg("race").none(),
          nb::arg("most_threads"), nb::arg("route"), nb::arg("policy"), nb::arg("monitor").none())
      .def("serve", &DirectCall::serve, nb::arg("lstm"), nb::arg("x").none(), nb::arg("hx").none() = nb::none());
}
