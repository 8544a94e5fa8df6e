// Matrix products over the pieces that are kept of pruned matrices (see Matrix::piece). Part of kernels.cpp: compiled
// once per instruction set.
//
// Block by block, a product gathers the activations of the block's columns. Column by column, a list of columns that
// moved is filtered for every block: what is left are the pieces of both, columns that moved and weights that count.
#pragma once
#include "kernels.h"
#include "part_float.h"

namespace {

using namespace alstm;

// Columns of a list that are filtered at once.
constexpr int kFilter = 64;
constexpr int kLanes = 16;  // of those, taken together

// Up to kFilter listed columns on their way through the blocks: `next` is the piece of each that comes next.
struct Filter {
  alignas(64) int32_t next[kFilter];
  alignas(64) uint32_t where[kFilter];
  alignas(64) int32_t value[kFilter];  // a float's bits, or an integer
  int count;                           // padded to lanes of kLanes; entries behind the list have no pieces
  // What a block keeps, and kLanes entries of zeros.
  alignas(64) int32_t piece[kFilter + kLanes];
  alignas(64) int32_t kept[kFilter + kLanes];
};

inline void begin(Filter& f, const Matrix& w, const int32_t* cols, int count) {
  for (int i = 0; i < count; i++) f.next[i] = w.piece[cols[i]];
  f.count = (count + kLanes - 1) / kLanes * kLanes;
  for (int i = count; i < f.count; i++) f.next[i] = f.value[i] = 0, f.where[i] = 0;
}

inline void begin_word(Filter& f, const Matrix& w, const int32_t* cols, int count, int word) {
  for (int i = 0; i < count; i++) f.where[i] = w.where[ptrdiff_t(cols[i]) * w.words() + word];
}

// The pieces of a block among the columns; blocks must come in ascending order. Returns how many there are.
inline int filter_block(Filter& f, int block) {
  int kept = 0;
  for (int i = 0; i < f.count; i += kLanes)
    kept += select_bit(block % 32, f.where + i, f.next + i, f.value + i, f.piece + kept, f.kept + kept);
  for (int i = 0; i < kLanes; i++) f.piece[kept + i] = f.kept[kept + i] = 0;
  return kept;
}

// Calls visit(filter, block, number of its pieces), for the entries of a list of columns that may be many.
template <class Put, class Visit>
inline void each_kept(const Matrix& w, const int32_t* cols, int count, Put put, Visit visit) {
  Filter f;
  const int blocks = w.rows / kBlock;
  for (int first = 0; first < count; first += kFilter) {
    const int some = count - first < kFilter ? count - first : kFilter;
    begin(f, w, cols + first, some);
    for (int i = 0; i < some; i++) f.value[i] = put(first + i);
    for (int block = 0; block < blocks; block++) {
      if (block % 32 == 0) begin_word(f, w, cols + first, some, block / 32);
      const int kept = filter_block(f, block);
      if (kept) visit(f, block, kept);
    }
  }
}

// As write_rows, where the rows of the pieces lie in y.
template <int V>
inline void write_strips(const Matrix& w, int row, const Vec (&acc)[V], const float* base, float* y) {
  for (int v = 0; v < V; v++) {
    const int at = w.place(row + v * Vec::width);
    write_rows<1>({acc[v]}, w.scale ? w.scale + at : nullptr, base + at, y + at);
  }
}

template <class T>
void columns_pieces(const Matrix& w, const int32_t* cols, const float* delta, int count, float* y) {
  constexpr int V = Vec::single_vecs, rows = V * Vec::width;
  auto bits = [&](int i) {
    int32_t x;
    __builtin_memcpy(&x, delta + i, 4);
    return x;
  };
  each_kept(w, cols, count, bits, [&](const Filter& f, int block, int kept) {
    for (int at = 0; at < kBlock; at += rows) {
      const T* base = static_cast<const T*>(w.data) + at;
      Vec acc[V];
      for (int v = 0; v < V; v++) acc[v] = Vec::set(0.0f);
      for (int i = 0; i < kept; i++) {
        const T* piece = base + ptrdiff_t(f.piece[i]) * kBlock;
        float moved;
        __builtin_memcpy(&moved, f.kept + i, 4);
        const Vec value = Vec::set(moved);
        for (int v = 0; v < V; v++) acc[v] = Vec::fma(Vec::load(piece + v * Vec::width), value, acc[v]);
      }
      write_strips(w, block * kBlock + at, acc, y, y);
    }
  });
}

// y[j, rows of a block] = base + its pieces times z[j, their columns], of N rows of activations, from piece k0 to k1.
template <class T, int N, int V>
inline void pieces_rows(const Matrix& w, int row, int k0, int k1, const float* z, ptrdiff_t zs, const float* bias,
                        float* y, ptrdiff_t ys) {
  const T* base = static_cast<const T*>(w.data) + row % kBlock;
  Vec acc[N][V];
  for (int j = 0; j < N; j++)
    for (int v = 0; v < V; v++) acc[j][v] = Vec::set(0.0f);
  for (int k = k0; k < k1; k++) {
    Vec piece[V];
    for (int v = 0; v < V; v++) piece[v] = Vec::load(base + ptrdiff_t(k) * kBlock + v * Vec::width);
    const int col = w.piece_col[k];
    for (int j = 0; j < N; j++) {
      const Vec value = Vec::set(z[j * zs + col]);
      for (int v = 0; v < V; v++) acc[j][v] = Vec::fma(piece[v], value, acc[j][v]);
    }
  }
  for (int j = 0; j < N; j++)
    write_strips(w, row, acc[j], bias ? bias : y + j * ys, y + j * ys);
}

template <class T, int N>
inline void pieces_rest(const Matrix& w, int row, int k0, int k1, const float* z, ptrdiff_t zs, int n,
                        const float* bias, float* y, ptrdiff_t ys) {
  if (n == N) return pieces_rows<T, N, Vec::dense_vecs>(w, row, k0, k1, z, zs, bias, y, ys);
  if constexpr (N > 1) pieces_rest<T, N - 1>(w, row, k0, k1, z, zs, n, bias, y, ys);
}

template <class T>
void dense_pieces(const Matrix& w, const float* z, ptrdiff_t zs, int n, const float* bias, float* y, ptrdiff_t ys,
                  bool reverse) {
  constexpr int N = Vec::dense_rows, single = Vec::single_vecs * Vec::width, many = Vec::dense_vecs * Vec::width;
  const int rows = n == 1 ? single : many;
  for (int i = 0; i < w.rows; i += rows) {
    const int row = reverse ? w.rows - rows - i : i;
    const int first = w.piece[row / kBlock], last = w.piece[row / kBlock + 1];
    for (int k = first; k == first || k < last; k += kSlice) {  // in slices as in part_float.h; once for an empty block
      const int end = k + kSlice < last ? k + kSlice : last;
      const float* base = k == first ? bias : nullptr;
      if (n == 1) {
        pieces_rows<T, 1, Vec::single_vecs>(w, row, k, end, z, zs, base, y, ys);
        continue;
      }
      for (int j = 0; j < n; j += N)
        pieces_rest<T, N>(w, row, k, end, z + j * zs, zs, n - j < N ? n - j : N, base, y + j * ys, ys);
    }
  }
}

}  // namespace
