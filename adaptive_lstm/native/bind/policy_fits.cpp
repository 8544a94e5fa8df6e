#include "bind/policy_fits.h"

#include "bind/bind.h"

namespace alstm {

namespace {

// Lists of columns are read from matrices packed for them; matrices packed in blocks for them are read in no other way.
void check_operand(const Buffer<float>* thresholds, const PackedMatrix& matrix, const char* wrong_size) {
  const Matrix& w = matrix.view();
  if (!thresholds || thresholds->empty()) {
    require(!w.block_sparse() || w.layout == Layout::interleaved,
            "a matrix packed with columns=True needs thresholds where it is stored in blocks");
    return;
  }
  require(thresholds->size() == size_t(matrix.source_cols()), wrong_size);
  require(w.layout == Layout::columns || (w.form == Form::dense && w.format != Format::int8),
          "thresholded int8 matrices, and those stored without zeros, must be packed with columns=True");
}

void check_columns(const Plan& plan, const Policy& policy) {
  const bool any = !policy.columns.empty();
  require(!any || policy.columns.size() == plan.layers().size(), "the policy needs one entry per layer");
  for (size_t l = 0; l < plan.layers().size(); l++) {
    require(!any || policy.columns[l].size() == plan.layers()[l].size(), "the policy needs one entry per direction");
    for (size_t d = 0; d < plan.layers()[l].size(); d++) {
      const Thresholds* thresholds = any ? &policy.columns[l][d] : nullptr;
      const Cell& cell = plan.layers()[l][d];
      check_operand(thresholds ? &thresholds->x : nullptr, *cell.w_ih, "x thresholds need one value per input column");
      check_operand(thresholds ? &thresholds->h : nullptr, *cell.w_hh,
                    "h thresholds need one value per recurrent column");
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

}  // namespace

void check_fits(const Plan& plan, const Policy& policy) {
  check_columns(plan, policy);
  const int layers = int(plan.layers().size());
  require(policy.hold.empty() || int(policy.hold.size()) == layers, "the policy needs one entry per layer");
  require(!policy.queue() || (plan.directions() == 1 && !policy.depth_exit),
          "queues need one direction, and no exits in depth");
  if (policy.time_exit || policy.depth_exit || policy.queue())
    for (int l = 1; l < layers; l++)
      require(plan.output(l) == plan.output(0), "exits and queues need layers of one width");
  if (policy.time_exit) check_time_exit(plan, policy);
  if (policy.depth_exit) check_depth_exit(plan, *policy.depth_exit);
}

}  // namespace alstm
