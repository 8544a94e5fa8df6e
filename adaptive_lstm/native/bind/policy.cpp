// Policies as Python hands them over: numbers and matrices. make_state checks that they fit the stack.
#include <algorithm>

#include "bind/bind.h"
#include "run/policy.h"

using namespace alstm;

namespace {

Thresholds make_thresholds(std::optional<Array<float, 1>> x, std::optional<Array<float, 1>> h) {
  Thresholds out;
  if (x) out.x.assign(x->data(), x->data() + x->size());
  if (h) out.h.assign(h->data(), h->data() + h->size());
  return out;
}

Action action_of(const std::string& name) {
  if (name == "hold_gates") return kHoldGates;
  if (name == "hold_state") return kHoldState;
  if (name == "queue_input") return kQueueInput;
  throw std::invalid_argument("action must be hold_gates, hold_state or queue_input");
}

Hold make_hold(std::optional<double> x, std::optional<double> h, int64_t cap, const std::string& action) {
  Hold hold;
  hold.x = x;
  hold.h = h;
  hold.cap = cap;
  hold.action = action_of(action);
  require(cap >= 1 && cap <= (hold.action == kQueueInput ? kMostKept : kLongest),
          "cap must be 1 to 2^30, and of a queue 1 to 4096");
  return hold;
}

Affine make_affine(const Array<float, 2>& weight, const Array<float, 1>& bias) {
  require(bias.size() == weight.shape(0), "a map needs one bias per row");
  require(fits_int(weight.shape(0)) && fits_int(weight.shape(1)), "a map needs 1 to 2^30 rows and columns");
  MatrixSource source;
  source.values = weight.data();
  source.rows = int(weight.shape(0));
  source.cols = int(weight.shape(1));
  source.columns = true;
  Affine map;
  map.weight = std::make_shared<PackedMatrix>(source);
  map.bias.assign(map.weight->view().rows, 0.0f);
  std::copy_n(bias.data(), bias.size(), map.bias.data());
  keep_few_rows(map, weight.data());
  return map;
}

Measure measure_of(const std::string& name) {
  if (name == "margin") return Measure::margin;
  if (name == "max") return Measure::max;
  if (name == "entropy") return Measure::entropy;
  throw std::invalid_argument("unknown measure of confidence");
}

Head make_head(bool sigmoid, const std::string& measure) {
  Head head;
  head.sigmoid = sigmoid;
  head.measure = measure_of(measure);
  return head;
}

bool are_starts(const std::vector<int64_t>& starts) {
  return !starts.empty() && starts[0] == 0 && std::is_sorted(starts.begin(), starts.end());
}

TimeExit make_time_exit(int every, int patience, int window, std::optional<Head> head,
                        std::vector<int64_t> threshold_starts, std::vector<float> thresholds,
                        std::vector<int64_t> map_starts, std::vector<Affine> translations, std::vector<Affine> logits) {
  require(every >= 1 && every <= kLongest && patience >= 1 && patience <= kLongest,
          "every and patience must be 1 to 2^30");
  require(window >= (head ? 0 : 1) && window <= kMostKept, "window must be 1 to 4096 (0 with a head)");
  require(are_starts(threshold_starts) && threshold_starts.size() == thresholds.size() && are_starts(map_starts),
          "time buckets start at 0 and ascend, with one threshold each");
  require((translations.empty() || translations.size() == map_starts.size()) &&
              logits.size() == (head ? map_starts.size() : 0),
          "one map per time bucket");
  TimeExit exit;
  exit.every = every;
  exit.patience = patience;
  exit.window = window;
  exit.head = head;
  exit.threshold_starts = std::move(threshold_starts);
  exit.thresholds = std::move(thresholds);
  exit.map_starts = std::move(map_starts);
  exit.translations = std::move(translations);
  exit.logits = std::move(logits);
  return exit;
}

DepthExit make_depth_exit(bool sequence, std::optional<Head> head, const std::vector<bool>& checks,
                          std::vector<float> thresholds, std::vector<Affine> steps, std::vector<Affine> finals,
                          std::vector<Affine> logits) {
  const size_t n = checks.size();
  require(thresholds.size() == n && steps.size() == n && finals.size() == n && logits.size() == (head ? n : 0),
          "an exit in depth needs one entry per layer but the top");
  require(head || !n || !checks[0], "without a head there is nothing to compare after one layer");
  DepthExit exit;
  exit.sequence = sequence;
  exit.head = head;
  exit.checks.assign(checks.begin(), checks.end());
  exit.thresholds = std::move(thresholds);
  exit.steps = std::move(steps);
  exit.finals = std::move(finals);
  exit.logits = std::move(logits);
  return exit;
}

Policy make_policy(const std::vector<std::vector<Thresholds>>& columns, const std::vector<std::optional<Hold>>& hold,
                   std::optional<TimeExit> time_exit, std::optional<DepthExit> depth_exit) {
  const auto queue =
      std::find_if(hold.begin(), hold.end(), [](const auto& h) { return h && h->action == kQueueInput; });
  const auto deciders = std::count_if(hold.begin(), hold.end(), [](const auto& h) { return h.has_value(); });
  require(queue == hold.end() || deciders == 1, "a queue would have to wait for another layer that decides: give one");
  Policy policy;
  policy.columns = columns;
  policy.hold = hold;
  policy.time_exit = std::move(time_exit);
  policy.depth_exit = std::move(depth_exit);
  return policy;
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
  m.def("depth_exit", &make_depth_exit, nb::arg("sequence"), nb::arg("head").none(), nb::arg("checks"),
        nb::arg("thresholds"), nb::arg("steps"), nb::arg("finals"), nb::arg("logits"));
  nb::class_<Policy>(m, "Policy");
  m.def("policy", &make_policy, nb::arg("columns"), nb::arg("hold") = std::vector<std::optional<Hold>>(),
        nb::arg("time_exit") = nb::none(), nb::arg("depth_exit") = nb::none());
}
