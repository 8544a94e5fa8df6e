// Putting zeros back between the elements that are kept, one by one, for instruction sets that do not expand.
#pragma once
#include <cstdint>

#include "kernels/kernels.h"

// For a function that expands in registers: what the instruction set needs beyond the flags of its object.
#ifndef ALSTM_EXPANDS
#define ALSTM_EXPANDS
#endif

namespace {

// Prefetches elements so many bytes ahead, and their masks. Left to itself the processor looks less far.
inline void read_ahead(const void* from, const uint64_t* mask, int bytes) {
  __builtin_prefetch(static_cast<const char*>(from) + bytes);
  __builtin_prefetch(mask + bytes / 16);
}

// `count` times 64 elements: those whose bit is set in a mask come from `from`, the others are zeros as stored. Returns
// what follows.
template <class T>
inline const T* expand_each(const T* from, const uint64_t* mask, int count, T* to) {
  constexpr T zero = alstm::stored_zero<T>();
  for (int i = 0; i < count; i++, to += alstm::kRowBlock)
    for (int k = 0; k < alstm::kRowBlock; k++) to[k] = mask[i] >> k & 1 ? *from++ : zero;
  return from;
}

}  // namespace
