#include "run/exit_check.h"

#include <cstring>

#include "kernels/tuning.h"

namespace alstm {

CheckBlock::CheckBlock(const Plan& plan)
    : width_(ptrdiff_t(plan.output(0)) * plan.directions()), stride_(padded(width_ * ptrdiff_t(plan.layers().size()))) {
  states_.resize(size_t(kCheckRows) * stride_);
  rows.reserve(kCheckRows);
}

void CheckBlock::gather_outputs(const std::vector<PackedRows>& outputs, const RowLayout& layout, int layer) {
  for (size_t i = 0; i < rows.size(); i++) {
    const ptrdiff_t row = layout.row(rows[i].t, rows[i].b);
    for (int l = 0; l <= layer; l++)
      std::memcpy(states_.data() + ptrdiff_t(i) * stride_ + l * width_, outputs[l].data() + row * padded(width_),
                  width_ * sizeof(float));
  }
}

void CheckBlock::gather_states(const Batch& batch, int first, int last) {
  for (size_t i = 0; i < rows.size(); i++) {
    float* out = states_.data() + ptrdiff_t(i) * stride_;
    for (int l = first; l <= last; l++)
      for (const CellState& s : batch.layers()[l]) {
        std::memcpy(out, s.h_row(rows[i].b), s.cell->output * sizeof(float));
        out += s.cell->output;
      }
  }
}

void CheckBlock::gather_states(const Batch& batch, const Snapshots& snapshots, int first, int last) {
  for (size_t i = 0; i < rows.size(); i++) {
    float* out = states_.data() + ptrdiff_t(i) * stride_;
    for (int l = first; l <= last; l++, out += width_) {
      const int b = rows[i].b, done = rows[i].t;
      const float* h = snapshots.has(done) ? snapshots.h(l, b, done) : batch.layers()[l][0].h_row(b);
      std::memcpy(out, h, width_ * sizeof(float));
    }
  }
}

void keep_few_rows(Affine& map, const float* weight) {
  const int given = map.rows(), rows = int(round_up(given, kUnits)), cols = map.cols();
  if (rows > kFewRows) return;
  map.few.assign(size_t(rows) * size_t(cols), 0.0f);
  for (int r = 0; r < given; r++)
    for (int c = 0; c < cols; c++) map.few[size_t(c) * size_t(rows) + size_t(r)] = weight[size_t(r) * cols + c];
}

const float* CheckBlock::map(const Kernels& kernels, const Affine& map, Buffer<float>& out) const {
  if (const size_t few = map.few.size()) {
    const int cols = map.cols(), n = int(few / size_t(cols));
    for (size_t i = 0; i < rows.size(); i++)
      kernels.few_rows(map.few.data(), n, cols, states_.data() + ptrdiff_t(i) * stride_, map.bias.data(),
                       out.data() + ptrdiff_t(i) * map.stride());
    return out.data();
  }
  kernels.dense(map.weight->view(), states_.data(), stride_, int(rows.size()), map.bias.data(), out.data(),
                map.stride(), false);
  return out.data();
}

void grow_for(const std::vector<Affine>& maps, Buffer<float>& out) {
  for (const Affine& map : maps) grow(out, size_t(kCheckRows) * map.stride());
}

}  // namespace alstm
