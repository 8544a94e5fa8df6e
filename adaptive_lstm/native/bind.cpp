// The Python face of the native core: checks arguments and forwards. Weights come in once as numpy arrays; a run passes
// addresses, which Python has checked (a tensor argument would cost more than a small step).
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <stdexcept>

#include "dispatch.h"
#include "state.h"

namespace nb = nanobind;
using namespace alstm;

namespace {

template <class T, int N>
using Array = nb::ndarray<const T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;
template <class T, int N>
using Out = nb::ndarray<T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;

template <class T>
std::shared_ptr<PackedMatrix> pack(const Array<T, 2>& values, std::optional<Array<float, 1>> scale, Format format,
                                   int levels, bool gates, bool columns,
                                   std::optional<Array<float, 1>> column_scale = std::nullopt) {
  if (gates && values.shape(0) % 4) throw std::invalid_argument("a gate matrix needs a multiple of 4 rows");
  if (scale && scale->shape(0) != values.shape(0)) throw std::invalid_argument("the scale needs one value per row");
  if ((format == Format::i8 || format == Format::q8) && !scale)
    throw std::invalid_argument("int8 weights need a scale");
  if (format == Format::q8 && (levels < 1 || levels > 8191)) throw std::invalid_argument("levels must lie in 1..8191");
  if (format == Format::q8 && double(levels) * 255 * double(values.shape(1)) >= 2147483648.0)
    throw std::invalid_argument("levels times columns is too large for 32-bit sums");
  if (column_scale && column_scale->shape(0) != values.shape(1))
    throw std::invalid_argument("the column scale needs one value per column");
  return std::make_shared<PackedMatrix>(Source{values.data(), scale ? scale->data() : nullptr,
                                               column_scale ? column_scale->data() : nullptr, int(values.shape(0)),
                                               int(values.shape(1)), format, levels, gates, columns});
}

Direction make_direction(std::shared_ptr<PackedMatrix> w_ih, std::shared_ptr<PackedMatrix> w_hh,
                         const Array<float, 1>& bias, std::optional<std::shared_ptr<PackedMatrix>> w_hr) {
  const int hidden = w_ih->source_rows() / 4;
  if (int(bias.shape(0)) != 4 * hidden) throw std::invalid_argument("the bias needs 4 * hidden values");
  Direction d{w_ih->source_cols(), hidden, w_hh->source_cols(), w_ih, w_hh, nullptr, pack_bias(bias.data(), hidden)};
  if (w_hr) d.w_hr = *w_hr;
  return d;
}

Thresholds make_thresholds(std::optional<Array<float, 1>> x, std::optional<Array<float, 1>> h) {
  Thresholds t;
  if (x) t.x.assign(x->data(), x->data() + x->shape(0));
  if (h) t.h.assign(h->data(), h->data() + h->shape(0));
  return t;
}

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

std::shared_ptr<State> make_state(std::shared_ptr<Plan> plan, std::shared_ptr<DeltaPolicy> policy, int batch) {
  if (batch < 0) throw std::invalid_argument("the batch size must not be negative");
  if (!policy->layers.empty()) {
    if (policy->layers.size() != plan->layers().size())
      throw std::invalid_argument("the policy needs one entry per layer");
    for (size_t l = 0; l < plan->layers().size(); l++) {
      if (policy->layers[l].size() != plan->layers()[l].size())
        throw std::invalid_argument("the policy needs one entry per direction");
      for (size_t d = 0; d < policy->layers[l].size(); d++) {
        const Thresholds& t = policy->layers[l][d];
        const Direction& w = plan->layers()[l][d];
        if (!t.x.empty() && int(t.x.size()) != w.input)
          throw std::invalid_argument("x thresholds need one value per input column");
        if (!t.h.empty() && int(t.h.size()) != w.output)
          throw std::invalid_argument("h thresholds need one value per recurrent column");
        for (const auto* m : {t.x.empty() ? nullptr : w.w_ih.get(), t.h.empty() ? nullptr : w.w_hh.get()})
          if (m && m->view().format == Format::q8 && m->view().layout != Layout::columns)
            throw std::invalid_argument("thresholded int8 matrices must be packed with columns=True");
      }
    }
  }
  return std::make_shared<State>(plan, policy, batch);
}

bool run(State& state, uintptr_t x, ptrdiff_t x_time, ptrdiff_t x_row, uintptr_t y, ptrdiff_t y_time, ptrdiff_t y_row,
         int steps, uintptr_t sizes, bool check) {
  Exclusive guard(state);
  return state.run({reinterpret_cast<float*>(x), x_time, x_row}, {reinterpret_cast<float*>(y), y_time, y_row}, steps,
                   reinterpret_cast<const int64_t*>(sizes), check);
}

// One step on contiguous x [B, I] and y [B, D * P].
bool step(State& state, uintptr_t x, uintptr_t y) {
  Exclusive guard(state);
  const Plan& plan = state.plan();
  const ptrdiff_t width = ptrdiff_t(plan.output(int(plan.layers().size()) - 1)) * plan.directions();
  return state.run({reinterpret_cast<float*>(x), 0, plan.input()}, {reinterpret_cast<float*>(y), 0, width}, 1, nullptr,
                   true);
}

void check_state_shapes(State& s, size_t hn, size_t cn) {
  size_t h = 0, c = 0;
  for (const auto& layer : s.plan().layers())
    for (const Direction& d : layer) h += size_t(s.batch()) * d.output, c += size_t(s.batch()) * d.hidden;
  if (hn != h || cn != c) throw std::invalid_argument("h or c has the wrong number of values for this state");
}

void check_sent(State& s, int l, int d, bool recurrent, size_t n) {
  if (l < 0 || l >= int(s.plan().layers().size()) || d < 0 || d >= s.plan().directions())
    throw std::invalid_argument("no such layer");
  if (!s.delta(l, d, recurrent)) throw std::invalid_argument("this operand has no thresholds, so it remembers nothing");
  const Direction& dir = s.plan().layers()[l][d];
  if (n != size_t(s.batch()) * (recurrent ? dir.output : dir.input))
    throw std::invalid_argument("wrong number of values");
}

}  // namespace

