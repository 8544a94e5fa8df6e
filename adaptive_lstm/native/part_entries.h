// The products of the table. Part of kernels.cpp: compiled once per instruction set.
#pragma once
#include "kernels.h"
#include "part_float.h"
#include "part_pieces.h"
#include "part_pieces_q8.h"
#include "part_q8.h"

namespace {

using namespace alstm;

void dense(const Matrix& w, const float* z, ptrdiff_t zs, int n, const float* bias, float* y, ptrdiff_t ys,
           bool reverse) {
  if (!w.piece) return dense_whole(w, z, zs, n, bias, y, ys, reverse);
  if (w.format == Format::f32) return dense_pieces<float>(w, z, zs, n, bias, y, ys, reverse);
  if (w.format == Format::bf16) return dense_pieces<uint16_t>(w, z, zs, n, bias, y, ys, reverse);
  dense_pieces<int8_t>(w, z, zs, n, bias, y, ys, reverse);
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
