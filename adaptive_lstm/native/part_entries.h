// The products of the table. Part of kernels.cpp: compiled once per instruction set.
#pragma once
#include "kernels.h"
#include "part_float.h"
#include "part_pieces.h"
#include "part_pieces_q8.h"
#include "part_q8.h"
#include "part_tiles.h"

namespace {

using namespace alstm;

void dense(const Matrix& w, const float* z, ptrdiff_t zs, int n, const float* bias, float* y, ptrdiff_t ys,
           bool reverse) {
  if (!w.piece) return dense_whole(w, z, zs, n, bias, y, ys, reverse);
  if (w.format == Format::f32) return dense_pieces<float>(w, z, zs, n, bias, y, ys, reverse);
  if (w.format == Format::bf16) return dense_pieces<uint16_t>(w, z, zs, n, bias, y, ys, reverse);
  dense_pieces<int8_t>(w, z, zs, n, bias, y, ys, reverse);
}

template <Layout kLayout, By kBy>
void q8_packed(const Matrix& w, Packed<kBy> in, int n, const float* bias, float* y, ptrdiff_t ys, bool reverse,
               uint8_t* room) {
  if constexpr (Tiles::here && kBy != By::words)
    if (n >= kTileRows<kLayout>) return q8_tiles<kLayout, kBy, Tiles>(w, in, n, bias, y, ys, reverse, room);
  q8_dense<kLayout, kBy>(w, in, n, bias, y, ys, reverse);
}

template <By kBy>
void q8_by(const Matrix& w, const int16_t* z, ptrdiff_t zs, const float* largest, int n, const float* bias, float* y,
           ptrdiff_t ys, bool reverse, void* scratch) {
  int32_t* correction = static_cast<int32_t*>(scratch);
  uint8_t* packed = reinterpret_cast<uint8_t*>(correction + n);
  const ptrdiff_t stride = 2 * w.cols;
  for (int j = 0; j < n; j++) {
    int32_t sum = 0;
    for (int k = 0; k < w.cols; k++) sum += z[j * zs + k];
    correction[j] = 128 * sum;
    Product<kBy>::pack(z + j * zs, w.cols, packed + j * stride);
  }
  const Packed<kBy> in{packed, stride, w.cols, correction, largest};
  uint8_t* room = static_cast<uint8_t*>(scratch) + room_at(n, w.cols);
  (w.layout == Layout::quads ? q8_packed<Layout::quads, kBy> : q8_packed<Layout::columns, kBy>)(w, in, n, bias, y, ys,
                                                                                                reverse, room);
}

void dense_whole_q8(const Matrix& w, const int16_t* z, ptrdiff_t zs, const float* largest, int n, const float* bias,
                    float* y, ptrdiff_t ys, bool reverse, void* scratch) {
  if constexpr (Dot::has_dot8)
    (w.levels <= 127 ? q8_by<By::bytes> : q8_by<By::planes>)(w, z, zs, largest, n, bias, y, ys, reverse, scratch);
  else
    q8_by<By::words>(w, z, zs, largest, n, bias, y, ys, reverse, scratch);
}

void dense_q8(const Matrix& w, const int16_t* z, ptrdiff_t zs, const float* largest, int n, const float* bias, float* y,
              ptrdiff_t ys, bool reverse, void* scratch) {
  if (!w.dynamic) largest = nullptr;
  if (!w.piece) return dense_whole_q8(w, z, zs, largest, n, bias, y, ys, reverse, scratch);
  if constexpr (Dot::has_dot8)
    (w.levels <= 127 ? q8_pieces<By::bytes> : q8_pieces<By::planes>)(w, z, zs, largest, n, bias, y, ys, reverse,
                                                                     scratch);
  else
    q8_pieces<By::words>(w, z, zs, largest, n, bias, y, ys, reverse, scratch);
}

void columns(const Matrix& w, const int32_t* cols, const float* delta, int count, float* acc, bool reverse) {
  if (!w.piece) return columns_whole(w, cols, delta, count, acc, reverse);
  if (w.format == Format::f32) return columns_pieces<float>(w, cols, delta, count, acc);
  if (w.format == Format::bf16) return columns_pieces<uint16_t>(w, cols, delta, count, acc);
  columns_pieces<int8_t>(w, cols, delta, count, acc);
}

void columns_q8(const Matrix& w, int32_t* cols, int16_t* delta, int count, int32_t* acc, bool reverse, void* scratch) {
  if (!w.piece) return columns_whole_q8(w, cols, delta, count, acc, reverse, scratch);
  columns_pieces_q8(w, cols, delta, count, acc);
}

}  // namespace
