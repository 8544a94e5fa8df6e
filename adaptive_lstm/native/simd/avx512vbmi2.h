// AVX-512 VNNI and VBMI2: Ice Lake, Zen 4. All of the bitmask form expands in registers.
#pragma once
#include "simd/avx512.h"
#include "simd/no_tiles.h"
#include "simd/vbmi2_expand.h"
