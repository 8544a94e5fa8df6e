// AVX-512 (F, BW, DQ, VL, VNNI): 16 float lanes, integer dot products in one instruction. What avx512vnni, avx512vbmi2
// and amx share.
#pragma once
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC warns about its own undefined-value intrinsics
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>

#include <cstdint>

namespace {

struct Vec {
  static constexpr int width = 16;
  static constexpr int dense_vecs = 4, dense_rows = 6;  // accumulators of the matrix-matrix kernel: 24 of 32 registers
  static constexpr int single_vecs = 4;
  __m512 v;
  static Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static Vec load(const uint16_t* p) {  // bfloat16 is the upper half of a float
    return {_mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))), 16))};
  }
  static Vec load(const int8_t* p) {
    return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
  }
  static Vec load(const int32_t* p) { return {_mm512_cvtepi32_ps(_mm512_loadu_si512(p))}; }
  void store(float* p) const { _mm512_storeu_ps(p, v); }
  static Vec set(float x) { return {_mm512_set1_ps(x)}; }
  static Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
  friend Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
  friend Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
  friend Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
  static Vec reciprocal(Vec x) {  // 14 bits, then one Newton step: as good as a division, three times as fast
    const __m512 r = _mm512_rcp14_ps(x.v);
    return {_mm512_fmadd_ps(r, _mm512_fnmadd_ps(x.v, r, _mm512_set1_ps(1.0f)), r)};
  }
  // The second operand comes back if either is NaN, so a NaN in x survives the clamp.
  static Vec clamp(Vec x, float low, float high) {
    return {_mm512_max_ps(_mm512_set1_ps(low), _mm512_min_ps(_mm512_set1_ps(high), x.v))};
  }
  static constexpr bool has_powers = true;
  // 2^(n / 16) from 1.5 * 2^23 + n, whose low bits are the whole number n. The last four bits of n select from the
  // table; a shift moves the others into the exponent, and the last four into the fraction, which the table
  // compensates.
  static Vec power(Vec biased) {
    const __m512i table = _mm512_setr_epi32(0x3f800000, 0x3f7daac3, 0x3f7b95c2, 0x3f79c3d3, 0x3f7837f0, 0x3f76f532,
                                            0x3f75fed7, 0x3f75583f, 0x3f7504f3, 0x3f7508a4, 0x3f75672a, 0x3f76248c,
                                            0x3f7744fd, 0x3f78ccdf, 0x3f7ac0c7, 0x3f7d257d);
    const __m512i n = _mm512_castps_si512(biased.v);
    return {_mm512_castsi512_ps(_mm512_add_epi32(_mm512_permutexvar_epi32(n, table), _mm512_slli_epi32(n, 19)))};
  }
  // The true 2^(n / 16) over power(biased), less 1.
  static Vec power_tail(Vec biased) {
    const __m512 table = _mm512_setr_ps(0.0f, 4.628547e-8f, -1.19921575e-8f, 4.7297824e-8f, 3.193418e-8f,
                                        3.6210572e-8f, -3.099072e-8f, -7.475213e-9f, 1.7114271e-8f, -3.0476834e-8f,
                                        5.233334e-9f, 6.1075918e-9f, -1.4719605e-8f, -5.258795e-9f, -6.1282597e-9f,
                                        5.1406093e-9f);
    return {_mm512_permutexvar_ps(_mm512_castps_si512(biased.v), table)};
  }
};

struct Dot {
  static constexpr int quad = 4, weight_offset = 128;  // vpdpbusd: unsigned weights times signed activations
  static constexpr bool has_dot8 = true;
  static constexpr int short_levels = 0;
  static constexpr int bytes = 64, lanes = 16;
  static constexpr int tile_blocks = 4;
  static constexpr int single_blocks = 2, byte_rows = 6, wide_rows = 3;
  static constexpr int word_rows = 0, pairs = 0;
  static constexpr int row_position(int row) { return 16 * (row % 16 / 4) + 4 * (row / 16) + row % 4; }
  using Quad = __m512i;
  using Acc = __m512i;
  static Acc load_acc(const int32_t* p) { return _mm512_loadu_si512(p); }
  static void store_acc(int32_t* p, Acc a) { _mm512_storeu_si512(p, a); }
  static Acc set(int32_t x) { return _mm512_set1_epi32(x); }
  static Acc add(Acc a, Acc b) { return _mm512_add_epi32(a, b); }
  static Acc sub(Acc a, Acc b) { return _mm512_sub_epi32(a, b); }
  static Acc times128(Acc a) { return _mm512_slli_epi32(a, 7); }
  static Vec to_float(Acc a) { return {_mm512_cvtepi32_ps(a)}; }
  static Quad load(const uint8_t* p) { return _mm512_loadu_si512(p); }
  static void interleave(const uint8_t* c0, const uint8_t* c1, const uint8_t* c2, const uint8_t* c3, Quad q[4]) {
    interleave(load(c0), load(c1), load(c2), load(c3), q);
  }
  static void interleave(Quad w0, Quad w1, Quad w2, Quad w3, Quad q[4]) {
    const __m512i lo01 = _mm512_unpacklo_epi8(w0, w1), hi01 = _mm512_unpackhi_epi8(w0, w1);
    const __m512i lo23 = _mm512_unpacklo_epi8(w2, w3), hi23 = _mm512_unpackhi_epi8(w2, w3);
    q[0] = _mm512_unpacklo_epi16(lo01, lo23);
    q[1] = _mm512_unpackhi_epi16(lo01, lo23);
    q[2] = _mm512_unpacklo_epi16(hi01, hi23);
    q[3] = _mm512_unpackhi_epi16(hi01, hi23);
  }
  // Inline assembly, not intrinsics: GCC 12 adds two register copies to each of those, a third of the time.
  static Acc dot8(Acc a, Quad q, int32_t four) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(a) : "v"(q), "v"(_mm512_set1_epi32(four)));
    return a;
  }
  static Quad even(Quad q) { return _mm512_and_si512(q, _mm512_set1_epi32(0x00FF00FF)); }
  static Quad odd(Quad q) { return _mm512_srli_epi16(q, 8); }
  static Quad column_words(const Quad (&q)[4], int i, int half) { return half ? odd(q[i]) : even(q[i]); }
  static Acc dot16(Acc a, Quad half, int32_t two) {
    __asm__("vpdpwssd %2, %1, %0" : "+v"(a) : "v"(half), "v"(_mm512_set1_epi32(two)));
    return a;
  }
};

