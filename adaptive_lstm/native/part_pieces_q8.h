// Products of integer activations with the pieces that are kept of pruned matrices. Part of kernels.cpp: compiled once
// per instruction set.
#pragma once
#include "kernels.h"
#include "part_pieces.h"
#include "part_q8.h"

namespace {

using namespace alstm;

// Zeros as q8 weights are stored.
struct Offset {
  uint8_t bytes[64];
  constexpr Offset() : bytes() {
    for (uint8_t& b : bytes) b = 128;
  }
};
constexpr Offset kOffset;

template <By kBy>
inline void add_pieces(const Matrix& w, const Filter& f, int block, int kept, int32_t* y) {
  using P = Product<kBy>;
  alignas(64) int16_t moved[kFilter];
  alignas(64) uint8_t packed[2 * kFilter];
  const int padded = (kept + kLanes - 1) / kLanes * kLanes, groups = (kept + kGroup - 1) / kGroup;
  int32_t sum = 0;
  for (int k = 0; k < padded; k++) {
    moved[k] = int16_t(f.kept[k]);
    sum += f.kept[k];
  }
  P::pack(moved, padded, packed);
  const Dot::Acc excess = Dot::set(-128 * sum);  // the weights are stored as w + 128
  const uint8_t* data = static_cast<const uint8_t*>(w.data);
  auto out = [&](int part, int i) { return y + w.place(block * kBlock + q8_row<Layout::columns>(part, i)); };
  for (int part = 0; part < kParts; part++) {
    Dot::Acc acc[4][P::accs];
    for (int i = 0; i < 4; i++) {
      acc[i][0] = Dot::add(Dot::load_acc(out(part, i)), excess);
      for (int p = 1; p < P::accs; p++) acc[i][p] = Dot::set(0);
    }
    for (int g = 0; g < groups; g++) {
      const uint8_t* c[kGroup];
      for (int k = 0; k < kGroup; k++) c[k] = data + ptrdiff_t(f.piece[kGroup * g + k]) * kBlock + part * Dot::bytes;
      Dot::Quad q[4];
      Dot::interleave(c[0], c[1], c[2], c[3], q);
      for (int i = 0; i < 4; i++) P::add(acc[i], q[i], packed + g * P::step, padded);
    }
    for (int i = 0; i < 4; i++) Dot::store_acc(out(part, i), P::total(acc[i]));
  }
}

void columns_pieces_q8(const Matrix& w, const int32_t* cols, const int16_t* delta, int count, int32_t* y) {
  for (int first = 0; first < count; first += kFilter) {
    const int some = count - first < kFilter ? count - first : kFilter;
    const int16_t* moved = delta + first;
    by_reach(moved, some, [&](auto way) {
      each_kept(w, cols + first, some, [&](int i) { return int32_t(moved[i]); },
                [&](const Filter& f, int block, int kept) { add_pieces<decltype(way)::by>(w, f, block, kept, y); });
    });
  }
}

// Rows of activations group by group: those of all rows for a group lie side by side.
template <By kBy>
struct Grouped {
  const uint8_t* z;
  ptrdiff_t stride, plane;  // bytes from one group to the next, and from the first plane to the second
  const int32_t* correction;
  const float* largest;
  Grouped from(int j) const {
    return {z + j * Product<kBy>::step, stride, plane, correction + j, largest ? largest + j : nullptr};
  }
  const uint8_t* group(int j, int g) const { return z + j * Product<kBy>::step + g * stride; }
};

constexpr int kGatherRows = 8;  // from this many rows on they are gathered together, column by column

inline uint32_t four_bytes(int a, int b, int c, int d) {
  return (uint32_t(a) & 255) | (uint32_t(b) & 255) << 8 | (uint32_t(c) & 255) << 16 | uint32_t(d) << 24;
}

// Gathers four columns of n rows each, as Grouped reads them, and adds them up.
template <By kBy>
inline void gather_group(const int16_t* a, const int16_t* b, const int16_t* c, const int16_t* d, int n, uint8_t* out,
                         ptrdiff_t plane, int32_t* sum) {
  for (int j = 0; j < n; j++) sum[j] += a[j] + b[j] + c[j] + d[j];
  if constexpr (kBy == By::words) {  // in the order of Product
    uint32_t* to = reinterpret_cast<uint32_t*>(out);
    for (int j = 0; j < n; j++) to[2 * j] = uint16_t(a[j]) | uint32_t(c[j]) << 16;
    for (int j = 0; j < n; j++) to[2 * j + 1] = uint16_t(b[j]) | uint32_t(d[j]) << 16;
  } else {
    uint32_t *low = reinterpret_cast<uint32_t*>(out), *high = reinterpret_cast<uint32_t*>(out + plane);
    for (int j = 0; j < n; j++) low[j] = four_bytes(a[j], b[j], c[j], d[j]);
    if constexpr (kBy == By::planes)
      for (int j = 0; j < n; j++) {
        const int e = (a[j] + 64) >> 7, f = (b[j] + 64) >> 7, g = (c[j] + 64) >> 7, h = (d[j] + 64) >> 7;
        low[j] = four_bytes(a[j] - 128 * e, b[j] - 128 * f, c[j] - 128 * g, d[j] - 128 * h);
        high[j] = four_bytes(e, f, g, h);
      }
  }
}

template <By kBy>
void q8_pieces_many(const Matrix& w, const int16_t* z, ptrdiff_t zs, const float* largest, int n, const float* bias,
                    float* y, ptrdiff_t ys, void* scratch) {
  constexpr int N = kBy == By::bytes ? Dot::byte_rows : Dot::wide_rows;
  int32_t* sum = static_cast<int32_t*>(scratch);
  uint8_t* packed = reinterpret_cast<uint8_t*>(sum + n);
  int16_t* columns = reinterpret_cast<int16_t*>(packed + 2 * ptrdiff_t(n) * w.cols);  // [C, n]
  for (int j = 0; j < n; j++)
    for (int c = 0; c < w.cols; c++) columns[ptrdiff_t(c) * n + j] = z[j * zs + c];
  const ptrdiff_t stride = ptrdiff_t(n) * Product<kBy>::step, plane = ptrdiff_t(n) * w.cols;
  for (int row = 0; row < w.rows; row += kBlock) {
    const int first = w.piece[row / kBlock], kept = w.piece[row / kBlock + 1] - first;
    for (int j = 0; j < n; j++) sum[j] = 0;
    for (int k = 0; k < kept; k += kGroup) {
      const uint16_t* col = w.piece_col + first + k;
      auto column = [&](int i) { return columns + ptrdiff_t(col[i]) * n; };
      gather_group<kBy>(column(0), column(1), column(2), column(3), n, packed + k / kGroup * stride, plane, sum);
    }
    for (int j = 0; j < n; j++) sum[j] *= 128;
    const Grouped<kBy> in{packed, stride, plane, sum, largest};
    const Block<uint8_t> block{static_cast<const uint8_t*>(w.data) + ptrdiff_t(first) * kBlock, kBlock};
    for (int j = 0; j < n; j += N)
      for (int part = 0; part < kParts; part++)
        q8_rest<Layout::quads, kBy, N>(w, block, kept, row, part, in.from(j), n - j < N ? n - j : N, bias,
                                       y + j * ys, ys);
  }
}

// Four listed activations of one row, as Product reads a group; z: the row, packed: as Product packs it.
template <By kBy>
inline void gather_one(const int16_t* z, const uint8_t* packed, int cols, const uint16_t* col, uint8_t* out) {
  auto put = [&](int at, uint32_t x) { __builtin_memcpy(out + at, &x, 4); };
  if constexpr (kBy == By::words) {
    put(0, uint16_t(z[col[0]]) | uint32_t(z[col[2]]) << 16);
    put(4, uint16_t(z[col[1]]) | uint32_t(z[col[3]]) << 16);
  } else {
    for (int p = 0; p < Product<kBy>::accs; p++, packed += cols)
      put(4 * p, packed[col[0]] | packed[col[1]] << 8 | packed[col[2]] << 16 | uint32_t(packed[col[3]]) << 24);
  }
}

// One row of activations: gathered on the way, while the weights are being read.
template <By kBy>
void q8_pieces_one(const Matrix& w, const int16_t* z, const float* largest, const float* bias, float* y, bool reverse,
                   void* scratch) {
  using P = Product<kBy>;
  uint8_t* packed = static_cast<uint8_t*>(scratch);
  P::pack(z, w.cols, packed);
  const Dot::Quad offset = Dot::load(kOffset.bytes);
  for (int i = 0; i < w.rows; i += kBlock) {
    const int row = reverse ? w.rows - kBlock - i : i;
    const int first = w.piece[row / kBlock], last = w.piece[row / kBlock + 1];
    for (int part = 0; part < kParts; part++) {
      Dot::Acc acc[4][P::accs], excess[P::accs];  // what the weights' offset adds
      for (int p = 0; p < P::accs; p++) excess[p] = Dot::set(0);
      for (int v = 0; v < 4; v++)
        for (int p = 0; p < P::accs; p++) acc[v][p] = Dot::set(0);
      for (int k = first; k < last; k += kGroup) {
        uint8_t group[8];
        gather_one<kBy>(z, packed, w.cols, w.piece_col + k, group);
        const uint8_t* data = static_cast<const uint8_t*>(w.data) + ptrdiff_t(k) * kBlock + part * 4 * Dot::bytes;
        for (int v = 0; v < 4; v++) P::add(acc[v], Dot::load(data + v * Dot::bytes), group, 4);
        P::add(excess, offset, group, 4);
      }
      for (int v = 0; v < 4; v++) {
        const int at = w.place(row + q8_row<Layout::quads>(part, v));
        const Vec sum = Dot::to_float(Dot::sub(P::total(acc[v]), P::total(excess)));
        q8_finished(Vec::load(w.scale + at), sum, largest, Vec::load((bias ? bias : y) + at)).store(y + at);
      }
    }
  }
}

template <By kBy>
void q8_pieces(const Matrix& w, const int16_t* z, ptrdiff_t zs, const float* largest, int n, const float* bias,
               float* y, ptrdiff_t ys, bool reverse, void* scratch) {
  if (n >= kGatherRows) return q8_pieces_many<kBy>(w, z, zs, largest, n, bias, y, ys, scratch);
  for (int j = 0; j < n; j++)
    q8_pieces_one<kBy>(w, z + j * zs, largest ? largest + j : nullptr, bias, y + j * ys, reverse, scratch);
}

}  // namespace
