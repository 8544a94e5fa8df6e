// AVX2 with FMA: 8 float lanes; integer dot products through 16-bit multiply-add.
#pragma once
#include <immintrin.h>

#include <cstdint>

#include "simd/avx2_compact.h"
#include "simd/no_tiles.h"
#include "simd/scalar_expand.h"
#include "simd/scalar_select.h"

namespace {

struct Vec {
  static constexpr int width = 8;
  static constexpr int dense_vecs = 2, dense_rows = 6;  // 12 of 16 registers
  static constexpr int single_vecs = 8;
  __m256 v;
  static Vec load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static Vec load(const uint16_t* p) {  // bfloat16 is the upper half of a float
    return {_mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), 16))};
  }
  static Vec load(const int8_t* p) {
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))))};
  }
  static Vec load(const int32_t* p) {
    return {_mm256_cvtepi32_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
  }
  void store(float* p) const { _mm256_storeu_ps(p, v); }
  static Vec set(float x) { return {_mm256_set1_ps(x)}; }
  static Vec fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
  friend Vec operator+(Vec a, Vec b) { return {_mm256_add_ps(a.v, b.v)}; }
  friend Vec operator-(Vec a, Vec b) { return {_mm256_sub_ps(a.v, b.v)}; }
  friend Vec operator*(Vec a, Vec b) { return {_mm256_mul_ps(a.v, b.v)}; }
  static Vec reciprocal(Vec x) { return {_mm256_div_ps(_mm256_set1_ps(1.0f), x.v)}; }
  // The second operand comes back if either is NaN, so a NaN in x survives the clamp.
  static Vec clamp(Vec x, float low, float high) {
    return {_mm256_max_ps(_mm256_set1_ps(low), _mm256_min_ps(_mm256_set1_ps(high), x.v))};
  }
  static constexpr bool has_powers = false;
  static Vec pow2(Vec n) {  // 2^n for whole n in [-126, 127]
    return {
        _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n.v), _mm256_set1_epi32(127)), 23))};
  }
};