inline uint32_t greater_mask(const float* z, const float* sent, const float* threshold) {
  const __m512 d = _mm512_abs_ps(_mm512_sub_ps(_mm512_loadu_ps(z), _mm512_loadu_ps(sent)));
  return _mm512_cmp_ps_mask(d, threshold ? _mm512_loadu_ps(threshold) : _mm512_setzero_ps(), _CMP_GT_OQ);
}

inline void quantize_lanes(const float* z, int levels, const float* factor, int16_t* q) {
  const __m512 limit = _mm512_set1_ps(float(levels));
  __m512 v = _mm512_mul_ps(_mm512_loadu_ps(z), factor ? _mm512_loadu_ps(factor) : limit);
  v = _mm512_max_ps(_mm512_min_ps(v, limit), _mm512_set1_ps(-float(levels)));
  v = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(_mm512_loadu_ps(z), _mm512_loadu_ps(z), _CMP_ORD_Q), v);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(q), _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(v)));
}

inline uint32_t greater_mask_int8(const float* z, const int16_t* sent, const int16_t* q, const float* threshold,
                                  float step, const float* steps) {
  const __m256i s16 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(sent));
  const __mmask16 changed = _mm256_cmpneq_epi16_mask(s16, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(q)));
  if (!threshold) return changed;
  const __m512 unit = steps ? _mm512_loadu_ps(steps) : _mm512_set1_ps(step);
  const __m512 s = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(s16)), unit);
  const __m512 d = _mm512_abs_ps(_mm512_sub_ps(_mm512_loadu_ps(z), s));
  return _mm512_mask_cmp_ps_mask(changed, d, _mm512_loadu_ps(threshold), _CMP_GT_OQ);
}

// As in simd/scalar_compact.h; write 16 entries whatever the mask.
inline int compact(uint32_t mask, int first, const float* z, float* sent, int32_t* cols, float* delta) {
  const __mmask16 m = __mmask16(mask);
  const __m512 now = _mm512_loadu_ps(z), difference = _mm512_sub_ps(now, _mm512_loadu_ps(sent));
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  _mm512_storeu_si512(cols, _mm512_maskz_compress_epi32(m, _mm512_add_epi32(lanes, _mm512_set1_epi32(first))));
  _mm512_storeu_ps(delta, _mm512_maskz_compress_ps(m, difference));
  _mm512_mask_storeu_ps(sent, m, now);
  return __builtin_popcount(mask);
}

inline int compact_int8(uint32_t mask, int first, const int16_t* q, int16_t* sent, int32_t* cols, int16_t* delta) {
  const __mmask16 m = __mmask16(mask);
  const __m256i now = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(q));
  const __m256i difference = _mm256_sub_epi16(now, _mm256_maskz_loadu_epi16(m, sent));
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  _mm512_storeu_si512(cols, _mm512_maskz_compress_epi32(m, _mm512_add_epi32(lanes, _mm512_set1_epi32(first))));
  const __m512i listed = _mm512_maskz_compress_epi32(m, _mm512_cvtepi16_epi32(difference));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(delta), _mm512_cvtepi32_epi16(listed));
  _mm256_mask_storeu_epi16(sent, m, now);
  return __builtin_popcount(mask);
}

inline int select_bit(int bit, const uint32_t* where, int32_t* next, const int32_t* value, int32_t* block,
                      int32_t* kept) {
  const __mmask16 m = _mm512_test_epi32_mask(_mm512_loadu_si512(where), _mm512_set1_epi32(int(1u << bit)));
  const __m512i at = _mm512_loadu_si512(next);
  _mm512_storeu_si512(block, _mm512_maskz_compress_epi32(m, at));
  _mm512_storeu_si512(kept, _mm512_maskz_compress_epi32(m, _mm512_loadu_si512(value)));
  _mm512_storeu_si512(next, _mm512_mask_add_epi32(at, m, at, _mm512_set1_epi32(1)));
  return __builtin_popcount(m);
}

}  // namespace
