// Expansion of the bitmask form with AVX-512 F: floats only.
#pragma once
#include <immintrin.h>

#include <cstdint>

#include "simd/scalar_expand.h"

namespace {

struct Avx512Expand {
  // Prefetches elements so many bytes ahead, and their masks: the hardware prefetcher does not look as far.
  static void read_ahead(const void* from, const uint64_t* mask, int bytes) {
    __builtin_prefetch(static_cast<const char*>(from) + bytes);
    __builtin_prefetch(mask + bytes / 16);
  }

  // Every part of an entry finds its first element by counting the bits of the whole mask before it, so that parts do
  // not wait for each other.
  static const float* run(const float* from, const uint64_t* mask, int count, float* to, float, int ahead) {
    for (int i = 0; i < count; i++, to += 64) {
      const uint64_t m = mask[i];
      read_ahead(from, mask + i, ahead);
      for (int v = 0; v < 4; v++) {
        const float* part = from + __builtin_popcountll(m & ((uint64_t(1) << 16 * v) - 1));
        _mm512_store_ps(to + 16 * v, _mm512_maskz_expand_ps(__mmask16(m >> 16 * v), _mm512_loadu_ps(part)));
      }
      from += __builtin_popcountll(m);
    }
    return from;
  }
};

}  // namespace
