// Expansion of the bitmask form one element at a time, for instruction sets that do not expand in registers.
#pragma once
#include <cstdint>

#include "simd/row_block.h"

namespace {

// `count` entries of 64 elements: an element whose mask bit is set comes from `from`, the others are `zero`. Returns
// the element that follows them.
template <class T>
inline const T* scalar_expand(const T* from, const uint64_t* mask, int count, T* to, T zero) {
  for (int i = 0; i < count; i++, to += alstm::kRowBlock)
    for (int k = 0; k < alstm::kRowBlock; k++) to[k] = mask[i] >> k & 1 ? *from++ : zero;
  return from;
}

struct ScalarExpand {
  static constexpr bool floats = false, narrow = false;

  template <class T>
  static const T* run(const T* from, const uint64_t* mask, int count, T* to, T zero, int) {
    return scalar_expand(from, mask, count, to, zero);
  }
};

}  // namespace
