// Dot products of four bytes in one instruction (SDOT), which neondot and i8mm share.
#pragma once
#include "simd/asimd.h"

namespace {

struct AsimdDot8 : AsimdDot {
  static constexpr int byte_rows = 6, wide_rows = 3;  // 24 of 32 registers
  // Inline assembly, not an intrinsic: GCC 12 copies the four bytes to all lanes first, which takes as long as a product.
  static Acc dot8(Acc a, Quad q, int32_t four) {
    float z;
    __builtin_memcpy(&z, &four, 4);
    __asm__("sdot %0.4s, %1.16b, %2.4b[0]" : "+w"(a) : "w"(q), "w"(z));
    return a;
  }
};

}  // namespace
