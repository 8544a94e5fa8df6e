// Weights as Python hands them over: matrices, cells and the plan of a stack.
#include "bind/bind.h"
#include "pack/plan.h"

using namespace alstm;

namespace {

using Values = nb::ndarray<nb::ro, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Vector = std::optional<Array<float, 1>>;
using Mask = std::optional<Array<bool, 1>>;

const float* data_of(const Vector& vector) { return vector ? vector->data() : nullptr; }
const bool* data_of(const Mask& mask) { return mask ? mask->data() : nullptr; }

const char* form_name(Form form) {
  switch (form) {
    case Form::dense:
      return "dense";
    case Form::block_sparse:
      return "blocks";
    case Form::bitmask:
      return "bitmask";
  }
  return "";
}

UseBitmask use_of_bitmask(const std::string& name) {
  if (name == "auto") return UseBitmask::where_it_pays;
  if (name == "always") return UseBitmask::always;
  if (name == "never") return UseBitmask::never;
  throw std::invalid_argument("bitmask: got '" + name + "', expected 'auto', 'always' or 'never'");
}

Format format_of(const Values& values, int levels) {
  if (values.dtype() == nb::dtype<float>()) return Format::f32;
  if (values.dtype() == nb::dtype<uint16_t>()) return Format::bf16;
  if (values.dtype() == nb::dtype<int8_t>()) return levels ? Format::int8 : Format::int8_weight_only;
  throw nb::type_error("weights must be float32, uint16 (the bits of bfloat16) or int8");
}

void check(const MatrixSource& source, const Vector& scale, const Vector& column_scale, const Mask& live) {
  require(!source.gates || source.rows % 4 == 0, "a gate matrix needs a multiple of 4 rows");
  require(!scale || int(scale->size()) == source.rows, "the scale needs one value per row");
  if (source.format == Format::f32 || source.format == Format::bf16)
    require(!scale && !source.levels, "float weights have neither a scale nor levels");
  else
    require(scale.has_value(), "int8 weights need a scale");
  require(source.format == Format::int8 || (!column_scale && !source.dynamic),
          "only int8 weights with levels have a scale per column or a dynamic range");
  require(source.levels >= 0 && source.levels <= kMaxLevels, "levels must lie in 1..8191, or be 0 for weights only");
  require(double(source.levels) * 255 * double(source.cols) < 2147483648.0,
          "levels times columns is too large for 32-bit sums");
  require(!column_scale || int(column_scale->size()) == source.cols, "the column scale needs one value per column");
  require(!source.dynamic || (!source.columns && !column_scale),
          "rows with a range of their own leave no columns apart and have no scale per column");
  require(!live || int(live->size()) == (source.gates ? source.rows / 4 : source.cols),
          "live needs one value per unit");
}

// The dtype of `values` and `levels` say the format.
std::shared_ptr<PackedMatrix> make_matrix(const Values& values, const Vector& scale, int levels,
                                          const Vector& column_scale, bool dynamic, bool gates, bool columns,
                                          const Mask& live, bool zeros, const std::string& bitmask) {
  require(fits_int(values.shape(0)) && (values.shape(1) == 0 ? gates : fits_int(values.shape(1))),
          "a matrix needs 1 to 2^30 rows and columns");
  MatrixSource source;
  source.values = values.data();
  source.scale = data_of(scale);
  source.column_scale = data_of(column_scale);
  source.rows = int(values.shape(0));
  source.cols = int(values.shape(1));
  source.format = format_of(values, levels);
  source.levels = levels;
  source.gates = gates;
  source.columns = columns;
  source.live = data_of(live);
  source.zeros = zeros && gates;
  source.bitmask = use_of_bitmask(bitmask);
  source.dynamic = dynamic;
  check(source, scale, column_scale, live);
  return std::make_shared<PackedMatrix>(source);
}

Cell make_cell(std::shared_ptr<PackedMatrix> w_ih, std::shared_ptr<PackedMatrix> w_hh, const Array<float, 1>& bias,
               std::optional<std::shared_ptr<PackedMatrix>> w_hr, const Mask& live, const Vector& constant) {
  require(w_ih->gates() && w_hh->gates() && (!w_hr || !(*w_hr)->gates()),
          "w_ih and w_hh must be packed with gates=True, w_hr with gates=False");
  const int hidden = w_ih->source_rows() / 4;
  require(int(bias.size()) == 4 * hidden, "the bias needs 4 * hidden values");
  require(live.has_value() == constant.has_value(), "live and constant come together: give both or neither");
  require(!live || int(live->size()) == hidden, "live needs one value per unit");
  require(!constant || int(constant->size()) == hidden, "constant needs one value per unit");
  Cell cell;
  cell.input = w_ih->source_cols();
  cell.hidden = hidden;
  cell.output = w_hh->source_cols();
  cell.w_ih = w_ih;
  cell.w_hh = w_hh;
  if (w_hr) cell.w_hr = *w_hr;
  cell.bias = pack_bias(bias.data(), hidden, data_of(live));
  cell.live = live_units(data_of(live), hidden);
  if (int(cell.live.size()) == hidden) return cell;
  cell.constant.assign(constant->data(), constant->data() + hidden);
  for (int32_t k : cell.live) cell.constant[k] = 0.0f;
  return cell;
}

std::shared_ptr<Plan> make_plan(const std::vector<std::vector<Cell>>& layers) { return std::make_shared<Plan>(layers); }

}  // namespace

void bind_weights(nb::module_& m) {
  nb::class_<PackedMatrix>(m, "Matrix")
      .def(nb::new_(&make_matrix), nb::arg("values"), nb::arg("scale") = nb::none(), nb::kw_only(),
           nb::arg("levels") = 0, nb::arg("column_scale") = nb::none(), nb::arg("dynamic") = false,
           nb::arg("gates") = true, nb::arg("columns") = false, nb::arg("live").noconvert() = nb::none(),
           nb::arg("zeros") = true, nb::arg("bitmask") = "auto")
      .def_prop_ro("bytes", &PackedMatrix::bytes)
      .def_prop_ro("form", [](const PackedMatrix& m) { return form_name(m.view().form); })
      .def_prop_ro("columns", &PackedMatrix::useful);
  nb::class_<Cell>(m, "Cell");
  m.def("cell", &make_cell, nb::arg("w_ih"), nb::arg("w_hh"), nb::arg("bias"), nb::arg("w_hr") = nb::none(),
        nb::kw_only(), nb::arg("live").noconvert() = nb::none(), nb::arg("constant") = nb::none());
  nb::class_<Plan>(m, "Plan").def(nb::new_(&make_plan), nb::arg("layers")).def_prop_ro("bytes", &Plan::bytes);
}