NB_MODULE(_native, m) {
  m.attr("compiler") = ALSTM_COMPILER;
  m.def("isa", [] { return std::string(active_kernels().isa); }, "The instruction set in use.");
  m.def("usable_isas", &usable_isas, "The instruction sets that run on this machine, best first.");

  nb::class_<PackedMatrix>(m, "Matrix")
      .def_static(
          "f32", [](Array<float, 2> v, bool gates) { return pack(v, std::nullopt, Format::f32, 0, gates, true); },
          nb::arg("values"), nb::arg("gates") = true)
      .def_static(
          "bf16", [](Array<uint16_t, 2> v, bool gates) { return pack(v, std::nullopt, Format::bf16, 0, gates, true); },
          nb::arg("values"), nb::arg("gates") = true)
      .def_static(
          "i8",
          [](Array<int8_t, 2> v, Array<float, 1> scale, bool gates) {
            return pack(v, scale, Format::i8, 0, gates, true);
          },
          nb::arg("values"), nb::arg("scale"), nb::arg("gates") = true)
      .def_static(
          "q8",
          [](Array<int8_t, 2> v, Array<float, 1> scale, int levels, bool columns,
             std::optional<Array<float, 1>> column_scale) {
            return pack(v, scale, Format::q8, levels, true, columns, column_scale);
          },
          nb::arg("values"), nb::arg("scale"), nb::arg("levels"), nb::arg("columns"),
          nb::arg("column_scale") = nb::none())
      .def_prop_ro("bytes", &PackedMatrix::bytes);

  nb::class_<Direction>(m, "Direction");
  m.def("direction", &make_direction, nb::arg("w_ih"), nb::arg("w_hh"), nb::arg("bias"), nb::arg("w_hr").none());

  nb::class_<Plan>(m, "Plan")
      .def(
          "__init__",
          [](Plan* self, const std::vector<nb::list>& layers) {
            std::vector<std::vector<Direction>> out;
            for (const nb::list& layer : layers) {
              out.emplace_back();
              for (nb::handle d : layer) out.back().push_back(nb::cast<const Direction&>(d));
            }
            new (self) Plan(std::move(out));
          },
          nb::arg("layers"))
      .def_prop_ro("bytes", &Plan::bytes);

  nb::class_<Thresholds>(m, "Thresholds");
  m.def("thresholds", &make_thresholds, nb::arg("x").none(), nb::arg("h").none());
  nb::class_<DeltaPolicy>(m, "DeltaPolicy")
      .def(
          "__init__",
          [](DeltaPolicy* self, const std::vector<nb::list>& layers) {
            DeltaPolicy policy;
            for (const nb::list& layer : layers) {
              policy.layers.emplace_back();
              for (nb::handle d : layer) policy.layers.back().push_back(nb::cast<const Thresholds&>(d));
            }
            new (self) DeltaPolicy(std::move(policy));
          },
          nb::arg("layers"));

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
      .def("run", &run, nb::arg("x"), nb::arg("x_time"), nb::arg("x_row"), nb::arg("y"), nb::arg("y_time"),
           nb::arg("y_row"), nb::arg("steps"), nb::arg("sizes"), nb::arg("check"),
           nb::call_guard<nb::gil_scoped_release>())
      .def("step", &step, nb::arg("x"), nb::arg("y"), nb::call_guard<nb::gil_scoped_release>())
      // [(columns of x sent, columns of h sent, row steps)] per layer and direction
      .def("counters",
           [](State& s) {
             std::vector<std::tuple<int64_t, int64_t, int64_t>> out;
             for (size_t l = 0; l < s.plan().layers().size(); l++)
               for (int d = 0; d < s.plan().directions(); d++) {
                 const DirectionState& state = s.direction(int(l), d);
                 out.emplace_back(state.sent_x, state.sent_h, state.steps);
               }
             return out;
           })
      .def("clear_counters",
           [](State& s) {
             Exclusive guard(s);
             s.clear_counters();
           })
      .def_prop_ro("batch", &State::batch);
}
