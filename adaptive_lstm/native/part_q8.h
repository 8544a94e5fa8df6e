// Matrix products with integer activations, exact. Part of kernels.cpp: compiled once per instruction set.
#pragma once
#include "kernels.h"
#include "part_float.h"  // Block

namespace {

using namespace alstm;

// How integer activations are multiplied: as bytes; as a low and a high byte each (z = 128 high + low) in accumulators
// of their own; or as words. `pack` writes a row of them the way that `add` broadcasts them, four columns (a group) at
// a time: `add` takes the address of a group, and the distance to the same one in the other plane.
enum class By { bytes, planes, words };

inline int32_t load32(const uint8_t* p) {
  int32_t x;
  __builtin_memcpy(&x, p, 4);
  return x;
}

// D is always Dot: as a parameter it lets an instruction set leave out what it does not have.
template <By kBy, class D = Dot>
struct Product;

template <class D>
struct Product<By::bytes, D> {
  static constexpr int accs = 1, step = 4;
  using Acc = typename D::Acc;
  static void pack(const int16_t* z, int cols, uint8_t* out) {
    for (int k = 0; k < cols; k++) out[k] = uint8_t(z[k]);
  }
  static void add(Acc (&acc)[1], typename D::Quad q, const uint8_t* z, ptrdiff_t) {
    acc[0] = D::dot8(acc[0], q, load32(z));
  }
  static Acc total(const Acc (&acc)[1]) { return acc[0]; }
};

template <class D>
struct Product<By::planes, D> {
  static constexpr int accs = 2, step = 4;
  using Acc = typename D::Acc;
  static void pack(const int16_t* z, int cols, uint8_t* out) {
    for (int k = 0; k < cols; k++) {
      const int high = (z[k] + 64) >> 7;
      out[k] = uint8_t(z[k] - 128 * high);
      out[cols + k] = uint8_t(high);
    }
  }
  static void add(Acc (&acc)[2], typename D::Quad q, const uint8_t* z, ptrdiff_t plane) {
    acc[0] = D::dot8(acc[0], q, load32(z));
    acc[1] = D::dot8(acc[1], q, load32(z + plane));
  }
  static Acc total(const Acc (&acc)[2]) { return D::add(acc[0], D::times128(acc[1])); }
};

template <class D>
struct Product<By::words, D> {
  static constexpr int accs = 1, step = 8;
  using Acc = typename D::Acc;
  static void pack(const int16_t* z, int cols, uint8_t* out) {  // the order of Dot::even() and Dot::odd()
    for (int k = 0; k < cols; k += kGroup) {
      const int16_t group[kGroup] = {z[k], z[k + 2], z[k + 1], z[k + 3]};
      __builtin_memcpy(out + 2 * k, group, sizeof group);
    }
  }
  static void add(Acc (&acc)[1], typename D::Quad q, const uint8_t* z, ptrdiff_t) {
    acc[0] = D::dot16(acc[0], D::even(q), load32(z));
    acc[0] = D::dot16(acc[0], D::odd(q), load32(z + 4));
  }
  static Acc total(const Acc (&acc)[1]) { return acc[0]; }
};

// Row inside a block of lane 0 of vector i in part r, where a block takes 16 / lanes parts of four vectors each.
template <Layout kLayout>
constexpr int q8_row(int part, int i) {
  return kLayout == Layout::columns ? 16 * i + part * Dot::lanes : 4 * Dot::lanes * part + i * Dot::lanes;
}

constexpr int kParts = 16 / Dot::lanes;
static_assert(Dot::lanes == Vec::width, "an accumulator converts to one float vector");

template <Layout kLayout>
inline void load_quads(Block<uint8_t> w, int group, int part, Dot::Quad (&q)[4]) {
  if constexpr (kLayout == Layout::columns) {
    const uint8_t* c = w.base + group * kGroup * w.stride + part * Dot::bytes;
    Dot::interleave(c, c + w.stride, c + 2 * w.stride, c + 3 * w.stride, q);
  } else {
    const uint8_t* c = w.base + group * kGroup * w.stride + part * 4 * Dot::bytes;
    for (int i = 0; i < 4; i++) q[i] = Dot::load(c + i * Dot::bytes);
  }
}

template <Layout kLayout>
inline Block<uint8_t> q8_block(const Matrix& w, int row) {
  if constexpr (kLayout == Layout::columns) {
    return block_of<uint8_t>(w, row);
  } else {  // inside a tile four bytes of a row are adjacent, so rows are four bytes apart
    const int first = row / w.tile * w.tile, width = w.rows - first < w.tile ? w.rows - first : w.tile;
    return {static_cast<const uint8_t*>(w.data) + ptrdiff_t(first) * w.cols + (row - first) * kGroup, width};
  }
}

// Packed rows of activations: row j starts at z + j * stride, and its groups follow each other; correction: [n] 128 *
// sum of the row, because q8 weights are stored as w + 128; largest: [n] or null, what the sums are multiplied by.
template <By kBy>
struct Packed {
  const uint8_t* z;
  ptrdiff_t stride, plane;
  const int32_t* correction;
  const float* largest;
  Packed from(int j) const { return {z + j * stride, stride, plane, correction + j, largest ? largest + j : nullptr}; }
  const uint8_t* group(int j, int g) const { return z + j * stride + g * Product<kBy>::step; }
};

// base + scale * sum, the product times `largest`, if given. The sum is scaled first: no factor overflows beside a
// zero.
inline Vec q8_finished(Vec scale, Vec sum, const float* largest, Vec base) {
  return largest ? Vec::fma(Vec::set(*largest), scale * sum, base) : Vec::fma(scale, sum, base);
}

// B blocks, the first one lying at `first` with `cols` columns, times N rows of activations.
template <Layout kLayout, By kBy, int B, int N, class In>
inline void q8_rows(const Matrix& w, Block<uint8_t> first, int cols, int row, int part, In in, const float* bias,
                    float* y, ptrdiff_t ys) {
  using P = Product<kBy>;
  Dot::Acc acc[B][N][4][P::accs];
  for (int b = 0; b < B; b++)
    for (int j = 0; j < N; j++)
      for (int i = 0; i < 4; i++) {
        acc[b][j][i][0] = Dot::set(-in.correction[j]);
        for (int p = 1; p < P::accs; p++) acc[b][j][i][p] = Dot::set(0);
      }
  const int step = kLayout == Layout::columns ? kBlock : kBlock * kGroup, groups = cols / kGroup;
  for (int g = 0; g < groups; g++)
    for (int b = 0; b < B; b++) {
      Dot::Quad q[4];
      load_quads<kLayout>({first.base + b * step, first.stride}, g, part, q);
      for (int i = 0; i < 4; i++)
        for (int j = 0; j < N; j++) P::add(acc[b][j][i], q[i], in.group(j, g), in.plane);
    }
  // Copies, and the common case by itself: as far as the compiler knows, stores to y might change w, and what is asked
  // for every vector takes as long as all products of a small matrix.
  const float* const scale = w.scale;
  auto write = [&](const int32_t* strip, const float* largest) {
    for (int j = 0; j < N; j++) {
      float* out = y + j * ys;
      const float* base = bias ? bias : out;
      for (int b = 0; b < B; b++)
        for (int i = 0; i < 4; i++) {
          const int at = placed(strip, row + b * kBlock + q8_row<kLayout>(part, i));
          q8_finished(Vec::load(scale + at), Dot::to_float(P::total(acc[b][j][i])), largest ? largest + j : nullptr,
                      Vec::load(base + at))
              .store(out + at);
        }
    }
  };
  if (!w.strip && !in.largest)
    write(nullptr, nullptr);
  else
    write(w.strip, in.largest);
}

template <Layout kLayout, By kBy, int N, class In>
inline void q8_rest(const Matrix& w, Block<uint8_t> block, int cols, int row, int part, In in, int n, const float* bias,
                    float* y, ptrdiff_t ys) {
  if (n == N) return q8_rows<kLayout, kBy, 1, N>(w, block, cols, row, part, in, bias, y, ys);
  if constexpr (N > 1) q8_rest<kLayout, kBy, N - 1>(w, block, cols, row, part, in, n, bias, y, ys);
}

template <Layout kLayout, By kBy>
void q8_dense(const Matrix& w, Packed<kBy> in, int n, const float* bias, float* y, ptrdiff_t ys, bool reverse) {
  if (n == 1) {
    constexpr int B = Dot::single_blocks;
    for (int i = 0; i < w.rows; i += B * kBlock) {
      // Pairs never straddle a tile: tiles are whole multiples of B blocks, and the last, odd block is taken alone.
      const int start = reverse ? (w.rows - 1) / (B * kBlock) * (B * kBlock) - i : i;
      const Block<uint8_t> block = q8_block<kLayout>(w, start);
      for (int part = 0; part < kParts; part++) {
        if (start + B * kBlock <= w.rows)
          q8_rows<kLayout, kBy, B, 1>(w, block, w.cols, start, part, in, bias, y, ys);
        else
          q8_rows<kLayout, kBy, 1, 1>(w, block, w.cols, start, part, in, bias, y, ys);
      }
    }
    return;
  }
  constexpr int N = kBy == By::bytes ? Dot::byte_rows : Dot::wide_rows;
  for (int i = 0; i < w.rows; i += kBlock) {
    const int row = reverse ? w.rows - kBlock - i : i;
    const Block<uint8_t> block = q8_block<kLayout>(w, row);
    for (int j = 0; j < n; j += N) {
      const int some = n - j < N ? n - j : N;
      for (int part = 0; part < kParts; part++)
        q8_rest<kLayout, kBy, N>(w, block, w.cols, row, part, in.from(j), some, bias, y + j * ys, ys);
    }
  }
}

// Packs rows of activations, and what their sums with the weights' offset exceed the true ones by, in `scratch`.
template <By kBy>
Packed<kBy> pack_rows(const Matrix& w, const int16_t* z, ptrdiff_t zs, const float* largest, int n, void* scratch) {
  int32_t* correction = static_cast<int32_t*>(scratch);
  uint8_t* packed = reinterpret_cast<uint8_t*>(correction + n);
  const ptrdiff_t stride = 2 * w.cols;
  for (int j = 0; j < n; j++) {
    int32_t sum = 0;
    for (int k = 0; k < w.cols; k++) sum += z[j * zs + k];
    correction[j] = 128 * sum;
    Product<kBy>::pack(z + j * zs, w.cols, packed + j * stride);
  }
  return {packed, stride, w.cols, correction, largest};
}

// Adds listed columns times their deltas, groups [first, last) of the list, to B blocks of y.
template <By kBy, int B>
void q8_list(const Matrix& w, int row, const int32_t* cols, const uint8_t* deltas, int count, int first, int last,
             int32_t correction, int32_t* y) {
  using P = Product<kBy>;
  const Block<uint8_t> block = block_of<uint8_t>(w, row);
  for (int part = 0; part < kParts; part++) {
    Dot::Acc acc[B][4][P::accs];
    for (int b = 0; b < B; b++)
      for (int i = 0; i < 4; i++) {
        acc[b][i][0] =
            Dot::add(Dot::load_acc(y + row + b * kBlock + q8_row<Layout::columns>(part, i)), Dot::set(-correction));
        for (int p = 1; p < P::accs; p++) acc[b][i][p] = Dot::set(0);
      }
    for (int g = first; g < last; g++) {
      const uint8_t* c[kGroup];
      for (int k = 0; k < kGroup; k++) {
        c[k] = block.base + cols[g * kGroup + k] * block.stride + part * Dot::bytes;
        if (w.tile > kNarrow) continue;
        const uint8_t* next = block.base + cols[(g + 1) * kGroup + k] * block.stride;
        for (int b = 0; b < B; b++) __builtin_prefetch(next + b * kBlock);
      }
      for (int b = 0; b < B; b++) {
        Dot::Quad q[4];
        Dot::interleave(c[0] + b * kBlock, c[1] + b * kBlock, c[2] + b * kBlock, c[3] + b * kBlock, q);
        for (int i = 0; i < 4; i++) P::add(acc[b][i], q[i], deltas + g * P::step, count);
      }
    }
    for (int b = 0; b < B; b++)
      for (int i = 0; i < 4; i++)
        Dot::store_acc(y + row + b * kBlock + q8_row<Layout::columns>(part, i), P::total(acc[b][i]));
  }
}

template <By kBy, int B>
inline void q8_list_rest(const Matrix& w, int row, int blocks, const int32_t* cols, const uint8_t* deltas, int count,
                         int first, int last, int32_t correction, int32_t* y) {
  if (blocks == B) return q8_list<kBy, B>(w, row, cols, deltas, count, first, last, correction, y);
  if constexpr (B > 1) q8_list_rest<kBy, B - 1>(w, row, blocks, cols, deltas, count, first, last, correction, y);
}

template <By kBy>
void columns_by(const Matrix& w, const int32_t* cols, const int16_t* delta, int count, int32_t sum, int32_t* acc,
                bool reverse, void* scratch) {
  constexpr int B = Dot::tile_blocks / Product<kBy>::accs;
  uint8_t* deltas = static_cast<uint8_t*>(scratch);
  Product<kBy>::pack(delta, count, deltas);
  each_piece(w, B * kBlock, count / kGroup, kTogether / kGroup, reverse, [&](int row, int first, int last) {
    const int left = (w.rows - row) / kBlock;  // tiles are whole multiples of B blocks, so these never straddle one
    q8_list_rest<kBy, B>(w, row, left < B ? left : B, cols, deltas, count, first, last, first ? 0 : 128 * sum, acc);
  });
}

// How deltas are multiplied: by what the largest of them needs.
template <By kBy>
struct Way {
  static constexpr By by = kBy;
};

template <class Visit>
inline void by_reach(const int16_t* delta, int count, Visit visit) {
  constexpr int most = 127 * 128;  // the largest delta whose high byte is one with a sign
  if constexpr (Dot::has_dot8) {
    int32_t low = 0, high = 0;
    for (int k = 0; k < count; k++) {
      low = delta[k] < low ? delta[k] : low;
      high = delta[k] > high ? delta[k] : high;
    }
    if (low >= -128 && high <= 127) return visit(Way<By::bytes>{});
    if (low >= -most && high <= most) return visit(Way<By::planes>{});
  }
  visit(Way<By::words>{});
}

void columns_whole_q8(const Matrix& w, int32_t* cols, int16_t* delta, int count, int32_t* acc, bool reverse,
                      void* scratch) {
  while (count % kGroup) cols[count] = 0, delta[count] = 0, count++;
  for (int k = 0; k < kGroup; k++) cols[count + k] = 0;  // what the last group prefetches
  int32_t sum = 0;
  for (int k = 0; k < count; k++) sum += delta[k];
  by_reach(delta, count,
           [&](auto way) { columns_by<decltype(way)::by>(w, cols, delta, count, sum, acc, reverse, scratch); });
}

}  // namespace
