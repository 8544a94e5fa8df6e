#include "pack/plan.h"

#include <cstring>
#include <stdexcept>
#include <string>

namespace alstm {

Plan::Plan(std::vector<std::vector<Cell>> layers) : layers_(std::move(layers)) {
  auto fail = [](const std::string& what) { throw std::invalid_argument("plan: " + what); };
  if (layers_.empty() || layers_[0].empty()) fail("a stack needs at least one layer");
  int input = layers_[0][0].input;
  for (const auto& layer : layers_) {
    if (layer.size() > 2) fail("a layer has one or two directions");
    if (layer.size() != layers_[0].size()) fail("every layer needs the same number of directions");
    for (const Cell& d : layer) {
      if (d.input != input || d.w_ih->source_cols() != input)
        fail("the input width of a layer is not what the layer below gives");
      if (d.w_ih->source_rows() != 4 * d.hidden || d.w_hh->source_rows() != 4 * d.hidden)
        fail("a gate matrix needs 4 * hidden rows");
      if (d.w_hh->source_cols() != d.output)
        fail("the recurrent matrix needs as many columns as the layer has outputs");
      if (d.w_hh->view().rows != d.rows() || (d.w_hr && d.pruned() && d.w_hr->view().cols > d.units()))
        fail("the matrices of a layer must leave out the same units");
      if (d.w_hr && (d.w_hr->source_rows() != d.output || d.w_hr->source_cols() != d.hidden))
        fail("the projection must be [output, hidden]");
      if (!d.w_hr && d.output != d.hidden) fail("without projection the output is as wide as the hidden state");
      if (d.w_hr && d.w_hr->view().format == Format::int8) fail("the projection takes float activations");
      if (d.output != layer[0].output) fail("both directions of a layer need the same width");
      if (int(d.bias.size()) != d.rows()) fail("the bias needs one value per packed row");
    }
    input = layer[0].output * int(layer.size());
  }
}

void Cell::scatter(const float* units, float* h) const {
  std::memcpy(h, constant.data(), constant.size() * sizeof(float));
  for (size_t k = 0; k < live.size(); k++) h[live[k]] = units[k];
}

void Cell::set_constants(float* h) const {
  if (!pruned() || w_hr) return;
  size_t next = 0;
  for (int k = 0; k < hidden; k++) {
    if (next < live.size() && live[next] == k)
      next++;
    else
      h[k] = constant[k];
  }
}

size_t Plan::bytes() const {
  size_t sum = 0;
  for (const auto& layer : layers_)
    for (const Cell& d : layer)
      sum += d.w_ih->bytes() + d.w_hh->bytes() + (d.w_hr ? d.w_hr->bytes() : 0) + d.bias.size() * sizeof(float);
  return sum;
}

}  // namespace alstm
