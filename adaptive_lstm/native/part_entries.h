// The products of the table. Part of kernels.cpp: compiled once per instruction set.
#pragma once
#include "kernels.h"
#include "part_compressed.h"
#include "part_float.h"
#include "part_pieces.h"
#include "part_pieces_q8.h"
#include "part_q8.h"
#include "part_tiles.h"

namespace {

using namespace alstm;

void dense(const Matrix& w, const float* z, ptrdiff_t zs, int n, const float* bias, float* y, ptrdiff_t ys,
           bool reverse) {
  if (w.mask) {
    if (w.format == Format::f32) return dense_compressed<float>(w, z, zs, n, bias, y, ys, reverse);
    if (w.format == Format::bf16) return dense_compressed<uint16_t>(w, z, zs, n, bias, y, ys, reverse);
    return dense_compressed<int8_t>(w, z, zs, n, bias, y, ys, reverse);
  }
  if (!w.piece) return dense_whole(w, z, zs, n, bias, y, ys, reverse);
  if (w.format == Format::f32) return dense_pieces<float>(w, z, zs, n, bias, y, ys, reverse);
  if (w.format == Format::bf16) return dense_pieces<uint16_t>(w, z, zs, n, bias, y, ys, reverse);
  dense_pieces<int8_t>(w, z, zs, n, bias, y, ys, reverse);
}

template <By kBy>
void q8_by(const Matrix& w, const int16_t* z, ptrdiff_t zs, const float* largest, int n, const float* bias, float* y,
           ptrdiff_t ys, bool reverse, void* scratch) {
  const Packed<kBy> in = pack_rows<kBy>(w, z, zs, largest, n, scratch);
  uint8_t* room = static_cast<uint8_t*>(scratch) + room_at(n, w.cols);
  (w.layout == Layout::quads ? q8_packed<Layout::quads, kBy> : q8_packed<Layout::columns, kBy>)(w, in, n, bias, y, ys,
                                                                                                reverse, room);
}

void dense_q8(const Matrix& w, const int16_t* z, ptrdiff_t zs, const float* largest, int n, const float* bias, float* y,
              ptrdiff_t ys, bool reverse, void* scratch) {
  if (!w.dynamic) largest = nullptr;
  auto multiply = [&](auto way) -> void {
    constexpr By by = decltype(way)::by;
    (w.mask    ? q8_compressed<by>
     : w.piece ? q8_pieces<by>
               : q8_by<by>)(w, z, zs, largest, n, bias, y, ys, reverse, scratch);
  };
  if constexpr (Dot::has_dot8) {
    if (w.levels <= 127) return multiply(Way<By::bytes>{});
    multiply(Way<By::planes>{});
  } else {
    multiply(Way<By::words>{});
  }
}

void columns(const Matrix& w, const int32_t* cols, const float* delta, int count, float* acc, bool reverse) {
  if (w.mask) {
    if (w.format == Format::f32) return columns_compressed<float>(w, cols, delta, count, acc);
    if (w.format == Format::bf16) return columns_compressed<uint16_t>(w, cols, delta, count, acc);
    return columns_compressed<int8_t>(w, cols, delta, count, acc);
  }
  if (!w.piece) return columns_whole(w, cols, delta, count, acc, reverse);
  if (w.format == Format::f32) return columns_pieces<float>(w, cols, delta, count, acc);
  if (w.format == Format::bf16) return columns_pieces<uint16_t>(w, cols, delta, count, acc);
  columns_pieces<int8_t>(w, cols, delta, count, acc);
}

void columns_q8(const Matrix& w, int32_t* cols, int16_t* delta, int count, int32_t* acc, bool reverse, void* scratch) {
  if (w.mask) return columns_compressed_q8(w, cols, delta, count, acc, scratch);
  if (!w.piece) return columns_whole_q8(w, cols, delta, count, acc, reverse, scratch);
  columns_pieces_q8(w, cols, delta, count, acc);
}

}  // namespace
