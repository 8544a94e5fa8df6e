// Matrix products with compressed weights (see Matrix::mask): a tile at a time is expanded into memory that stays in
// the caches, and the kernels for whole matrices run on it. Part of kernels.cpp: compiled once per instruction set.
//
// What is saved is the way from memory. In `dense` floats meet in the same order as in the whole matrix, and the bits
// are the same; listed columns may be summed in another one.
#pragma once
#include "kernels.h"
#include "part_float.h"
#include "part_q8.h"
#include "part_tiles.h"

namespace {

using namespace alstm;

// Bytes that are asked for ahead (measured): where runs follow each other, and in a column, which ends soon.
constexpr int kRunAhead = 2048, kColumnAhead = 512;

constexpr int kListRows = 256;  // of a tile of listed columns
static_assert(kListRows <= kNarrow, "the sums of a tile stay in registers");

struct Identity {
  int32_t at[kTogether + kGroup];  // the last group of columns prefetches one more
  constexpr Identity() : at() {
    for (int i = 0; i < kTogether + kGroup; i++) at[i] = i;
  }
};
constexpr Identity kIdentity;

// Some rows and columns of w, expanded.
inline Matrix expanded(const Matrix& w, const void* data, int row, int rows, int cols) {
  Matrix tile = w;
  tile.data = data;
  tile.scale = w.scale ? w.scale + row : nullptr;
  tile.rows = tile.tile = tile.pitch = rows;
  tile.cols = cols;
  tile.mask = nullptr;
  return tile;
}

// The elements of a run.
template <class T>
inline const T* kept_of(const Matrix& w, int run) {
  return static_cast<const T*>(w.data) + w.start[run];
}

// Expands the next block of columns [first, first + count), whose kept elements come from `next`.
template <class T>
inline void expand_block(const Matrix& w, int block, int first, int count, const T** next, T* to) {
  const int blocks = w.rows / kBlock;
  for (int c = 0; c < count; c++)
    next[c] = expand_run(next[c], w.mask + ptrdiff_t(first + c) * blocks + block, 1, to + c * kBlock, kColumnAhead);
}

template <class T>
void dense_compressed(const Matrix& w, const float* z, ptrdiff_t zs, int n, const float* bias, float* y, ptrdiff_t ys,
                      bool reverse) {
  alignas(64) T tile[kSlice * kBlock];
  auto multiply = [&](int row, int k, int some) {
    dense_whole(expanded(w, tile, row, kBlock, some), z + k, zs, n, bias && !k ? bias + row : nullptr, y + row, ys,
                false);
  };
  if (w.layout == Layout::columns) {
    const T* next[kSlice];
    for (int k = 0; k < w.cols; k += kSlice) {
      const int some = w.cols - k < kSlice ? w.cols - k : kSlice;
      for (int c = 0; c < some; c++) next[c] = kept_of<T>(w, k + c);
      for (int row = 0; row < w.rows; row += kBlock) {
        expand_block(w, row / kBlock, k, some, next, tile);
        multiply(row, k, some);
      }
    }
    return;
  }
  for (int i = 0; i < w.rows; i += kBlock) {
    const int row = reverse ? w.rows - kBlock - i : i;
    const T* next = kept_of<T>(w, row / kBlock);
    for (int k = 0; k < w.cols; k += kSlice) {
      const int some = w.cols - k < kSlice ? w.cols - k : kSlice;
      next = expand_run(next, w.mask + ptrdiff_t(row / kBlock) * w.cols + k, some, tile, kRunAhead);
      multiply(row, k, some);
    }
  }
}

// Calls visit(tile, row, first, some) with `rows` rows of the next `some` listed columns, which `tile` holds expanded.
template <class T, class Visit>
inline void each_tile(const Matrix& w, const int32_t* cols, int count, int rows, Visit visit) {
  alignas(64) T tile[kTogether * kListRows];
  const T* next[kTogether];
  const int blocks = w.rows / kBlock;
  for (int first = 0; first < count; first += kTogether) {
    const int some = count - first < kTogether ? count - first : kTogether;
    for (int i = 0; i < some; i++) next[i] = kept_of<T>(w, cols[first + i]);
    for (int row = 0; row < w.rows; row += rows) {
      const int high = w.rows - row < rows ? w.rows - row : rows, block = row / kBlock;
      for (int i = 0; i < some; i++)
        next[i] = expand_run(next[i], w.mask + ptrdiff_t(cols[first + i]) * blocks + block, high / kBlock,
                             tile + i * high, kColumnAhead);
      visit(expanded(w, tile, row, high, some), row, first, some);
    }
  }
}

template <class T>
void columns_compressed(const Matrix& w, const int32_t* cols, const float* delta, int count, float* y) {
  each_tile<T>(w, cols, count, kListRows, [&](const Matrix& tile, int row, int first, int some) {
    columns_whole(tile, kIdentity.at, delta + first, some, y + row, false);
  });
}

// One row of activations, where weights expand in registers: nothing waits for a tile.
template <By kBy, class D = Dot>
ALSTM_EXPANDS void q8_compressed_one(const Matrix& w, Packed<kBy> in, const float* bias, float* y, bool reverse) {
  using P = Product<kBy>;
  for (int i = 0; i < w.rows; i += kBlock) {
    const int row = reverse ? w.rows - kBlock - i : i;
    const uint8_t* next = kept_of<uint8_t>(w, row / kBlock);
    const uint64_t* mask = w.mask + ptrdiff_t(row / kBlock) * w.cols;
    typename D::Acc acc[4][P::accs];
    for (int v = 0; v < 4; v++) {
      acc[v][0] = D::set(-*in.correction);
      for (int p = 1; p < P::accs; p++) acc[v][p] = D::set(0);
    }
    for (int g = 0; g < w.cols / kGroup; g++) {
      read_ahead(next, mask + g * kGroup, kRunAhead);
      for (int v = 0; v < 4; v++) {
        const uint64_t has = mask[g * kGroup + v];
        P::add(acc[v], D::expand(next, has), in.group(0, g), in.plane);
        next += __builtin_popcountll(has);
      }
    }
    for (int v = 0; v < 4; v++) {
      const int at = row + q8_row<Layout::quads>(0, v);
      q8_finished(Vec::load(w.scale + at), D::to_float(P::total(acc[v])), in.largest, Vec::load((bias ? bias : y) + at))
          .store(y + at);
    }
  }
}

template <By kBy>
void q8_compressed(const Matrix& w, const int16_t* z, ptrdiff_t zs, const float* largest, int n, const float* bias,
                   float* y, ptrdiff_t ys, bool reverse, void* scratch) {
  const Packed<kBy> in = pack_rows<kBy>(w, z, zs, largest, n, scratch);
  uint8_t* tile = static_cast<uint8_t*>(scratch) + room_at(n, w.cols);
  const uint8_t** next = reinterpret_cast<const uint8_t**>(tile + ptrdiff_t(w.cols) * kBlock);
  const bool by_column = w.layout == Layout::columns;
  if constexpr (Dot::has_expand) {
    if (n == 1 && !by_column && expands(Format::q8)) return q8_compressed_one<kBy>(w, in, bias, y, reverse);
  }
  for (int c = 0; by_column && c < w.cols; c++) next[c] = kept_of<uint8_t>(w, c);
  for (int i = 0; i < w.rows; i += kBlock) {
    const int row = reverse && !by_column ? w.rows - kBlock - i : i, block = row / kBlock;
    if (by_column)
      expand_block(w, block, 0, w.cols, next, tile);
    else
      expand_run(kept_of<uint8_t>(w, block), w.mask + ptrdiff_t(block) * w.cols, w.cols, tile, kRunAhead);
    const Matrix whole = expanded(w, tile, row, kBlock, w.cols);
    const float* base = bias ? bias + row : nullptr;
    if (by_column)
      q8_dense<Layout::columns, kBy>(whole, in, n, base, y + row, ys, false);
    else
      q8_packed<Layout::quads, kBy>(whole, in, n, base, y + row, ys, false, nullptr);
  }
}

// Groups of listed columns, where weights expand in registers.
template <By kBy, class D = Dot>
ALSTM_EXPANDS void q8_list_compressed(const Matrix& w, const int32_t* cols, const uint8_t* deltas, int count,
                                      int32_t correction, int32_t* y) {
  using P = Product<kBy>;
  const int blocks = w.rows / kBlock;
  const uint8_t* next[kTogether];
  const uint64_t* mask[kTogether];
  for (int first = 0; first < count; first += kTogether) {
    const int some = count - first < kTogether ? count - first : kTogether;
    for (int i = 0; i < some; i++) {
      next[i] = kept_of<uint8_t>(w, cols[first + i]);
      mask[i] = w.mask + ptrdiff_t(cols[first + i]) * blocks;
    }
    const typename D::Acc excess = D::set(first ? 0 : -correction);
    for (int block = 0; block < blocks; block++) {
      int32_t* out = y + block * kBlock;
      typename D::Acc acc[4][P::accs];
      for (int v = 0; v < 4; v++) {
        acc[v][0] = D::add(D::load_acc(out + q8_row<Layout::columns>(0, v)), excess);
        for (int p = 1; p < P::accs; p++) acc[v][p] = D::set(0);
      }
      for (int k = 0; k < some; k += kGroup) {
        typename D::Quad c[kGroup], q[4];
        for (int i = 0; i < kGroup; i++) {
          const uint64_t has = mask[k + i][block];
          c[i] = D::expand(next[k + i], has);
          __builtin_prefetch(next[k + i] + kColumnAhead);
          next[k + i] += __builtin_popcountll(has);
        }
        D::interleave(c[0], c[1], c[2], c[3], q);
        for (int v = 0; v < 4; v++) P::add(acc[v], q[v], deltas + (first + k) / kGroup * P::step, count);
      }
      for (int v = 0; v < 4; v++) D::store_acc(out + q8_row<Layout::columns>(0, v), P::total(acc[v]));
    }
  }
}

void columns_compressed_q8(const Matrix& w, int32_t* cols, int16_t* delta, int count, int32_t* y, void* scratch) {
  while (count % kGroup) cols[count] = 0, delta[count] = 0, count++;
  int32_t sum = 0;
  for (int k = 0; k < count; k++) sum += delta[k];
  by_reach(delta, count, [&](auto way) {
    using P = Product<decltype(way)::by>;
    constexpr int B = Dot::tile_blocks / P::accs;
    static_assert(B * kBlock <= kListRows, "a tile holds the rows whose sums stay in registers");
    uint8_t* deltas = static_cast<uint8_t*>(scratch);
    P::pack(delta, count, deltas);
    if constexpr (Dot::has_expand) {
      if (expands(Format::q8)) return q8_list_compressed<decltype(way)::by>(w, cols, deltas, count, 128 * sum, y);
    }
    each_tile<uint8_t>(w, cols, count, B * kBlock, [&](const Matrix& tile, int row, int first, int some) {
      q8_list_rest<decltype(way)::by, B>(tile, 0, tile.rows / kBlock, kIdentity.at, deltas + first / kGroup * P::step,
                                         count, 0, some / kGroup, first ? 0 : 128 * sum, y + row);
    });
  });
}

}  // namespace
