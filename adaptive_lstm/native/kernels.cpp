// The kernels, written once against Vec and Dot and compiled once per instruction set (ALSTM_ISA, see CMakeLists.txt).
// Everything lives in an anonymous namespace and no inline library function is used: a shared inline symbol compiled
// here with AVX-512 could otherwise be the copy that the linker keeps for all.
#include "kernels.h"

#define ALSTM_STR2(x) #x
#define ALSTM_STR(x) ALSTM_STR2(x)

#if defined(__AVX512VNNI__)
#include "vec_avx512vnni.h"
#elif defined(__AVX2__)
#include "vec_avx2.h"
#else
#include "vec_generic.h"
#endif

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
  const int tile = row / w.tile, first = tile * w.tile;
  const int width = w.rows - first < w.tile ? w.rows - first : w.tile;
  return {static_cast<const T*>(w.data) + ptrdiff_t(first) * w.cols + (row - first), width};
}

// ---------------------------------------------------------------------------------------------- float activations

// acc[V vectors] += sum over k of column(k) * z[k]; with a list, column(k) = cols[k].
template <class T, int V, int U, bool kList>
inline void add_columns(Block<T> w, const int32_t* cols, const float* z, int count, Vec (&acc)[V]) {
  Vec part[U][V];
  for (int v = 0; v < V; v++) part[0][v] = acc[v];
  for (int u = 1; u < U; u++)
    for (int v = 0; v < V; v++) part[u][v] = Vec::set(0.0f);
  auto add = [&](int k, Vec(&to)[V]) {
    const T* column = w.base + (kList ? cols[k] : k) * w.stride;
    if (kList) __builtin_prefetch(w.base + cols[k + kGroup] * w.stride);
    const Vec value = Vec::set(z[k]);
    for (int v = 0; v < V; v++) to[v] = Vec::fma(Vec::load(column + v * Vec::width), value, to[v]);
  };
  int k = 0;
  for (; k + U <= count; k += U)
    for (int u = 0; u < U; u++) add(k + u, part[u]);
  for (; k < count; k++) add(k, part[0]);
  for (int v = 0; v < V; v++) {
    acc[v] = part[0][v];
    for (int u = 1; u < U; u++) acc[v] = acc[v] + part[u][v];
  }
}

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
    Vec acc[V];
    for (int v = 0; v < V; v++) acc[v] = Vec::set(0.0f);
    add_columns<T, V, Vec::single_unroll, false>(block_of<T>(w, row), nullptr, z, w.cols, acc);
    write_rows(acc, w.scale ? w.scale + row : nullptr, (bias ? bias : y) + row, y + row);
  }
}

// y[j, rows of the block] = base + W[:, k0:k1] z[j, k0:k1] for N rows of activations.
template <class T, int N>
inline void dense_rows(const Matrix& w, int row, int k0, int k1, const float* z, ptrdiff_t zs, const float* bias, float* y, ptrdiff_t ys) {
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
  for (int j = 0; j < N; j++) write_rows(acc[j], w.scale ? w.scale + row : nullptr, (bias ? bias : y + j * ys) + row, y + j * ys + row);
}

template <class T, int N>
inline void dense_rest(const Matrix& w, int row, int k0, int k1, const float* z, ptrdiff_t zs, int n, const float* bias, float* y, ptrdiff_t ys) {
  if (n == N) return dense_rows<T, N>(w, row, k0, k1, z, zs, bias, y, ys);
  if constexpr (N > 1) dense_rest<T, N - 1>(w, row, k0, k1, z, zs, n, bias, y, ys);
}

// All rows of activations pass over a slice of columns before the next slice: it stays in the first-level cache.
template <class T>
void dense_many(const Matrix& w, const float* z, ptrdiff_t zs, int n, const float* bias, float* y, ptrdiff_t ys, bool reverse) {
  constexpr int N = Vec::dense_rows, rows = Vec::dense_vecs * Vec::width;
  const int slice = n > N ? 64 : w.cols;
  for (int i = 0; i < w.rows; i += rows) {
    const int row = reverse ? w.rows - rows - i : i;
    for (int k = 0; k < w.cols; k += slice) {
      const int end = k + slice < w.cols ? k + slice : w.cols;
      for (int j = 0; j < n; j += N) {
        const int some = n - j < N ? n - j : N;
        dense_rest<T, N>(w, row, k, end, z + j * zs, zs, some, k ? nullptr : bias, y + j * ys, ys);
      }
    }
  }
}

