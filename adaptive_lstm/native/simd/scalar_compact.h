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

// Of 16 columns, those with the given bit set in `where`: lists their next block, which is then advanced, and their
// value. Returns their number.
inline int select_bit(int bit, const uint32_t* where, int32_t* next, const int32_t* value, int32_t* block,
                      int32_t* kept) {
  int count = 0;
  for (int i = 0; i < 16; i++) {
    const int has = int(where[i] >> bit & 1);
    block[count] = next[i];
    kept[count] = value[i];
    count += has;
    next[i] += has;
  }
  return count;
}

}  // namespace
