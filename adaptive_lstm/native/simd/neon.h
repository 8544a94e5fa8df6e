// NEON without dot products: Cortex-A53, A72, A73. Sums of two products of bytes fit 16 bits: a stored weight is never
// -128.
#pragma once
#include "simd/asimd.h"

namespace {

struct Dot : AsimdDot {
  static constexpr int byte_rows = 4, wide_rows = 2, pairs = 0;
  static Acc dot8(Acc a, Quad q, int32_t four) {
    const int8x16_t z = vreinterpretq_s8_s32(vdupq_n_s32(four));
    return vpadalq_s16(a, vpaddq_s16(vmull_s8(vget_low_s8(q), vget_low_s8(z)), vmull_high_s8(q, z)));
  }
};

}  // namespace
