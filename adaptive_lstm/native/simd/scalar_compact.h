// Lists of columns written one entry at a time, for instruction sets without a compressing store.
#pragma once
#include <cstdint>

namespace {

// Lists the masked lanes (columns first + lane) with z - sent, moves `sent` to z there, and returns their number.
inline int compact(uint32_t mask, int first, const float* z, float* sent, int32_t* cols, float* delta) {
  int count = 0;
  for (; mask; mask &= mask - 1, count++) {
    const int i = __builtin_ctz(mask);
    cols[count] = first + i;
    delta[count] = z[i] - sent[i];
    sent[i] = z[i];
  }
  return count;
}

inline int compact_int8(uint32_t mask, int first, const int16_t* q, int16_t* sent, int32_t* cols, int16_t* delta) {
  int count = 0;
  for (; mask; mask &= mask - 1, count++) {
    const int i = __builtin_ctz(mask);
    cols[count] = first + i;
    delta[count] = int16_t(q[i] - sent[i]);
    sent[i] = q[i];
  }
  return count;
}

}  // namespace
