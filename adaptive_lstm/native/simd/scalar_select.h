// Lists of blocks written one entry at a time, for instruction sets without a compressing store.
#pragma once
#include <cstdint>

namespace {

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
