// Matrix products over the pieces that are kept of pruned matrices (see Matrix::piece). Part of kernels.cpp: compiled
// once per instruction set.
//
// Block by block, a product gathers the activations of the block's columns. Column by column, a list of columns that
// moved is filtered for every block: what is left are the pieces of both, columns that moved and weights that count.
#pragma once
#include "kernels.h"
#include "part_float.h"
#include "part_q8.h"

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
      const int row = block * kBlock + at;
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
      write_rows(acc, w.scale ? w.scale + row : nullptr, y + row, y + row);
    }
  });
}

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
  alignas(64) int16_t moved[kFilter];
  alignas(64) uint8_t packed[2 * kFilter];
  const int groups = (kept + kGroup - 1) / kGroup;
  for (int i = 0; i < kept; i += kLanes) {
    for (int k = 0; k < kLanes; k++) moved[i + k] = int16_t(f.kept[i + k]);
    Product<kBy>::pack(moved + i, kLanes, packed + (kBy == By::words ? 2 : 1) * i);
  }
  const uint8_t* data = static_cast<const uint8_t*>(w.data);
  int32_t* out = y + block * kBlock;
  const Dot::Quad offset = Dot::load(kOffset.bytes);
  for (int part = 0; part < kParts; part++) {
    Dot::Acc acc[4][1], excess[1] = {Dot::set(0)};  // what the weights' offset adds
    for (int i = 0; i < 4; i++) acc[i][0] = Dot::load_acc(out + q8_row<Layout::columns>(part, i));
    for (int g = 0; g < groups; g++) {
      const uint8_t* c[kGroup];
      for (int k = 0; k < kGroup; k++) c[k] = data + ptrdiff_t(f.piece[kGroup * g + k]) * kBlock + part * Dot::bytes;
      Dot::Quad q[4];
      Dot::interleave(c[0], c[1], c[2], c[3], q);
      for (int i = 0; i < 4; i++) Product<kBy>::add(acc[i], q[i], packed, g, 0);
      Product<kBy>::add(excess, offset, packed, g, 0);
    }
    for (int i = 0; i < 4; i++)
      Dot::store_acc(out + q8_row<Layout::columns>(part, i), Dot::sub(acc[i][0], excess[0]));
  }
}

void columns_pieces_q8(const Matrix& w, const int32_t* cols, const int16_t* delta, int count, int32_t* y) {
  for (int first = 0; first < count; first += kFilter) {
    const int some = count - first < kFilter ? count - first : kFilter;
    const int16_t* moved = delta + first;
    bool fits = Dot::has_dot8;
    for (int i = 0; i < some; i++) fits &= moved[i] >= -128 && moved[i] <= 127;
    auto value = [&](int i) { return int32_t(moved[i]); };
    if (fits)
      each_kept(w, cols + first, some, value,
                [&](const Filter& f, int block, int kept) { add_pieces<kFew>(w, f, block, kept, y); });
    else  // a value jumped by more than a byte, which is rare
      each_kept(w, cols + first, some, value,
                [&](const Filter& f, int block, int kept) { add_pieces<By::words>(w, f, block, kept, y); });
  }
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
    write_rows(acc[j], w.scale ? w.scale + row : nullptr, (bias ? bias : y + j * ys) + row, y + j * ys + row);
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

template <By kBy>
void q8_pieces(const Matrix& w, const int16_t* z, ptrdiff_t zs, int n, const float* bias, float* y, ptrdiff_t ys,
               bool reverse, void* scratch) {
  constexpr int N = kBy == By::bytes ? Dot::byte_rows : Dot::wide_rows;
  int32_t* correction = static_cast<int32_t*>(scratch);
  int16_t* gathered = reinterpret_cast<int16_t*>(correction + n);
  uint8_t* packed = reinterpret_cast<uint8_t*>(gathered + w.cols + kListSlack);
  const int words = (w.cols + 31) / 32;
  const ptrdiff_t stride = 2 * w.cols;
  for (int i = 0; i < w.rows; i += kBlock) {
    const int row = reverse ? w.rows - kBlock - i : i;
    const int first = w.piece[row / kBlock], kept = w.piece[row / kBlock + 1] - first;
    const uint32_t* where = w.where + ptrdiff_t(row / kBlock) * words;
    for (int j = 0; j < n; j++) {
      for (int k = pick(z + j * zs, where, words, gathered); k < kept; k++) gathered[k] = 0;
      int32_t sum = 0;
      for (int k = 0; k < kept; k++) sum += gathered[k];
      correction[j] = 128 * sum;
      Product<kBy>::pack(gathered, kept, packed + j * stride);
    }
    const Packed in{packed, stride, correction};
    const Block<uint8_t> block{static_cast<const uint8_t*>(w.data) + ptrdiff_t(first) * kBlock, kBlock};
    for (int j = 0; j < n; j += N)
      for (int part = 0; part < kParts; part++)
        q8_rest<Layout::quads, kBy, N>(w, block, kept, row, part, in.from(j), n - j < N ? n - j : N, bias, y + j * ys,
                                       ys);
  }
}

// The entries of the table: whole matrices, or pieces.

void dense(const Matrix& w, const float* z, ptrdiff_t zs, int n, const float* bias, float* y, ptrdiff_t ys,
           bool reverse) {
  if (!w.piece) return dense_whole(w, z, zs, n, bias, y, ys, reverse);
  if (w.format == Format::f32) return dense_pieces<float>(w, z, zs, n, bias, y, ys, reverse);
  if (w.format == Format::bf16) return dense_pieces<uint16_t>(w, z, zs, n, bias, y, ys, reverse);
  dense_pieces<int8_t>(w, z, zs, n, bias, y, ys, reverse);
}

void dense_q8(const Matrix& w, const int16_t* z, ptrdiff_t zs, int n, const float* bias, float* y, ptrdiff_t ys,
              bool reverse, void* scratch) {
  if (!w.piece) return dense_whole_q8(w, z, zs, n, bias, y, ys, reverse, scratch);
  if constexpr (Dot::has_dot8)
    (w.levels <= 127 ? q8_pieces<By::bytes> : q8_pieces<By::planes>)(w, z, zs, n, bias, y, ys, reverse, scratch);
  else
    q8_pieces<By::words>(w, z, zs, n, bias, y, ys, reverse, scratch);
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
