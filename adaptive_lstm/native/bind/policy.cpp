// Policies as Python hands them over: numbers and matrices that have been checked to fit the stack (make_state).
#include <algorithm>

#include "bind/bind.h"
#include "run/policy.h"

using namespace alstm;

namespace {

Thresholds make_thresholds(std::optional<Array<float, 1>> x, std::optional<Array<float, 1>> h) {
  Thresholds t;
  if (x) t.x.assign(x->data(), x->data() + x->shape(0));
  if (h) t.h.assign(h->data(), h->data() + h->shape(0));
  return t;
}

Hold make_hold(std::optional<double> x, std::optional<double> h, int64_t cap, const std::string& action) {
  if (cap < 1) throw std::invalid_argument("cap must be at least 1");
  if (action != "hold_gates" && action != "hold_state" && action != "queue_input")
    throw std::invalid_argument("action must be hold_gates, hold_state or queue_input");
  return {x, h, cap, action == "hold_gates" ? kHoldGates : action == "hold_state" ? kHoldState : kQueueInput};
}

Affine make_affine(const Array<float, 2>& weight, const Array<float, 1>& bias) {
  if (bias.shape(0) != weight.shape(0)) throw std::invalid_argument("a map needs one bias per row");
  Affine map;
  map.weight = std::make_shared<PackedMatrix>(
      MatrixSource{weight.data(), nullptr, nullptr, int(weight.shape(0)), int(weight.shape(1)), Format::f32, 0, false, true,
             nullptr, false, UseBitmask::never});
  map.bias.assign(map.weight->view().rows, 0.0f);
  std::copy_n(bias.data(), bias.shape(0), map.bias.data());
  return map;
}

Head make_head(bool sigmoid, const std::string& measure) {
  if (measure != "margin" && measure != "max" && measure != "entropy")
    throw std::invalid_argument("unknown measure of confidence");
  return {sigmoid, measure == "margin" ? Measure::margin : measure == "max" ? Measure::max : Measure::entropy};
}

TimeExit make_time_exit(int every, int patience, int window, std::optional<Head> head,
                        std::vector<int64_t> threshold_starts, std::vector<float> thresholds,
                        std::vector<int64_t> map_starts, std::vector<Affine> translations, std::vector<Affine> logits) {
  if (every < 1 || patience < 1 || window < (head ? 0 : 1))
    throw std::invalid_argument("every, patience and window must be at least 1");
  if (threshold_starts.empty() || threshold_starts[0] != 0 || threshold_starts.size() != thresholds.size() ||
      map_starts.empty() || map_starts[0] != 0)
    throw std::invalid_argument("time buckets start at 0, with one threshold each");
  if ((!translations.empty() && translations.size() != map_starts.size()) ||
      logits.size() != (head ? map_starts.size() : 0))
    throw std::invalid_argument("one map per time bucket");
  return {every, patience, window, head, threshold_starts, map_starts, thresholds, translations, logits};
}

DepthExit make_depth_exit(bool sequence, std::optional<Head> head, const std::vector<bool>& asks,
                          std::vector<float> thresholds, std::vector<Affine> steps, std::vector<Affine> finals,
                          std::vector<Affine> logits) {
  const size_t n = asks.size();
  if (thresholds.size() != n || steps.size() != n || finals.size() != n || logits.size() != (head ? n : 0))
    throw std::invalid_argument("an exit in depth needs one entry per layer but the top");
  if (!head && n && asks[0]) throw std::invalid_argument("without a head there is nothing to compare after one layer");
  return {sequence, head, {asks.begin(), asks.end()}, thresholds, steps, finals, logits};
}

Policy make_policy(const std::vector<std::vector<Thresholds>>& columns, const std::vector<std::optional<Hold>>& hold,
                   std::optional<TimeExit> time, std::optional<DepthExit> depth) {
  return {columns, hold, std::move(time), std::move(depth)};
}

}  // namespace

void bind_policy(nb::module_& m) {
  nb::class_<Thresholds>(m, "Thresholds");
  m.def("thresholds", &make_thresholds, nb::arg("x").none(), nb::arg("h").none());
  nb::class_<Hold>(m, "Hold");
  m.def("hold", &make_hold, nb::arg("x").none(), nb::arg("h").none(), nb::arg("cap"), nb::arg("action"));
  nb::class_<Affine>(m, "Affine");
  m.def("affine", &make_affine, nb::arg("weight"), nb::arg("bias"));
  nb::class_<Head>(m, "Head");
  m.def("head", &make_head, nb::arg("sigmoid"), nb::arg("measure"));
  nb::class_<TimeExit>(m, "TimeExit");
  m.def("time_exit", &make_time_exit, nb::arg("every"), nb::arg("patience"), nb::arg("window"), nb::arg("head").none(),
        nb::arg("threshold_starts"), nb::arg("thresholds"), nb::arg("map_starts"), nb::arg("translations"),
        nb::arg("logits"));
  nb::class_<DepthExit>(m, "DepthExit");
  m.def("depth_exit", &make_depth_exit, nb::arg("sequence"), nb::arg("head").none(), nb::arg("asks"),
        nb::arg("thresholds"), nb::arg("steps"), nb::arg("finals"), nb::arg("logits"));
  nb::class_<Policy>(m, "Policy");
  m.def("policy", &make_policy, nb::arg("columns"), nb::arg("hold"), nb::arg("time").none(), nb::arg("depth").none());
}
