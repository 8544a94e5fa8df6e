// NEON as every 64-bit ARM has it: 4 float lanes. What neon, neondot and i8mm share. The float arithmetic is that of
// avx2.h operation by operation, so that both give the same bits.
#pragma once
#include <arm_neon.h>

#include <cstdint>

#include "simd/asimd_compact.h"
#include "simd/no_tiles.h"
#include "simd/scalar_expand.h"
#include "simd/scalar_select.h"

namespace {

struct Vec {
  static constexpr int width = 4;
  static constexpr int dense_vecs = 4, dense_rows = 6;  // 24 of 32 registers
  static constexpr int single_vecs = 16;
  float32x4_t v;
  static Vec load(const float* p) { return {vld1q_f32(p)}; }
  static Vec load(const uint16_t* p) {  // bfloat16 is the upper half of a float
    return {vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16))};
  }
  static Vec load(const int8_t* p) {
    uint32_t four;
    __builtin_memcpy(&four, p, 4);
    const int16x8_t words = vmovl_s8(vreinterpret_s8_u32(vdup_n_u32(four)));
    return {vcvtq_f32_s32(vmovl_s16(vget_low_s16(words)))};
  }
  static Vec load(const int32_t* p) { return {vcvtq_f32_s32(vld1q_s32(p))}; }
  void store(float* p) const { vst1q_f32(p, v); }
  static Vec set(float x) { return {vdupq_n_f32(x)}; }
  static Vec fma(Vec a, Vec b, Vec c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
  friend Vec operator+(Vec a, Vec b) { return {vaddq_f32(a.v, b.v)}; }
  friend Vec operator-(Vec a, Vec b) { return {vsubq_f32(a.v, b.v)}; }
  friend Vec operator*(Vec a, Vec b) { return {vmulq_f32(a.v, b.v)}; }
  static Vec reciprocal(Vec x) { return {vdivq_f32(vdupq_n_f32(1.0f), x.v)}; }
  static Vec clamp(Vec x, float low, float high) {  // the result is NaN if an operand is
    return {vmaxq_f32(vdupq_n_f32(low), vminq_f32(vdupq_n_f32(high), x.v))};
  }
  static constexpr bool has_powers = false;
  static Vec pow2(Vec n) {  // 2^n for whole n in [-126, 127]
    return {vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n.v), vdupq_n_s32(127)), 23))};
  }
};

// All of Dot but dot8, and how many rows are computed together.
struct AsimdDot {
  static constexpr int quad = 4, weight_offset = 0;  // both operands have a sign
  static constexpr bool has_dot8 = true;
  static constexpr int short_levels = 0;
  static constexpr int bytes = 16, lanes = 4;
  static constexpr int tile_blocks = 1, single_blocks = 1;
  static constexpr int word_rows = 0;
  static constexpr int row_position(int row) { return 16 * (row % 16 / 4) + 4 * (row / 16) + row % 4; }
  using Quad = int8x16_t;
  using Acc = int32x4_t;
  static Acc load_acc(const int32_t* p) { return vld1q_s32(p); }
  static void store_acc(int32_t* p, Acc a) { vst1q_s32(p, a); }
  static Acc set(int32_t x) { return vdupq_n_s32(x); }
  static Acc add(Acc a, Acc b) { return vaddq_s32(a, b); }
  static Acc sub(Acc a, Acc b) { return vsubq_s32(a, b); }
  static Acc times128(Acc a) { return vshlq_n_s32(a, 7); }
  static Vec to_float(Acc a) { return {vcvtq_f32_s32(a)}; }
  static Quad load(const uint8_t* p) { return vreinterpretq_s8_u8(vld1q_u8(p)); }
  static void interleave(const uint8_t* c0, const uint8_t* c1, const uint8_t* c2, const uint8_t* c3, Quad q[4]) {
    const int8x16_t w0 = load(c0), w1 = load(c1), w2 = load(c2), w3 = load(c3);
    const int16x8_t lo01 = vreinterpretq_s16_s8(vzip1q_s8(w0, w1)), hi01 = vreinterpretq_s16_s8(vzip2q_s8(w0, w1));
    const int16x8_t lo23 = vreinterpretq_s16_s8(vzip1q_s8(w2, w3)), hi23 = vreinterpretq_s16_s8(vzip2q_s8(w2, w3));
    q[0] = vreinterpretq_s8_s16(vzip1q_s16(lo01, lo23));
    q[1] = vreinterpretq_s8_s16(vzip2q_s16(lo01, lo23));
    q[2] = vreinterpretq_s8_s16(vzip1q_s16(hi01, hi23));
    q[3] = vreinterpretq_s8_s16(vzip2q_s16(hi01, hi23));
  }
  static Quad even(Quad q) {
    return vreinterpretq_s8_s16(vshrq_n_s16(vshlq_n_s16(vreinterpretq_s16_s8(q), 8), 8));
  }
  static Quad odd(Quad q) { return vreinterpretq_s8_s16(vshrq_n_s16(vreinterpretq_s16_s8(q), 8)); }
  static Quad column_words(const Quad (&q)[4], int i, int half) { return half ? odd(q[i]) : even(q[i]); }
  static Acc dot16(Acc a, Quad half, int32_t two) {
    const int16x8_t w = vreinterpretq_s16_s8(half), z = vreinterpretq_s16_s32(vdupq_n_s32(two));
    return vaddq_s32(a, vpaddq_s32(vmull_s16(vget_low_s16(w), vget_low_s16(z)), vmull_high_s16(w, z)));
  }
};

// A bit for every lane that has all bits set.
inline uint32_t lane_bits(uint32x4_t lanes) {
  const uint32_t bits[4] = {1, 2, 4, 8};
  return vaddvq_u32(vandq_u32(lanes, vld1q_u32(bits)));
}

inline uint32_t greater_mask(const float* z, const float* sent, const float* threshold) {
  const float32x4_t d = vabdq_f32(vld1q_f32(z), vld1q_f32(sent));
  return lane_bits(vcgtq_f32(d, threshold ? vld1q_f32(threshold) : vdupq_n_f32(0.0f)));
}

inline void quantize_lanes(const float* z, int levels, const float* factor, int16_t* q) {
  const float32x4_t limit = vdupq_n_f32(float(levels));
  const float32x4_t v = vmulq_f32(vld1q_f32(z), factor ? vld1q_f32(factor) : limit);
  const float32x4_t within = vmaxq_f32(vminq_f32(v, limit), vnegq_f32(limit));
  vst1_s16(q, vmovn_s32(vcvtnq_s32_f32(within)));  // of NaN: 0
}

inline uint32_t greater_mask_int8(const float* z, const int16_t* sent, const int16_t* q, const float* threshold,
                                  float step, const float* steps) {
  const int32x4_t s = vmovl_s16(vld1_s16(sent)), now = vmovl_s16(vld1_s16(q));
  const uint32x4_t changed = vmvnq_u32(vceqq_s32(s, now));
  if (!threshold) return lane_bits(changed);
  const float32x4_t unit = steps ? vld1q_f32(steps) : vdupq_n_f32(step);
  const float32x4_t d = vabdq_f32(vld1q_f32(z), vmulq_f32(vcvtq_f32_s32(s), unit));
  return lane_bits(vandq_u32(changed, vcgtq_f32(d, vld1q_f32(threshold))));
}

using Expand = ScalarExpand;

}  // namespace
