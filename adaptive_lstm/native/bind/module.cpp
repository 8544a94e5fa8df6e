// The Python face of the native core: checks arguments and forwards. Weights come in once as numpy arrays; a run passes
// addresses, which Python has checked (a tensor argument would cost more than a small step).
#include "bind/bind.h"

#include "cpu/dispatch.h"
#include "pack/plan.h"

using namespace alstm;

namespace {

// What pruned units stand at, NaN for those that live; no values: all live.
using Fixed = Array<float, 1>;
const float* values_of(const Fixed& fixed) { return fixed.size() ? fixed.data() : nullptr; }

UseBitmask use_of_bitmask(const std::string& name) {
  if (name == "auto") return UseBitmask::where_it_pays;
  if (name == "always") return UseBitmask::always;
  if (name == "never") return UseBitmask::never;
  throw std::invalid_argument("bitmask: got '" + name + "', expected 'auto', 'always' or 'never'");
}

template <class T>
std::shared_ptr<PackedMatrix> pack(const Array<T, 2>& values, std::optional<Array<float, 1>> scale, Format format,
                                   int levels, bool gates, bool columns,
                                   const Fixed& fixed, bool zeros, const std::string& bitmask,
                                   std::optional<Array<float, 1>> column_scale = std::nullopt, bool dynamic = false) {
  if (gates && values.shape(0) % 4) throw std::invalid_argument("a gate matrix needs a multiple of 4 rows");
  if (scale && scale->shape(0) != values.shape(0)) throw std::invalid_argument("the scale needs one value per row");
  if ((format == Format::int8_weight_only || format == Format::int8) && !scale)
    throw std::invalid_argument("int8 weights need a scale");
  if (format == Format::int8 && (levels < 1 || levels > 8191)) throw std::invalid_argument("levels must lie in 1..8191");
  if (format == Format::int8 && double(levels) * 255 * double(values.shape(1)) >= 2147483648.0)
    throw std::invalid_argument("levels times columns is too large for 32-bit sums");
  if (column_scale && column_scale->shape(0) != values.shape(1))
    throw std::invalid_argument("the column scale needs one value per column");
  if (dynamic && (columns || column_scale))
    throw std::invalid_argument("rows with a range of their own leave no columns apart and have no scale per column");
  if (fixed.size() && fixed.shape(0) != (gates ? values.shape(0) / 4 : values.shape(1)))
    throw std::invalid_argument("fixed needs one value per unit");
  return std::make_shared<PackedMatrix>(MatrixSource{values.data(), scale ? scale->data() : nullptr,
                                               column_scale ? column_scale->data() : nullptr, int(values.shape(0)),
                                               int(values.shape(1)), format, levels, gates, columns,
                                               values_of(fixed), zeros && gates, use_of_bitmask(bitmask), dynamic});
}

Direction make_direction(std::shared_ptr<PackedMatrix> w_ih, std::shared_ptr<PackedMatrix> w_hh,
                         const Array<float, 1>& bias, std::optional<std::shared_ptr<PackedMatrix>> w_hr,
                         const Fixed& fixed) {
  const int hidden = w_ih->source_rows() / 4;
  if (int(bias.shape(0)) != 4 * hidden) throw std::invalid_argument("the bias needs 4 * hidden values");
  if (fixed.size() && int(fixed.shape(0)) != hidden) throw std::invalid_argument("fixed needs one value per unit");
  const float* stands = values_of(fixed);
  Direction d{w_ih->source_cols(), hidden, w_hh->source_cols(), w_ih, w_hh, nullptr,
              pack_bias(bias.data(), hidden, stands), live_units(stands, hidden), {}};
  if (w_hr) d.w_hr = *w_hr;
  if (int(d.lives.size()) < hidden) {
    d.fixed.assign(stands, stands + hidden);
    for (int32_t k : d.lives) d.fixed[k] = 0.0f;
  }
  return d;
}

}  // namespace

NB_MODULE(_native, m) {
  m.attr("compiler") = ALSTM_COMPILER;
  m.def("isa", [] { return std::string(active_kernels().isa); }, "The instruction set in use.");
  m.def("usable_isas", &usable_isas, "The instruction sets that run on this machine, best first.");

  nb::class_<PackedMatrix>(m, "Matrix")
      .def_static(
          "f32",
          [](Array<float, 2> v, bool columns, bool gates, const Fixed& fixed, bool zeros,
             const std::string& bitmask) {
            return pack(v, std::nullopt, Format::f32, 0, gates, columns, fixed, zeros, bitmask);
          },
          nb::arg("values"), nb::arg("columns"), nb::arg("gates"), nb::arg("fixed"), nb::arg("zeros"),
          nb::arg("bitmask") = "auto")
      .def_static(
          "bf16",
          [](Array<uint16_t, 2> v, bool columns, bool gates, const Fixed& fixed, bool zeros,
             const std::string& bitmask) {
            return pack(v, std::nullopt, Format::bf16, 0, gates, columns, fixed, zeros, bitmask);
          },
          nb::arg("values"), nb::arg("columns"), nb::arg("gates"), nb::arg("fixed"), nb::arg("zeros"),
          nb::arg("bitmask") = "auto")
      .def_static(
          "int8_weight_only",
          [](Array<int8_t, 2> v, Array<float, 1> scale, bool columns, bool gates, const Fixed& fixed, bool zeros,
             const std::string& bitmask) {
            return pack(v, scale, Format::int8_weight_only, 0, gates, columns, fixed, zeros, bitmask);
          },
          nb::arg("values"), nb::arg("scale"), nb::arg("columns"), nb::arg("gates"), nb::arg("fixed"), nb::arg("zeros"),
          nb::arg("bitmask") = "auto")
      .def_static(
          "int8",
          [](Array<int8_t, 2> v, Array<float, 1> scale, int levels, bool columns,
             std::optional<Array<float, 1>> column_scale, bool dynamic, const Fixed& fixed, bool zeros,
             const std::string& bitmask) {
            return pack(v, scale, Format::int8, levels, true, columns, fixed, zeros, bitmask, column_scale, dynamic);
          },
          nb::arg("values"), nb::arg("scale"), nb::arg("levels"), nb::arg("columns"), nb::arg("column_scale").none(),
          nb::arg("dynamic"), nb::arg("fixed"), nb::arg("zeros"), nb::arg("bitmask") = "auto")
      .def_prop_ro("bytes", &PackedMatrix::bytes)
      .def_prop_ro("form", [](const PackedMatrix& m) { return m.view().form(); })
      .def_prop_ro("columns", &PackedMatrix::useful);

  nb::class_<Direction>(m, "Direction");
  m.def("direction", &make_direction, nb::arg("w_ih"), nb::arg("w_hh"), nb::arg("bias"), nb::arg("w_hr").none(),
        nb::arg("fixed"));

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

  bind_policy(m);
  bind_state(m);
}
