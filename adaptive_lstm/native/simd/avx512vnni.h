// AVX-512 VNNI: Cascade Lake. Of the bitmask form, floats expand in registers.
#pragma once
#include "simd/avx512.h"
#include "simd/avx512_expand.h"
#include "simd/no_tiles.h"

namespace {

struct Expand : Avx512Expand {
  static constexpr bool floats = true, narrow = false;

  using Avx512Expand::run;

  template <class T>
  static const T* run(const T* from, const uint64_t* mask, int count, T* to, T zero, int) {
    return scalar_expand(from, mask, count, to, zero);
  }
};

}  // namespace
