// NEON with dot products, and products of two rows by two (SMMLA): Cortex-A510, A710, X2, Neoverse V1 and N2, Apple M2.
#pragma once
#include "simd/asimd_dot8.h"

namespace {

struct Dot : AsimdDot8 {
  static constexpr int pairs = 3;  // 24 of 32 registers
  static void store_pairs(Quad q, Quad next, uint8_t* p) {
    const int32x4_t low = vreinterpretq_s32_s8(q), high = vreinterpretq_s32_s8(next);
    vst1q_u8(p, vreinterpretq_u8_s32(vzip1q_s32(low, high)));
    vst1q_u8(p + bytes, vreinterpretq_u8_s32(vzip2q_s32(low, high)));
  }
  static Quad pair(const uint8_t* first, const uint8_t* second) {
    return vreinterpretq_s8_u8(vcombine_u8(vld1_u8(first), vld1_u8(second)));
  }
  // Inline assembly, not an intrinsic: GCC 12 loads all rows before the first product, and then has too few registers.
  static Acc dot_pairs(Acc a, Quad z, Quad rows) {
    __asm__("smmla %0.4s, %1.16b, %2.16b" : "+w"(a) : "w"(z), "w"(rows));
    return a;
  }
  static Acc first_rows(Acc a, Acc b) {
    return vreinterpretq_s32_s64(vzip1q_s64(vreinterpretq_s64_s32(a), vreinterpretq_s64_s32(b)));
  }
  static Acc second_rows(Acc a, Acc b) {
    return vreinterpretq_s32_s64(vzip2q_s64(vreinterpretq_s64_s32(a), vreinterpretq_s64_s32(b)));
  }
};

}  // namespace
