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

template <class T, int N>
inline void dense_rows(const Matrix& w, int row, const float* z, ptrdiff_t zs, const float* bias, float* y, ptrdiff_t ys) {
  constexpr int V = Vec::dense_vecs;
  const Block<T> block = block_of<T>(w, row);
  Vec acc[N][V];
  for (int j = 0; j < N; j++)
    for (int v = 0; v < V; v++) acc[j][v] = Vec::set(0.0f);
  for (int k = 0; k < w.cols; k++) {
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
inline void dense_rest(const Matrix& w, int row, const float* z, ptrdiff_t zs, int n, const float* bias, float* y, ptrdiff_t ys) {
  if (n == N) return dense_rows<T, N>(w, row, z, zs, bias, y, ys);
  if constexpr (N > 1) dense_rest<T, N - 1>(w, row, z, zs, n, bias, y, ys);
}

template <class T>
void dense_many(const Matrix& w, const float* z, ptrdiff_t zs, int n, const float* bias, float* y, ptrdiff_t ys, bool reverse) {
  constexpr int N = Vec::dense_rows, rows = Vec::dense_vecs * Vec::width;
  for (int i = 0; i < w.rows; i += rows) {
    const int row = reverse ? w.rows - rows - i : i;
    for (int j = 0; j < n; j += N) {
      const int some = n - j < N ? n - j : N;
      dense_rest<T, N>(w, row, z + j * zs, zs, some, bias, y + j * ys, ys);
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
void columns_as(const Matrix& w, const int32_t* cols, const float* delta, int count, float* y) {
  constexpr int V = Vec::single_vecs, rows = V * Vec::width;
  for (int row = 0; row < w.rows; row += rows) {
    Vec acc[V];
    for (int v = 0; v < V; v++) acc[v] = Vec::set(0.0f);
    add_columns<T, V, Vec::single_unroll, true>(block_of<T>(w, row), cols, delta, count, acc);
    write_rows(acc, w.scale ? w.scale + row : nullptr, y + row, y + row);
  }
}

void columns(const Matrix& w, int32_t* cols, const float* delta, int count, float* acc) {
  for (int pad = 0; pad < kGroup; pad++) cols[count + pad] = 0;  // what the last columns prefetch
  if (w.format == Format::f32) return columns_as<float>(w, cols, delta, count, acc);
  if (w.format == Format::bf16) return columns_as<uint16_t>(w, cols, delta, count, acc);
  columns_as<int8_t>(w, cols, delta, count, acc);
}

// -------------------------------------------------------------------------------------------- integer activations

// Four activations, ready to broadcast: as four bytes, and as two pairs of words in the order of even() and odd().
struct Four {
  int32_t bytes, even, odd;
};

inline int32_t two(int16_t a, int16_t b) { return int32_t(uint32_t(uint16_t(a)) | uint32_t(uint16_t(b)) << 16); }

inline Four four_of(const int16_t* z) {
  const uint32_t bytes = uint32_t(uint8_t(z[0])) | uint32_t(uint8_t(z[1])) << 8 | uint32_t(uint8_t(z[2])) << 16 | uint32_t(uint8_t(z[3])) << 24;
  return {int32_t(bytes), two(z[0], z[2]), two(z[1], z[3])};
}

// D is always Dot: as a parameter it lets an instruction set leave dot8 out.
template <bool kNarrow, class D = Dot>
inline Dot::Acc dot(Dot::Acc acc, Dot::Quad q, const Four& z) {
  if constexpr (kNarrow) {
    return D::dot8(acc, q, z.bytes);
  } else {
    return Dot::dot16(Dot::dot16(acc, Dot::even(q), z.even), Dot::odd(q), z.odd);
  }
}

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

// B blocks of one tile times N rows of activations; z: [N, groups] at stride zs; correction: [N] 128 * sum(z).
template <Layout kLayout, bool kNarrow, int B, int N>
inline void q8_rows(const Matrix& w, int row, int part, const Four* z, ptrdiff_t zs, const int32_t* correction, const float* bias, float* y,
                    ptrdiff_t ys) {
  Dot::Acc acc[B][N][4];
  for (int b = 0; b < B; b++)
    for (int j = 0; j < N; j++)
      for (int i = 0; i < 4; i++) acc[b][j][i] = Dot::set(-correction[j]);
  const Block<uint8_t> first = q8_block<kLayout>(w, row);
  const int step = kLayout == Layout::columns ? kBlock : kBlock * kGroup;
  for (int g = 0; g < w.cols / kGroup; g++)
    for (int b = 0; b < B; b++) {
      Dot::Quad q[4];
      load_quads<kLayout>({first.base + b * step, first.stride}, g, part, q);
      for (int i = 0; i < 4; i++) {
        if constexpr (kNarrow) {
          for (int j = 0; j < N; j++) acc[b][j][i] = dot<true>(acc[b][j][i], q[i], z[j * zs + g]);
        } else {
          const Dot::Quad even = Dot::even(q[i]), odd = Dot::odd(q[i]);
          for (int j = 0; j < N; j++) {
            acc[b][j][i] = Dot::dot16(acc[b][j][i], even, z[j * zs + g].even);
            acc[b][j][i] = Dot::dot16(acc[b][j][i], odd, z[j * zs + g].odd);
          }
        }
      }
    }
  for (int b = 0; b < B; b++)
    for (int j = 0; j < N; j++)
      for (int i = 0; i < 4; i++) {
        const int at = row + b * kBlock + q8_row<kLayout>(part, i);
        float* out = y + j * ys + at;
        Vec::fma(Vec::load(w.scale + at), Dot::to_float(acc[b][j][i]), Vec::load(bias ? bias + at : out)).store(out);
      }
}

template <Layout kLayout, bool kNarrow, int N>
inline void q8_rest(const Matrix& w, int row, int part, const Four* z, ptrdiff_t zs, const int32_t* correction, int n, const float* bias,
                    float* y, ptrdiff_t ys) {
  if (n == N) return q8_rows<kLayout, kNarrow, 1, N>(w, row, part, z, zs, correction, bias, y, ys);
  if constexpr (N > 1) q8_rest<kLayout, kNarrow, N - 1>(w, row, part, z, zs, correction, n, bias, y, ys);
}

template <Layout kLayout, bool kNarrow>
void q8_dense(const Matrix& w, const Four* z, const int32_t* correction, int n, const float* bias, float* y, ptrdiff_t ys, bool reverse) {
  const ptrdiff_t groups = w.cols / kGroup;
  if (n == 1) {
    constexpr int B = Dot::single_blocks;
    for (int i = 0; i < w.rows; i += B * kBlock) {
      // Pairs never straddle a tile: tiles are whole multiples of B blocks, and the last, odd block is taken alone.
      const int start = reverse ? (w.rows - 1) / (B * kBlock) * (B * kBlock) - i : i;
      for (int part = 0; part < kParts; part++) {
        if (start + B * kBlock <= w.rows)
          q8_rows<kLayout, kNarrow, B, 1>(w, start, part, z, groups, correction, bias, y, ys);
        else
          q8_rows<kLayout, kNarrow, 1, 1>(w, start, part, z, groups, correction, bias, y, ys);
      }
    }
    return;
  }
  constexpr int N = kNarrow ? Dot::narrow_rows : Dot::wide_rows;
  for (int i = 0; i < w.rows; i += kBlock) {
    const int row = reverse ? w.rows - kBlock - i : i;
    for (int j = 0; j < n; j += N) {
      const int some = n - j < N ? n - j : N;
      for (int part = 0; part < kParts; part++)
        q8_rest<kLayout, kNarrow, N>(w, row, part, z + j * groups, groups, correction + j, some, bias, y + j * ys, ys);
    }
  }
}

void dense_q8(const Matrix& w, const int16_t* z, ptrdiff_t zs, int n, const float* bias, float* y, ptrdiff_t ys, bool reverse, void* scratch) {
  const int groups = w.cols / kGroup;
  Four* packed = static_cast<Four*>(scratch);
  int32_t* correction = reinterpret_cast<int32_t*>(packed + ptrdiff_t(n) * groups);
  for (int j = 0; j < n; j++) {
    int32_t sum = 0;
    for (int k = 0; k < w.cols; k++) sum += z[j * zs + k];
    correction[j] = 128 * sum;
    for (int g = 0; g < groups; g++) packed[j * ptrdiff_t(groups) + g] = four_of(z + j * zs + g * kGroup);
  }
  const bool quads = w.layout == Layout::quads;
  if constexpr (Dot::has_dot8) {
    if (w.levels <= 127) {
      (quads ? q8_dense<Layout::quads, true> : q8_dense<Layout::columns, true>)(w, packed, correction, n, bias, y, ys, reverse);
      return;
    }
  }
  (quads ? q8_dense<Layout::quads, false> : q8_dense<Layout::columns, false>)(w, packed, correction, n, bias, y, ys, reverse);
}

// Four listed columns with their deltas; `narrow` if all four fit a byte.
struct Listed {
  int32_t col[kGroup];
  Four delta;
  int32_t narrow;
};

template <int B>
void q8_list(const Matrix& w, int row, const Listed* list, int groups, int32_t correction, int32_t* y) {
  const Block<uint8_t> block = block_of<uint8_t>(w, row);
  for (int part = 0; part < kParts; part++) {
    Dot::Acc acc[B][4];
    for (int b = 0; b < B; b++)
      for (int i = 0; i < 4; i++)
        acc[b][i] = Dot::sub(Dot::load_acc(y + row + b * kBlock + q8_row<Layout::columns>(part, i)), Dot::set(correction));
    for (int g = 0; g < groups; g++) {
      const uint8_t* c[kGroup];
      for (int k = 0; k < kGroup; k++) {
        c[k] = block.base + list[g].col[k] * block.stride + part * Dot::bytes;
        const uint8_t* next = block.base + list[g + 1].col[k] * block.stride;  // the list ends in a spare entry
        for (int b = 0; b < B; b++) __builtin_prefetch(next + b * kBlock);
      }
      for (int b = 0; b < B; b++) {
        Dot::Quad q[4];
        Dot::interleave(c[0] + b * kBlock, c[1] + b * kBlock, c[2] + b * kBlock, c[3] + b * kBlock, q);
        if (Dot::has_dot8 && list[g].narrow) {
          for (int i = 0; i < 4; i++) acc[b][i] = dot<Dot::has_dot8>(acc[b][i], q[i], list[g].delta);
        } else {
          for (int i = 0; i < 4; i++) acc[b][i] = dot<false>(acc[b][i], q[i], list[g].delta);
        }
      }
    }
    for (int b = 0; b < B; b++)
      for (int i = 0; i < 4; i++) Dot::store_acc(y + row + b * kBlock + q8_row<Layout::columns>(part, i), acc[b][i]);
  }
}

template <int B>
inline void q8_list_rest(const Matrix& w, int row, int blocks, const Listed* list, int groups, int32_t correction, int32_t* y) {
  if (blocks == B) return q8_list<B>(w, row, list, groups, correction, y);
  if constexpr (B > 1) q8_list_rest<B - 1>(w, row, blocks, list, groups, correction, y);
}

void columns_q8(const Matrix& w, int32_t* cols, int16_t* delta, int count, int32_t* acc, void* scratch) {
  while (count % kGroup) cols[count] = 0, delta[count] = 0, count++;
  const int groups = count / kGroup;
  Listed* list = static_cast<Listed*>(scratch);
  int32_t sum = 0;
  for (int g = 0; g < groups; g++) {
    bool narrow = true;
    for (int k = 0; k < kGroup; k++) {
      const int16_t d = delta[g * kGroup + k];
      list[g].col[k] = cols[g * kGroup + k];
      narrow = narrow && d >= -128 && d <= 127;
      sum += d;
    }
    list[g].delta = four_of(delta + g * kGroup);
    list[g].narrow = narrow;
  }
  for (int k = 0; k < kGroup; k++) list[groups].col[k] = 0;
  constexpr int B = Dot::tile_blocks;
  for (int row = 0; row < w.rows;) {
    const int tile_end = row / w.tile * w.tile + w.tile;
    const int left = ((tile_end < w.rows ? tile_end : w.rows) - row) / kBlock, blocks = left < B ? left : B;
    q8_list_rest<B>(w, row, blocks, list, groups, 128 * sum, acc);
    row += blocks * kBlock;
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

// e^x to about 2e-7 relative for |x| <= 87: x = n ln 2 + r, a polynomial in r (Cephes expf), then 2^n in the exponent.
inline Vec exp_of(Vec x) {
  const Vec n = Vec::round(x * Vec::set(1.44269504088896341f));
  Vec r = Vec::fma(n, Vec::set(-0.693359375f), x);
  r = Vec::fma(n, Vec::set(2.12194440e-4f), r);
  Vec p = Vec::set(1.9875691500e-4f);
  p = Vec::fma(p, r, Vec::set(1.3981999507e-3f));
  p = Vec::fma(p, r, Vec::set(8.3334519073e-3f));
  p = Vec::fma(p, r, Vec::set(4.1665795894e-2f));
  p = Vec::fma(p, r, Vec::set(1.6666665459e-1f));
  p = Vec::fma(p, r, Vec::set(5.0000001201e-1f));
  p = Vec::fma(p, r * r, r + Vec::set(1.0f));
  return p * Vec::pow2(n);
}

// e^-ax, clamped so that a product of two stays finite; beyond the clamp sigmoid and tanh are 0 or 1 in float anyway.
inline Vec exp_minus(Vec x, float a) { return exp_of(Vec::clamp(x * Vec::set(-a), -43.0f, 43.0f)); }

void cell(const float* pre, float* c, float* h, int blocks) {
  const Vec one = Vec::set(1.0f);
  for (int b = 0; b < blocks; b++)
    for (int k = 0; k < kUnits; k += Vec::width) {
      const float* gate = pre + b * kBlock + k;
      const Vec ei = exp_minus(Vec::load(gate), 1.0f), ef = exp_minus(Vec::load(gate + kUnits), 1.0f);
      const Vec eg = exp_minus(Vec::load(gate + 2 * kUnits), 2.0f), eo = exp_minus(Vec::load(gate + 3 * kUnits), 1.0f);
      float* state = c + b * kUnits + k;
      // c' = sigmoid(f) c + sigmoid(i) tanh(g); h' = sigmoid(o) tanh(c'), the two factors sharing one division each
      const Vec next = Vec::load(state) / (one + ef) + (one - eg) / ((one + ei) * (one + eg));
      next.store(state);
      const Vec ec = exp_minus(next, 2.0f);
      ((one - ec) / ((one + eo) * (one + ec))).store(h + b * kUnits + k);
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
