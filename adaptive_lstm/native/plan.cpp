#include "plan.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace alstm {

namespace {

constexpr size_t kLarge = size_t(512) << 10;  // bytes: half of a common second-level cache

struct Tiling {
  int tile, pitch;
};

// How a matrix of `size` bytes per element is cut. Where single columns are visited and the matrix comes from far away,
// a tile is the whole matrix: the bytes of a column are adjacent, and skipped columns save their share of the time. In
// pieces of a few cache lines they would not: those are read at two thirds of the speed, fewer columns at less.
Tiling tiling(const Source& source, const Matrix& view, size_t size) {
  if (source.columns && size_t(view.rows) * view.cols * size > kLarge) {
    // An odd number of cache lines: columns a power of two apart would compete for the same few places in the caches.
    const int line = int(64 / size);
    return {view.rows, view.rows / line % 2 ? view.rows : view.rows + line};
  }
  if (source.format != Format::q8) return {kBlock, kBlock};
  const int tile = std::min(view.layout == Layout::columns ? kNarrow : 128, view.rows);
  return {tile, tile};
}

// Row of the source that packed row r holds, or -1 for padding.
int source_row(const Source& source, int r) {
  if (!source.gates) return r < source.rows ? r : -1;
  const int hidden = source.rows / 4;
  const int unit = r / kBlock * kUnits + r % kUnits, gate = r % kBlock / kUnits;
  return unit < hidden ? gate * hidden + unit : -1;
}

int packed_rows(int rows, bool gates) { return gates ? 4 * round_up(rows / 4, kUnits) : round_up(rows, kBlock); }

template <class T>
void pack_plain(const Source& source, const Matrix& view, uint8_t* out) {
  T* data = reinterpret_cast<T*>(out);
  const T* values = static_cast<const T*>(source.values);
  for (int r = 0; r < view.rows; r++) {
    const int from = source_row(source, r);
    if (from < 0) continue;  // the buffer starts as zeros
    const int tile = r / view.tile;
    T* row = data + size_t(tile) * view.pitch * view.cols + (r - tile * view.tile);
    for (int c = 0; c < source.cols; c++) row[size_t(c) * view.pitch] = values[size_t(from) * source.cols + c];
  }
}

void pack_q8(const Source& source, const Matrix& view, Buffer<uint8_t>& data) {
  const int8_t* values = static_cast<const int8_t*>(source.values);
  std::fill(data.begin(), data.end(), uint8_t(128));
  for (int r = 0; r < view.rows; r++) {
    const int from = source_row(source, r);
    if (from < 0) continue;
    const int tile = r / view.tile, first = tile * view.tile, width = std::min(view.tile, view.rows - first);
    for (int c = 0; c < source.cols; c++) {
      size_t at;
      if (view.layout == Layout::columns)
        at = (size_t(tile) * view.cols + c) * view.pitch + (r - first) / kBlock * kBlock + q8_row_position(r % kBlock);
      else
        at = size_t(first) * view.cols + (size_t(c / kGroup) * width + (r - first)) * kGroup + c % kGroup;
      data[at] = uint8_t(values[size_t(from) * source.cols + c] + 128);
    }
  }
}

}  // namespace

PackedMatrix::PackedMatrix(const Source& source) : source_rows_(source.rows), source_cols_(source.cols) {
  view_.format = source.format;
  view_.layout = source.columns ? Layout::columns : Layout::quads;
  view_.levels = source.levels;
  view_.rows = packed_rows(source.rows, source.gates);
  view_.cols = source.format == Format::q8 ? round_up(source.cols, kGroup) : source.cols;
  const size_t size = source.format == Format::f32 ? 4 : source.format == Format::bf16 ? 2 : 1;
  const Tiling cut = tiling(source, view_, size);
  view_.tile = cut.tile;
  view_.pitch = cut.pitch;
  data_.resize(size_t(round_up(view_.rows, cut.tile)) / cut.tile * cut.pitch * view_.cols * size);
  if (source.format == Format::f32) pack_plain<float>(source, view_, data_.data());
  if (source.format == Format::bf16) pack_plain<uint16_t>(source, view_, data_.data());
  if (source.format == Format::i8) pack_plain<int8_t>(source, view_, data_.data());
  if (source.format == Format::q8) pack_q8(source, view_, data_);
  if (source.scale) {
    scale_.resize(view_.rows);
    const float step = source.format == Format::q8 ? 1.0f / float(source.levels) : 1.0f;
    for (int r = 0; r < view_.rows; r++) {
      const int from = source_row(source, r);
      if (from >= 0) scale_[r] = source.scale[from] * step;
    }
    view_.scale = scale_.data();
  }
  if (source.column_scale) {
    factor_.resize(round_up(source.cols, kBlock));
    step_.resize(factor_.size());
    for (int c = 0; c < source.cols; c++) {
      factor_[c] = float(source.levels) / source.column_scale[c];
      step_[c] = source.column_scale[c] / float(source.levels);
    }
    view_.factor = factor_.data();
    view_.step = step_.data();
  }
  view_.data = data_.data();
}

Buffer<float> pack_bias(const float* bias, int hidden) {
  const Source rows{bias, nullptr, nullptr, 4 * hidden, 1, Format::f32, 0, true, true};
  Buffer<float> out(packed_rows(4 * hidden, true));
  for (int r = 0; r < int(out.size()); r++) {
    const int from = source_row(rows, r);
    if (from >= 0) out[r] = bias[from];
  }
  return out;
}

Plan::Plan(std::vector<std::vector<Direction>> layers) : layers_(std::move(layers)) {
  auto fail = [](const std::string& what) { throw std::invalid_argument("plan: " + what); };
  if (layers_.empty() || layers_[0].empty()) fail("a stack needs at least one layer");
  int input = layers_[0][0].input;
  for (const auto& layer : layers_) {
    if (layer.size() != layers_[0].size()) fail("every layer needs the same number of directions");
    for (const Direction& d : layer) {
      if (d.input != input || d.w_ih->source_cols() != input)
        fail("the input width of a layer is not what the layer below gives");
      if (d.w_ih->source_rows() != 4 * d.hidden || d.w_hh->source_rows() != 4 * d.hidden)
        fail("a gate matrix needs 4 * hidden rows");
      if (d.w_hh->source_cols() != d.output)
        fail("the recurrent matrix needs as many columns as the layer has outputs");
      if (d.w_hr && (d.w_hr->source_rows() != d.output || d.w_hr->source_cols() != d.hidden))
        fail("the projection must be [output, hidden]");
      if (!d.w_hr && d.output != d.hidden) fail("without projection the output is as wide as the hidden state");
      if (d.w_hr && d.w_hr->view().format == Format::q8) fail("the projection takes float activations");
      if (d.output != layer[0].output) fail("both directions of a layer need the same width");
      if (int(d.bias.size()) != d.rows()) fail("the bias needs one value per packed row");
    }
    input = layer[0].output * int(layer.size());
  }
}

size_t Plan::bytes() const {
  size_t sum = 0;
  for (const auto& layer : layers_)
    for (const Direction& d : layer)
      sum += d.w_ih->bytes() + d.w_hh->bytes() + (d.w_hr ? d.w_hr->bytes() : 0) + d.bias.size() * sizeof(float);
  return sum;
}

}  // namespace alstm
