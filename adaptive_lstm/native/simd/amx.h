// AMX-INT8 above avx512vbmi2: Sapphire Rapids. Every processor with AMX has VBMI2, so this set relies on it.
#pragma once
#include "simd/amx_tiles.h"
#include "simd/avx512.h"
#include "simd/vbmi2_expand.h"