template <class T>
void dense_as(const Matrix& w, const float* z, ptrdiff_t zs, int n, const float* bias, float* y, ptrdiff_t ys, bool reverse) {
  if (n == 1) return dense_one<T>(w, z, bias, y, reverse);
  dense_many<T>(w, z, zs, n, bias, y, ys, reverse);
}

void dense(const Matrix& w, const float* z, ptrdiff_t zs, int n, const float* bias, float* y, ptrdiff_t ys, bool reverse) {
  if (w.format == Format::f32) return dense_as<float>(w, z, zs, n, bias, y, ys, reverse);
  if (w.format == Format::bf16) return dense_as<uint16_t>(w, z, zs, n, bias, y, ys, reverse);
  dense_as<int8_t>(w, z, zs, n, bias, y, ys, reverse);
}

template <class T>
void columns_as(const Matrix& w, const int32_t* cols, const float* delta, int count, float* y, bool reverse) {
  constexpr int V = Vec::single_vecs, rows = V * Vec::width;
  for (int i = 0; i < w.rows; i += rows) {
    const int row = reverse ? w.rows - rows - i : i;
    Vec acc[V];
    for (int v = 0; v < V; v++) acc[v] = Vec::set(0.0f);
    add_columns<T, V, Vec::single_unroll, true>(block_of<T>(w, row), cols, delta, count, acc);
    write_rows(acc, w.scale ? w.scale + row : nullptr, y + row, y + row);
  }
}

void columns(const Matrix& w, int32_t* cols, const float* delta, int count, float* acc, bool reverse) {
  for (int pad = 0; pad < kGroup; pad++) cols[count + pad] = 0;  // what the last columns prefetch
  if (w.format == Format::f32) return columns_as<float>(w, cols, delta, count, acc, reverse);
  if (w.format == Format::bf16) return columns_as<uint16_t>(w, cols, delta, count, acc, reverse);
  columns_as<int8_t>(w, cols, delta, count, acc, reverse);
}

// -------------------------------------------------------------------------------------------- integer activations

// How integer activations are multiplied: as bytes; as a low and a high byte each (z = 128 high + low) in accumulators of
// their own; or as words. `pack` writes a row of them the way that `add` broadcasts them, four columns (a group) at a time.
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
  static constexpr int accs = 1;
  using Acc = typename D::Acc;
  static void pack(const int16_t* z, int cols, uint8_t* out) {
    for (int k = 0; k < cols; k++) out[k] = uint8_t(z[k]);
  }
  static void add(Acc (&acc)[1], typename D::Quad q, const uint8_t* z, int g, int) { acc[0] = D::dot8(acc[0], q, load32(z + 4 * g)); }
  static Acc total(const Acc (&acc)[1]) { return acc[0]; }
};

template <class D>
struct Product<By::planes, D> {
  static constexpr int accs = 2;
  using Acc = typename D::Acc;
  static void pack(const int16_t* z, int cols, uint8_t* out) {
    for (int k = 0; k < cols; k++) {
      const int high = (z[k] + 64) >> 7;
      out[k] = uint8_t(z[k] - 128 * high);
      out[cols + k] = uint8_t(high);
    }
  }
  static void add(Acc (&acc)[2], typename D::Quad q, const uint8_t* z, int g, int cols) {
    acc[0] = D::dot8(acc[0], q, load32(z + 4 * g));
    acc[1] = D::dot8(acc[1], q, load32(z + cols + 4 * g));
  }
  static Acc total(const Acc (&acc)[2]) { return D::add(acc[0], D::times128(acc[1])); }
};