struct Dot {
  static constexpr int quad = 4, weight_offset = 128;
  static constexpr bool has_dot8 = false;  // u8 x s8 multiply-add saturates at 16 bits; words do not,
  static constexpr int short_levels = 64;  // nor do two products of 255 * 64
  static constexpr int bytes = 32, lanes = 8;
  static constexpr int tile_blocks = 1;
  static constexpr int single_blocks = 1, wide_rows = 2, byte_rows = wide_rows;
  static constexpr int word_rows = 6, pairs = 0;
  static constexpr int row_position(int row) {
    return 16 * (row % 16 / 4) + 8 * (row / 32) + row / 16 % 2 + 2 * (row % 4);
  }
  using Quad = __m256i;
  using Acc = __m256i;
  static Acc load_acc(const int32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  static void store_acc(int32_t* p, Acc a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a); }
  static Acc set(int32_t x) { return _mm256_set1_epi32(x); }
  static Acc add(Acc a, Acc b) { return _mm256_add_epi32(a, b); }
  static Acc sub(Acc a, Acc b) { return _mm256_sub_epi32(a, b); }
  static Vec to_float(Acc a) { return {_mm256_cvtepi32_ps(a)}; }
  static Quad load(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  // Pairs of bytes of columns 0 and 2, then of 1 and 3: masking them gives words of two columns, for half of the
  // shuffles that whole quads take. Shuffles, multiplications and sums share the ports.
  static void interleave(const uint8_t* c0, const uint8_t* c1, const uint8_t* c2, const uint8_t* c3, Quad q[4]) {
    const __m256i w0 = load(c0), w1 = load(c1), w2 = load(c2), w3 = load(c3);
    q[0] = _mm256_unpacklo_epi16(w0, w2);
    q[1] = _mm256_unpackhi_epi16(w0, w2);
    q[2] = _mm256_unpacklo_epi16(w1, w3);
    q[3] = _mm256_unpackhi_epi16(w1, w3);
  }
  static Quad column_words(const Quad (&q)[4], int i, int half) {
    const Quad pairs = q[2 * half + i / 2];
    return i % 2 ? odd(pairs) : even(pairs);
  }
  static Quad even(Quad q) { return _mm256_and_si256(q, _mm256_set1_epi32(0x00FF00FF)); }
  static Quad odd(Quad q) { return _mm256_srli_epi16(q, 8); }
  static Acc dot8(Acc a, Quad q, int32_t four) {
    const __m256i words = _mm256_maddubs_epi16(q, _mm256_set1_epi32(four));
    return _mm256_add_epi32(a, _mm256_madd_epi16(words, _mm256_set1_epi16(1)));
  }
  // The same of two registers with the four bytes at `four`: in assembly, so that all sums stay in registers.
  static void dot8_pair(Acc& a, Acc& b, Quad first, Quad second, const uint8_t* four) {
    alignas(32) static constexpr int16_t ones[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    __m256i words, bytes;
    __asm__(
        "vpbroadcastd %6, %3\n\tvpmaddubsw %3, %4, %2\n\tvpmaddubsw %3, %5, %3\n\tvpmaddwd %7, %2, %2\n\t"
        "vpmaddwd %7, %3, %3\n\tvpaddd %2, %0, %0\n\tvpaddd %3, %1, %1"
        : "+x"(a), "+x"(b), "=&x"(words), "=&x"(bytes)
        : "x"(first), "x"(second), "m"(*reinterpret_cast<const int32_t*>(four)),
          "m"(*reinterpret_cast<const __m256i*>(ones)));
  }
  // Inline assembly, not intrinsics: GCC 12 adds the products to each other first, and then has too few registers.
  static Acc dot16(Acc a, Quad half, int32_t two) {
    __m256i product;
    __asm__("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0"
            : "+x"(a), "=&x"(product)
            : "x"(half), "x"(_mm256_set1_epi32(two)));
    return a;
  }
  // The same of two registers with the two words at `two`. Two products in flight are a tenth faster than one after the
  // other, and temporaries of one statement leave twelve registers for sums.
  static void dot16_pair(Acc& a, Acc& b, Quad first, Quad second, const uint8_t* two) {
    __m256i words, product;
    __asm__(
        "vpbroadcastd %6, %3\n\tvpmaddwd %3, %4, %2\n\tvpmaddwd %3, %5, %3\n\tvpaddd %2, %0, %0\n\tvpaddd %3, %1, %1"
        : "+x"(a), "+x"(b), "=&x"(product), "=&x"(words)
        : "x"(first), "x"(second), "m"(*reinterpret_cast<const int32_t*>(two)));
  }
};

inline __m256 magnitude(__m256 x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x); }

inline uint32_t greater_mask(const float* z, const float* sent, const float* threshold) {
  const __m256 d = magnitude(_mm256_sub_ps(_mm256_loadu_ps(z), _mm256_loadu_ps(sent)));
  const __m256 limit = threshold ? _mm256_loadu_ps(threshold) : _mm256_setzero_ps();
  return uint32_t(_mm256_movemask_ps(_mm256_cmp_ps(d, limit, _CMP_GT_OQ)));
}

inline void quantize_lanes(const float* z, int levels, const float* factor, int16_t* q) {
  const __m256 x = _mm256_loadu_ps(z), limit = _mm256_set1_ps(float(levels));
  __m256 v = _mm256_mul_ps(x, factor ? _mm256_loadu_ps(factor) : limit);
  v = _mm256_max_ps(_mm256_min_ps(v, limit), _mm256_set1_ps(-float(levels)));
  v = _mm256_and_ps(v, _mm256_cmp_ps(x, x, _CMP_ORD_Q));
  const __m256i whole = _mm256_cvtps_epi32(v);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(q),
                   _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1)));
}

inline uint32_t greater_mask_int8(const float* z, const int16_t* sent, const int16_t* q, const float* threshold,
                                  float step, const float* steps) {
  const __m256i s = _mm256_cvtepi16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(sent)));
  const __m256i now = _mm256_cvtepi16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(q)));
  const uint32_t same = uint32_t(_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(s, now))));
  if (!threshold) return ~same & 0xFFu;
  const __m256 unit = steps ? _mm256_loadu_ps(steps) : _mm256_set1_ps(step);
  const __m256 d = magnitude(_mm256_sub_ps(_mm256_loadu_ps(z), _mm256_mul_ps(_mm256_cvtepi32_ps(s), unit)));
  return ~same & uint32_t(_mm256_movemask_ps(_mm256_cmp_ps(d, _mm256_loadu_ps(threshold), _CMP_GT_OQ)));
}

using Expand = ScalarExpand;

}  // namespace
