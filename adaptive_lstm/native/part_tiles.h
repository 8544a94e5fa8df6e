// Products of many rows of integer activations by matrix tiles, for instruction sets that have them. Part of
// kernels.cpp: compiled once per instruction set.
#pragma once
#include "kernels.h"
#include "part_q8.h"

namespace {

using namespace alstm;

// Rows of activations from which tiles are faster (measured): a tile takes as long for one row as for a few, and single
// columns are put in another order first.
template <Layout kLayout>
constexpr int kTileRows = kLayout == Layout::quads ? 4 : 16;

// Kernels::busy_q8
constexpr double kBusyQ8 = Tiles::here ? 0.18 : 0.3;

// A block of 64 rows with the four bytes of a group adjacent, groups `stride` bytes apart.
template <Layout kLayout>
inline Block<uint8_t> tiled_block(const Matrix& w, int row, uint8_t* room) {
  const Block<uint8_t> block = q8_block<kLayout>(w, row);
  if constexpr (kLayout == Layout::quads) {
    return {block.base, block.stride * kGroup};
  } else {
    for (int g = 0; g < w.cols / kGroup; g++)
      for (int part = 0; part < kParts; part++) {
        Dot::Quad q[4];
        load_quads<kLayout>(block, g, part, q);
        for (int i = 0; i < 4; i++)
          __builtin_memcpy(room + (g * kBlock + q8_row<kLayout>(part, i)) * kGroup, &q[i], sizeof q[i]);
      }
    return {room, kBlock * kGroup};
  }
}

template <Layout kLayout, By kBy, class T>
void q8_tiles(const Matrix& w, Packed<kBy> in, int n, const float* bias, float* y, ptrdiff_t ys, bool reverse,
              uint8_t* room) {
  using P = Product<kBy>;
  static_assert(kBy != By::words, "tiles multiply bytes");
  const int parts = (n + T::kRows - 1) / T::kRows, rows = (n + parts - 1) / parts;
  const T shapes(rows, w.cols % T::kBytes);
  alignas(64) int32_t sums[P::accs][4][T::kRows][16];
  for (int b = 0; b < w.rows; b += kBlock) {
    const int row = reverse ? w.rows - kBlock - b : b;
    const Block<uint8_t> block = tiled_block<kLayout>(w, row, room);
    int at[4];
    Vec scale[4], start[4];
    for (int i = 0; i < 4; i++) {
      at[i] = w.place(row + 16 * i);
      scale[i] = Vec::load(w.scale + at[i]);
      start[i] = bias ? Vec::load(bias + at[i]) : Vec::set(0.0f);
    }
    for (int first = 0; first < n; first += rows) {
      const uint8_t* z = in.group(first, 0);  // tiles may read on behind the last row: that is scratch
      for (int p = 0; p < P::accs; p++)
        T::multiply(z + p * in.plane, in.stride, block.base, block.stride, w.cols, sums[p]);
      for (int j = first; j < n && j < first + rows; j++) {
        const Dot::Acc excess = Dot::set(-in.correction[j]);
        for (int i = 0; i < 4; i++) {
          Dot::Acc acc[P::accs];
          for (int p = 0; p < P::accs; p++) acc[p] = Dot::load_acc(sums[p][i][j - first]);
          float* out = y + j * ys + at[i];
          q8_finished(scale[i], Dot::to_float(Dot::add(P::total(acc), excess)), in.largest ? in.largest + j : nullptr,
                      bias ? start[i] : Vec::load(out))
              .store(out);
        }
      }
    }
  }
}

// Rows of activations as packed, times w. `room`: for a block of single columns in another order.
template <Layout kLayout, By kBy>
void q8_packed(const Matrix& w, Packed<kBy> in, int n, const float* bias, float* y, ptrdiff_t ys, bool reverse,
               uint8_t* room) {
  if constexpr (Tiles::here && kBy != By::words)
    if (n >= kTileRows<kLayout>) return q8_tiles<kLayout, kBy, Tiles>(w, in, n, bias, y, ys, reverse, room);
  q8_dense<kLayout, kBy>(w, in, n, bias, y, ys, reverse);
}

}  // namespace