template <class D>
struct Product<By::words, D> {
  static constexpr int accs = 1;
  using Acc = typename D::Acc;
  static void pack(const int16_t* z, int cols, uint8_t* out) {  // the order of Dot::even() and Dot::odd()
    for (int k = 0; k < cols; k += kGroup) {
      const int16_t group[kGroup] = {z[k], z[k + 2], z[k + 1], z[k + 3]};
      __builtin_memcpy(out + 2 * k, group, sizeof group);
    }
  }
  static void add(Acc (&acc)[1], typename D::Quad q, const uint8_t* z, int g, int) {
    acc[0] = D::dot16(acc[0], D::even(q), load32(z + 8 * g));
    acc[0] = D::dot16(acc[0], D::odd(q), load32(z + 8 * g + 4));
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

// Packed rows of activations: row j starts at z + j * stride; correction: [n] 128 * sum of the row, because q8 weights are
// stored as w + 128.
struct Packed {
  const uint8_t* z;
  ptrdiff_t stride;
  const int32_t* correction;
  Packed from(int j) const { return {z + j * stride, stride, correction + j}; }
};

// B blocks of one tile times N rows of activations.
template <Layout kLayout, By kBy, int B, int N>
inline void q8_rows(const Matrix& w, int row, int part, Packed in, const float* bias, float* y, ptrdiff_t ys) {
  using P = Product<kBy>;
  Dot::Acc acc[B][N][4][P::accs];
  for (int b = 0; b < B; b++)
    for (int j = 0; j < N; j++)
      for (int i = 0; i < 4; i++) {
        acc[b][j][i][0] = Dot::set(-in.correction[j]);
        for (int p = 1; p < P::accs; p++) acc[b][j][i][p] = Dot::set(0);
      }
  const Block<uint8_t> first = q8_block<kLayout>(w, row);
  const int step = kLayout == Layout::columns ? kBlock : kBlock * kGroup, cols = w.cols, groups = cols / kGroup;
  for (int g = 0; g < groups; g++)
    for (int b = 0; b < B; b++) {
      Dot::Quad q[4];
      load_quads<kLayout>({first.base + b * step, first.stride}, g, part, q);
      for (int i = 0; i < 4; i++)
        for (int j = 0; j < N; j++) P::add(acc[b][j][i], q[i], in.z + j * in.stride, g, cols);
    }
  for (int b = 0; b < B; b++)
    for (int j = 0; j < N; j++)
      for (int i = 0; i < 4; i++) {
        const int at = row + b * kBlock + q8_row<kLayout>(part, i);
        float* out = y + j * ys + at;
        Vec::fma(Vec::load(w.scale + at), Dot::to_float(P::total(acc[b][j][i])), Vec::load(bias ? bias + at : out)).store(out);
      }
}

template <Layout kLayout, By kBy, int N>
inline void q8_rest(const Matrix& w, int row, int part, Packed in, int n, const float* bias, float* y, ptrdiff_t ys) {
  if (n == N) return q8_rows<kLayout, kBy, 1, N>(w, row, part, in, bias, y, ys);
  if constexpr (N > 1) q8_rest<kLayout, kBy, N - 1>(w, row, part, in, n, bias, y, ys);
}

template <Layout kLayout, By kBy>
void q8_dense(const Matrix& w, Packed in, int n, const float* bias, float* y, ptrdiff_t ys, bool reverse) {
  if (n == 1) {
    constexpr int B = Dot::single_blocks;
    for (int i = 0; i < w.rows; i += B * kBlock) {
      // Pairs never straddle a tile: tiles are whole multiples of B blocks, and the last, odd block is taken alone.
      const int start = reverse ? (w.rows - 1) / (B * kBlock) * (B * kBlock) - i : i;
      for (int part = 0; part < kParts; part++) {
        if (start + B * kBlock <= w.rows)
          q8_rows<kLayout, kBy, B, 1>(w, start, part, in, bias, y, ys);
        else
          q8_rows<kLayout, kBy, 1, 1>(w, start, part, in, bias, y, ys);
      }
    }
    return;
  }
  constexpr int N = kBy == By::bytes ? Dot::byte_rows : Dot::wide_rows;
  for (int i = 0; i < w.rows; i += kBlock) {
    const int row = reverse ? w.rows - kBlock - i : i;
    for (int j = 0; j < n; j += N) {
      const int some = n - j < N ? n - j : N;
      for (int part = 0; part < kParts; part++) q8_rest<kLayout, kBy, N>(w, row, part, in.from(j), some, bias, y + j * ys, ys);
    }
  }
}

template <By kBy>
void q8_by(const Matrix& w, const int16_t* z, ptrdiff_t zs, int n, const float* bias, float* y, ptrdiff_t ys, bool reverse, void* scratch) {
  int32_t* correction = static_cast<int32_t*>(scratch);
  uint8_t* packed = reinterpret_cast<uint8_t*>(correction + n);
  const ptrdiff_t stride = 2 * w.cols;
  for (int j = 0; j < n; j++) {
    int32_t sum = 0;
    for (int k = 0; k < w.cols; k++) sum += z[j * zs + k];
    correction[j] = 128 * sum;
    Product<kBy>::pack(z + j * zs, w.cols, packed + j * stride);
  }
  const Packed in{packed, stride, correction};
  (w.layout == Layout::quads ? q8_dense<Layout::quads, kBy> : q8_dense<Layout::columns, kBy>)(w, in, n, bias, y, ys, reverse);
}

void dense_q8(const Matrix& w, const int16_t* z, ptrdiff_t zs, int n, const float* bias, float* y, ptrdiff_t ys, bool reverse, void* scratch) {
  if constexpr (Dot::has_dot8)
    (w.levels <= 127 ? q8_by<By::bytes> : q8_by<By::planes>)(w, z, zs, n, bias, y, ys, reverse, scratch);
  else
    q8_by<By::words>(w, z, zs, n, bias, y, ys, reverse, scratch);
}

// Four listed columns with their deltas, packed as words and, if all four fit, as bytes.
struct Listed {
  int32_t col[kGroup];
  uint8_t words[8], bytes[4];
  int32_t fits_bytes;
};

constexpr By kFew = Dot::has_dot8 ? By::bytes : By::words;

template <By kBy, int B>
inline void add_listed(Dot::Acc (&acc)[B][4][1], const uint8_t* const (&c)[kGroup], const uint8_t* delta) {
  for (int b = 0; b < B; b++) {
    Dot::Quad q[4];
    Dot::interleave(c[0] + b * kBlock, c[1] + b * kBlock, c[2] + b * kBlock, c[3] + b * kBlock, q);
    for (int i = 0; i < 4; i++) Product<kBy>::add(acc[b][i], q[i], delta, 0, kGroup);
  }
}

template <int B>
void q8_list(const Matrix& w, int row, const Listed* list, int groups, int32_t correction, int32_t* y) {
  const Block<uint8_t> block = block_of<uint8_t>(w, row);
  for (int part = 0; part < kParts; part++) {
    Dot::Acc acc[B][4][1];
    for (int b = 0; b < B; b++)
      for (int i = 0; i < 4; i++)
        acc[b][i][0] = Dot::add(Dot::load_acc(y + row + b * kBlock + q8_row<Layout::columns>(part, i)), Dot::set(-correction));
    for (int g = 0; g < groups; g++) {
      const uint8_t* c[kGroup];
      for (int k = 0; k < kGroup; k++) {
        c[k] = block.base + list[g].col[k] * block.stride + part * Dot::bytes;
        const uint8_t* next = block.base + list[g + 1].col[k] * block.stride;  // the list ends in a spare entry
        for (int b = 0; b < B; b++) __builtin_prefetch(next + b * kBlock);
      }
      if (Dot::has_dot8 && list[g].fits_bytes)
        add_listed<kFew>(acc, c, list[g].bytes);
      else  // a value jumped by more than a byte, which is rare
        add_listed<By::words>(acc, c, list[g].words);
    }
    for (int b = 0; b < B; b++)
      for (int i = 0; i < 4; i++) Dot::store_acc(y + row + b * kBlock + q8_row<Layout::columns>(part, i), acc[b][i][0]);
  }
}

template <int B>
inline void q8_list_rest(const Matrix& w, int row, int blocks, const Listed* list, int groups, int32_t correction, int32_t* y) {
  if (blocks == B) return q8_list<B>(w, row, list, groups, correction, y);
  if constexpr (B > 1) q8_list_rest<B - 1>(w, row, blocks, list, groups, correction, y);
}

void columns_q8(const Matrix& w, int32_t* cols, int16_t* delta, int count, int32_t* acc, bool reverse, void* scratch) {
  while (count % kGroup) cols[count] = 0, delta[count] = 0, count++;
  const int groups = count / kGroup;
  Listed* list = static_cast<Listed*>(scratch);
  int32_t sum = 0;
  for (int g = 0; g < groups; g++) {
    bool fits = true;
    for (int k = 0; k < kGroup; k++) {
      const int16_t d = delta[g * kGroup + k];
      list[g].col[k] = cols[g * kGroup + k];
      list[g].bytes[k] = uint8_t(d);
      fits = fits && d >= -128 && d <= 127;
      sum += d;
    }
    Product<By::words>::pack(delta + g * kGroup, kGroup, list[g].words);
    list[g].fits_bytes = fits;
  }
  for (int k = 0; k < kGroup; k++) list[groups].col[k] = 0;
  constexpr int B = Dot::tile_blocks;  // tiles are whole multiples of B blocks, so these never straddle one
  for (int i = 0; i < w.rows; i += B * kBlock) {
    const int row = reverse ? (w.rows - 1) / (B * kBlock) * (B * kBlock) - i : i;
    const int left = (w.rows - row) / kBlock;
    q8_list_rest<B>(w, row, left < B ? left : B, list, groups, 128 * sum, acc);
  }
}

// --------------------------------------------------------------------------------------------------- element-wise

void finish(const float* acc, const float* bias, float* pre, int rows) {
  for (int r = 0; r < rows; r += Vec::width) (Vec::load((bias ? bias : pre) + r) + Vec::load(acc + r)).store(pre + r);
}

void finish_q8(const int32_t* acc, const float* scale, const float* bias, float* pre, int rows) {
  for (int r = 0; r < rows; r += Vec::width)
    Vec::fma(Vec::load(scale + r), Vec::load(acc + r), Vec::load((bias ? bias : pre) + r)).store(pre + r);
}

// e^x to about 2e-7 relative for |x| <= 87: x = n ln 2 + r, a polynomial in r (Cephes expf), times 2^n.
inline Vec exp_of(Vec x) {
  const Vec magic = Vec::set(12582912.0f);  // 1.5 * 2^23: adding it rounds to a whole number
  const Vec n = Vec::fma(x, Vec::set(1.44269504088896341f), magic) - magic;
  Vec r = Vec::fma(n, Vec::set(-0.693359375f), x);
  r = Vec::fma(n, Vec::set(2.12194440e-4f), r);
  Vec p = Vec::set(1.9875691500e-4f);
  p = Vec::fma(p, r, Vec::set(1.3981999507e-3f));
  p = Vec::fma(p, r, Vec::set(8.3334519073e-3f));
  p = Vec::fma(p, r, Vec::set(4.1665795894e-2f));
  p = Vec::fma(p, r, Vec::set(1.6666665459e-1f));
  p = Vec::fma(p, r, Vec::set(5.0000001201e-1f));
  p = Vec::fma(p, r * r, r + Vec::set(1.0f));
  return Vec::times_pow2(p, n);
}

// e^-ax, clamped so that a product of two stays finite; beyond the clamp sigmoid and tanh are 0 or 1 in float anyway.
inline Vec exp_minus(Vec x, float a) { return exp_of(Vec::clamp(x * Vec::set(-a), -43.0f, 43.0f)); }

// Two passes, first c and then h: the chain from a pre-activation to h is long, and short loop bodies let the processor
// overlap more of them.
void cell(const float* pre, float* c, float* h, int blocks) {
  const Vec one = Vec::set(1.0f);
  for (int b = 0; b < blocks; b++)
    for (int k = 0; k < kUnits; k += Vec::width) {
      const float* gate = pre + b * kBlock + k;
      float* state = c + b * kUnits + k;
      const Vec ei = exp_minus(Vec::load(gate), 1.0f), ef = exp_minus(Vec::load(gate + kUnits), 1.0f);
      const Vec eg = exp_minus(Vec::load(gate + 2 * kUnits), 2.0f);
      // c' = sigmoid(f) c + sigmoid(i) tanh(g), the last two sharing a reciprocal
      const Vec kept = Vec::load(state) * Vec::reciprocal(one + ef);
      Vec::fma(one - eg, Vec::reciprocal((one + ei) * (one + eg)), kept).store(state);
    }
  for (int b = 0; b < blocks; b++)
    for (int k = 0; k < kUnits; k += Vec::width) {
      const Vec eo = exp_minus(Vec::load(pre + b * kBlock + 3 * kUnits + k), 1.0f);
      const Vec ec = exp_minus(Vec::load(c + b * kUnits + k), 2.0f);
      // h' = sigmoid(o) tanh(c')
      ((one - ec) * Vec::reciprocal((one + eo) * (one + ec))).store(h + b * kUnits + k);
    }
}

void quantize(const float* z, int n, int levels, int16_t* q) {
  int k = 0;
  for (; k + Vec::width <= n; k += Vec::width) quantize_lanes(z + k, levels, q + k);
  if (k == n) return;
  float tail[Vec::width] = {};
  int16_t out[Vec::width];
  for (int i = k; i < n; i++) tail[i - k] = z[i];
  quantize_lanes(tail, levels, out);
  for (int i = k; i < n; i++) q[i] = out[i - k];
}

int changed(const float* z, float* sent, const float* threshold, int n, int32_t* cols, float* delta) {
  int count = 0;
  auto send = [&](int k) {
    cols[count] = k;
    delta[count++] = z[k] - sent[k];
    sent[k] = z[k];
  };
  int k = 0;
  for (; k + Vec::width <= n; k += Vec::width)
    for (uint32_t mask = greater_mask(z + k, sent + k, threshold ? threshold + k : nullptr); mask; mask &= mask - 1) send(k + __builtin_ctz(mask));
  for (; k < n; k++) {
    const float moved = z[k] - sent[k];
    if ((moved < 0 ? -moved : moved) > (threshold ? threshold[k] : 0.0f)) send(k);
  }
  return count;
}

int changed_q8(const float* z, int16_t* sent, const float* threshold, int n, int levels, int32_t* cols, int16_t* delta) {
  const float step = 1.0f / float(levels);
  int count = 0;
  for (int k = 0; k < n; k += Vec::width) {
    const int lanes = n - k < Vec::width ? n - k : Vec::width;
    float now[Vec::width] = {}, limit[Vec::width] = {};
    int16_t q[Vec::width], old[Vec::width] = {};
    const float *at = z + k, *bound = threshold ? threshold + k : nullptr;
    const int16_t* before = sent + k;
    if (lanes < Vec::width) {  // the tail goes through padded copies
      for (int i = 0; i < lanes; i++) now[i] = at[i], old[i] = before[i], limit[i] = bound ? bound[i] : 0.0f;
      at = now, before = old, bound = bound ? limit : nullptr;
    }
    quantize_lanes(at, levels, q);
    for (uint32_t mask = greater_mask_q8(at, before, q, bound, step); mask; mask &= mask - 1) {
      const int i = __builtin_ctz(mask);
      cols[count] = k + i;
      delta[count++] = int16_t(q[i] - sent[k + i]);
      sent[k + i] = q[i];
    }
  }
  return count;
}

bool finite(const float* z, size_t n) {
  // 0 * x is NaN for an infinite or NaN x and 0 otherwise; several sums so that the additions overlap.
  float sum[16] = {};
  size_t k = 0;
  for (; k + 16 <= n; k += 16)
    for (int i = 0; i < 16; i++) sum[i] += z[k + i] * 0.0f;
  for (; k < n; k++) sum[0] += z[k] * 0.0f;
  float all = 0.0f;
  for (float s : sum) all += s;
  return all == 0.0f;
}

const Kernels kTable = {ALSTM_STR(ALSTM_ISA), dense, dense_q8, columns, columns_q8, finish, finish_q8, cell, quantize, changed, changed_q8, finite};

}  // namespace

namespace alstm {
#define ALSTM_JOIN2(a, b) a##b
#define ALSTM_JOIN(a, b) ALSTM_JOIN2(a, b)
extern const Kernels* const ALSTM_JOIN(kernels_, ALSTM_ISA);
const Kernels* const ALSTM_JOIN(kernels_, ALSTM_ISA) = &kTable;
}  // namespace alstm
