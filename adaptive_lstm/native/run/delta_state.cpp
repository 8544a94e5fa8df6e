#include "run/delta_state.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "run/batch.h"

namespace alstm {

void DeltaState::reset(const Matrix& w, int batch) {
  if (w.format == Format::int8) {
    sent_int.assign(size_t(batch) * w.cols, 0);
    acc_int.assign(size_t(batch) * w.rows, 0);
  } else {
    sent.assign(size_t(batch) * w.cols, 0.0f);
    acc.assign(size_t(batch) * w.rows, 0.0f);
  }
  valid.assign(batch, 1);
  nothing_sent.assign(batch, 1);
  age.assign(batch, 0);
  delta_sum.assign(batch, 0.0f);
}

void Operand::attach(const PackedMatrix& packed, const Buffer<float>* given) {
  matrix = &packed;
  if (!given || given->empty()) return;
  thresholds = given->data();
  if (packed.kept().empty()) return;
  kept_thresholds.resize(packed.kept().size());
  packed.gather(given->data(), kept_thresholds.data());
  thresholds = kept_thresholds.data();
}

void store_sent(const Operand& operand, const Batch& batch, float* out) {
  const PackedMatrix& packed = *operand.matrix;
  const Matrix& w = packed.view();
  const DeltaState& delta = operand.delta;
  const int cols = packed.source_cols();
  const float step = w.levels ? 1.0f / float(w.levels) : 1.0f;
  if (!packed.kept().empty()) std::fill_n(out, size_t(batch.size()) * cols, 0.0f);
  for (int i = 0; i < batch.size(); i++) {
    float* row = out + size_t(batch.row_at(i)) * cols;
    if (delta.nothing_sent[i]) {
      std::fill_n(row, cols, std::numeric_limits<float>::quiet_NaN());
      continue;
    }
    for (int k = 0; k < packed.useful(); k++) {
      const size_t at = size_t(i) * w.cols + k;
      float& value = row[packed.kept().empty() ? k : packed.kept()[k]];
      if (w.format == Format::int8)
        value = float(delta.sent_int[at]) * (w.step ? w.step[k] : step);
      else
        value = delta.sent[at];
    }
  }
}

void load_sent(Operand& operand, const Batch& batch, const Kernels& kernels, const float* sent) {
  const PackedMatrix& packed = *operand.matrix;
  const Matrix& w = packed.view();
  DeltaState& delta = operand.delta;
  Buffer<float> gathered(w.cols);
  for (int i = 0; i < batch.size(); i++) {
    const float* given = sent + size_t(batch.row_at(i)) * packed.source_cols();
    if (std::isnan(given[0])) continue;
    const float* row = packed.gather(given, gathered.data());
    if (w.format == Format::int8)
      kernels.quantize(w, row, packed.useful(), delta.sent_int.data() + size_t(i) * w.cols);
    else
      std::memcpy(delta.sent.data() + size_t(i) * w.cols, row, packed.useful() * sizeof(float));
    delta.valid[i] = 0;
    delta.nothing_sent[i] = 0;
  }
}

}  // namespace alstm
