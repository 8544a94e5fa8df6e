// Expansion of the bitmask form with AVX-512 VBMI2: bytes and words too.
#pragma once
#include <immintrin.h>

#include <cstdint>

#include "simd/avx512.h"
#include "simd/avx512_expand.h"

namespace {

struct Expand : Avx512Expand {
  static constexpr bool floats = true, narrow = true;

  using Avx512Expand::run;

  static const uint16_t* run(const uint16_t* from, const uint64_t* mask, int count, uint16_t* to, uint16_t, int ahead) {
    for (int i = 0; i < count; i++, to += 64) {
      read_ahead(from, mask + i, ahead);
      const __mmask32 low = __mmask32(mask[i]), high = __mmask32(mask[i] >> 32);
      _mm512_store_si512(to, _mm512_maskz_expand_epi16(low, _mm512_loadu_si512(from)));
      from += __builtin_popcount(low);
      _mm512_store_si512(to + 32, _mm512_maskz_expand_epi16(high, _mm512_loadu_si512(from)));
      from += __builtin_popcount(high);
    }
    return from;
  }

  // Bytes, signed or not.
  template <class T>
  static const T* run(const T* from, const uint64_t* mask, int count, T* to, T zero, int ahead) {
    static_assert(sizeof(T) == 1, "wider elements have functions of their own");
    const __m512i zeros = _mm512_set1_epi8(char(zero));
    for (int i = 0; i < count; i++, to += 64) {
      read_ahead(from, mask + i, ahead);
      _mm512_store_si512(to, _mm512_mask_expand_epi8(zeros, mask[i], _mm512_loadu_si512(from)));
      from += __builtin_popcountll(mask[i]);
    }
    return from;
  }

  static Dot::Quad load(const uint8_t* from, uint64_t mask) {
    return _mm512_mask_expand_epi8(_mm512_set1_epi8(char(Dot::weight_offset)), mask, _mm512_loadu_si512(from));
  }
};

}  // namespace
