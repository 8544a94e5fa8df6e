// NEON with dot products: Cortex-A55, A76, Neoverse N1, Apple M1.
#pragma once
#include "simd/asimd_dot8.h"

namespace {

struct Dot : AsimdDot8 {
  static constexpr int pairs = 0;
};

}  // namespace
