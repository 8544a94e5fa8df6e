// Matrix products with float activations. Part of kernels.cpp: compiled once per instruction set.
#pragma once
#include "kernels.h"

namespace {

using namespace alstm;

// Where one block of 64 rows starts and how far apart its columns are.
template <class T>
struct Block {
  const T* base;
  ptrdiff_t stride;
};

template <class T>
inline Block<T> block_of(const Matrix& w, int row) {
  const int tile = row / w.tile;
  return {static_cast<const T*>(w.data) + ptrdiff_t(tile) * w.pitch * w.cols + (row - tile * w.tile), w.pitch};
}

// Calls visit(row, first, last) so that every `rows` rows of w meet every entry of a list of `count` columns once. In a
// narrow tile all entries come at once: their sum stays in registers. In a wide one it is loaded and stored again for
// every few entries, so that long pieces of a few columns are read side by side, as the prefetchers want it.
template <class Visit>
inline void each_piece(const Matrix& w, int rows, int count, int together, bool reverse, Visit visit) {
  const int some = w.tile <= kNarrow ? count : together;
  for (int t = 0; t < w.rows; t += w.tile) {
    const int start = reverse ? (w.rows - 1) / w.tile * w.tile - t : t;
    const int end = start + w.tile < w.rows ? start + w.tile : w.rows;
    for (int i = 0; i < count; i += some) {
      const int last = reverse ? count - i : i + some < count ? i + some : count;
      const int first = last - some > 0 ? last - some : 0;
      for (int row = start; row < end; row += rows) visit(row, reverse ? first : i, last);
    }
  }
}

constexpr int kTogether = 16;  // columns of a wide tile that are read side by side

// Columns are summed in slices of this many, each from zero and then added to the result, whatever the number of rows:
// so a step, a chunk and a whole sequence give the same bits, and a slice of weights stays in the first-level cache
// while all rows of activations pass over it.
constexpr int kSlice = 64;

// y = base (+ scale *) acc; `base` may be y itself.
template <int V>
inline void write_rows(const Vec (&acc)[V], const float* scale, const float* base, float* y) {
  for (int v = 0; v < V; v++) {
    const int at = v * Vec::width;
    const Vec from = Vec::load(base + at);
    (scale ? Vec::fma(Vec::load(scale + at), acc[v], from) : from + acc[v]).store(y + at);
  }
}

template <class T>
void dense_one(const Matrix& w, const float* z, const float* bias, float* y, bool reverse) {
  constexpr int V = Vec::single_vecs, rows = V * Vec::width;
  for (int i = 0; i < w.rows; i += rows) {
    const int row = reverse ? w.rows - rows - i : i;
    const Block<T> block = block_of<T>(w, row);
    for (int k = 0; k < w.cols; k += kSlice) {
      const int end = k + kSlice < w.cols ? k + kSlice : w.cols;
      Vec acc[V];
      for (int v = 0; v < V; v++) acc[v] = Vec::set(0.0f);
      for (int c = k; c < end; c++) {
        const Vec value = Vec::set(z[c]);
        const T* column = block.base + c * block.stride;
        for (int v = 0; v < V; v++) acc[v] = Vec::fma(Vec::load(column + v * Vec::width), value, acc[v]);
      }
      write_rows(acc, w.scale ? w.scale + row : nullptr, (bias && !k ? bias : y) + row, y + row);
    }
  }
}

// y[j, rows of the block] = base + W[:, k0:k1] z[j, k0:k1] for N rows of activations.
template <class T, int N>
inline void dense_rows(const Matrix& w, int row, int k0, int k1, const float* z, ptrdiff_t zs, const float* bias,
                       float* y, ptrdiff_t ys) {
  constexpr int V = Vec::dense_vecs;
  const Block<T> block = block_of<T>(w, row);
  Vec acc[N][V];
  for (int j = 0; j < N; j++)
    for (int v = 0; v < V; v++) acc[j][v] = Vec::set(0.0f);
  for (int k = k0; k < k1; k++) {
    Vec column[V];
    for (int v = 0; v < V; v++) column[v] = Vec::load(block.base + k * block.stride + v * Vec::width);
    for (int j = 0; j < N; j++) {
      const Vec value = Vec::set(z[j * zs + k]);
      for (int v = 0; v < V; v++) acc[j][v] = Vec::fma(column[v], value, acc[j][v]);
    }
  }
  for (int j = 0; j < N; j++)
    write_rows(acc[j], w.scale ? w.scale + row : nullptr, (bias ? bias : y + j * ys) + row, y + j * ys + row);
}

template <class T, int N>
inline void dense_rest(const Matrix& w, int row, int k0, int k1, const float* z, ptrdiff_t zs, int n, const float* bias,
                       float* y, ptrdiff_t ys) {
  if (n == N) return dense_rows<T, N>(w, row, k0, k1, z, zs, bias, y, ys);
  if constexpr (N > 1) dense_rest<T, N - 1>(w, row, k0, k1, z, zs, n, bias, y, ys);
}

template <class T>
void dense_many(const Matrix& w, const float* z, ptrdiff_t zs, int n, const float* bias, float* y, ptrdiff_t ys,
                bool reverse) {
  constexpr int N = Vec::dense_rows, rows = Vec::dense_vecs * Vec::width;
  for (int i = 0; i < w.rows; i += rows) {
    const int row = reverse ? w.rows - rows - i : i;
    for (int k = 0; k < w.cols; k += kSlice) {
      const int end = k + kSlice < w.cols ? k + kSlice : w.cols;
      for (int j = 0; j < n; j += N) {
        const int some = n - j < N ? n - j : N;
        dense_rest<T, N>(w, row, k, end, z + j * zs, zs, some, k ? nullptr : bias, y + j * ys, ys);
      }
    }
  }
}

template <class T>
void dense_as(const Matrix& w, const float* z, ptrdiff_t zs, int n, const float* bias, float* y, ptrdiff_t ys,
              bool reverse) {
  if (n == 1) return dense_one<T>(w, z, bias, y, reverse);
  dense_many<T>(w, z, zs, n, bias, y, ys, reverse);
}

void dense_whole(const Matrix& w, const float* z, ptrdiff_t zs, int n, const float* bias, float* y, ptrdiff_t ys,
                 bool reverse) {
  if (w.format == Format::f32) return dense_as<float>(w, z, zs, n, bias, y, ys, reverse);
  if (w.format == Format::bf16) return dense_as<uint16_t>(w, z, zs, n, bias, y, ys, reverse);
  dense_as<int8_t>(w, z, zs, n, bias, y, ys, reverse);
}

template <class T>
void columns_as(const Matrix& w, const int32_t* cols, const float* delta, int count, float* y, bool reverse) {
  constexpr int V = Vec::single_vecs;
  each_piece(w, V * Vec::width, count, kTogether, reverse, [&](int row, int first, int last) {
    const Block<T> block = block_of<T>(w, row);
    Vec acc[V];
    for (int v = 0; v < V; v++) acc[v] = Vec::set(0.0f);
    for (int k = first; k < last; k++) {
      const T* column = block.base + cols[k] * block.stride;
      const Vec value = Vec::set(delta[k]);
      for (int v = 0; v < V; v++) acc[v] = Vec::fma(Vec::load(column + v * Vec::width), value, acc[v]);
    }
    write_rows(acc, w.scale ? w.scale + row : nullptr, y + row, y + row);
  });
}

void columns_whole(const Matrix& w, const int32_t* cols, const float* delta, int count, float* acc, bool reverse) {
  if (w.format == Format::f32) return columns_as<float>(w, cols, delta, count, acc, reverse);
  if (w.format == Format::bf16) return columns_as<uint16_t>(w, cols, delta, count, acc, reverse);
  columns_as<int8_t>(w, cols, delta, count, acc, reverse);
}

}  // namespace
