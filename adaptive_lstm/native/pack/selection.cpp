#include "pack/selection.h"

#include <algorithm>
#include <numeric>

#include "pack/bitmask.h"

namespace alstm {

namespace {

template <class Keep>
std::vector<int32_t> list_if(int n, Keep keep) {
  std::vector<int32_t> out;
  for (int i = 0; i < n; i++)
    if (keep(i)) out.push_back(i);
  return out;
}

template <class T>
GateStrips strips_of(const MatrixSource& source, const std::vector<int>& rows) {
  GateStrips out{int(rows.size()) / kGateStrip, source.cols, {}};
  out.used.resize(size_t(out.count) * out.cols);
  for (size_t r = 0; r < rows.size(); r++) {
    if (rows[r] < 0) continue;
    const T* row = static_cast<const T*>(source.values) + size_t(rows[r]) * out.cols;
    for (int c = 0; c < out.cols; c++) out.used[r / kGateStrip * out.cols + c] |= uint8_t(!is_zero(row[c]));
  }
  return out;
}

GateStrips strips_of(const MatrixSource& source, const std::vector<int>& rows) {
  if (source.format == Format::f32) return strips_of<float>(source, rows);
  if (source.format == Format::bf16) return strips_of<uint16_t>(source, rows);
  return strips_of<int8_t>(source, rows);
}

GateStrips with_columns(const GateStrips& strips, const std::vector<int32_t>& cols) {
  GateStrips out{strips.count, int(cols.size()), {}};
  for (int s = 0; s < strips.count; s++)
    for (int32_t c : cols) out.used.push_back(strips.at(s, c));
  return out;
}

template <class T>
double share_of_zeros(const MatrixSource& source, const Selection& selection) {
  size_t zeros = 0;
  for (int r : selection.rows)
    for (int32_t c : selection.cols)
      zeros += r < 0 || is_zero(static_cast<const T*>(source.values)[size_t(r) * source.cols + c]);
  return double(zeros) / double(selection.rows.size() * selection.cols.size());
}

Selection select_gates(const MatrixSource& source) {
  Selection out;
  out.rows = packed_order(source.rows, live_units(source.live, source.rows / 4));
  GateStrips used;
  if (source.zeros) used = strips_of(source, out.rows);
  out.cols = list_if(source.cols, [&](int c) {
    bool any = !source.zeros;
    for (int s = 0; s < used.count && !any; s++) any = used.at(s, c);
    return any;
  });
  out.useful = int(out.cols.size());
  if (out.cols.empty() && source.cols) out.cols.push_back(0);
  if (source.zeros) out.used = with_columns(used, out.cols);
  return out;
}

Selection select_projection(const MatrixSource& source) {
  Selection out;
  out.rows.resize(round_up(source.rows, kRowBlock), -1);
  std::iota(out.rows.begin(), out.rows.begin() + source.rows, 0);
  out.cols = live_units(source.live, source.cols);
  if (out.cols.empty()) out.cols.push_back(0);
  out.useful = int(out.cols.size());
  return out;
}

}  // namespace

std::vector<int32_t> live_units(const bool* live, int units) {
  return list_if(units, [&](int k) { return !live || live[k]; });
}

std::vector<int> packed_order(int rows, const std::vector<int32_t>& live) {
  const int units = int(live.size());
  std::vector<int> from(4 * round_up(std::max(units, 1), kUnits), -1);
  for (int r = 0; r < int(from.size()); r++) {
    const int k = r / kRowBlock * kUnits + r % kUnits, gate = r % kRowBlock / kUnits;
    if (k < units) from[r] = gate * (rows / 4) + live[k];
  }
  return from;
}

Selection select(const MatrixSource& source) { return source.gates ? select_gates(source) : select_projection(source); }

double share_of_zeros(const MatrixSource& source, const Selection& selection) {
  if (source.format == Format::f32) return share_of_zeros<float>(source, selection);
  if (source.format == Format::bf16) return share_of_zeros<uint16_t>(source, selection);
  return share_of_zeros<int8_t>(source, selection);
}

}  // namespace alstm
