// The bitmask form of a matrix, for unstructured zeros: a mask and the elements that are not zero.
#pragma once

#include <cstdint>
#include <vector>

#include "pack/plan.h"

namespace alstm {

// Of a source element: float, bfloat16 bits, int8.
inline bool is_zero(float v) { return v == 0; }
inline bool is_zero(uint16_t bits) { return !(bits & 0x7FFF); }
inline bool is_zero(int8_t v) { return v == 0; }

// Reduces `data`, runs of `entries` * 64 elements one behind the other, to its non-zero elements; sets the masks and
// the starts of the runs (see Bitmask).
void keep_nonzero(Buffer<uint8_t>& data, Format format, size_t entries, std::vector<uint64_t>& mask,
                  std::vector<int64_t>& start);

// Whether the bitmask form saves time on this machine for a matrix of so many elements with such a share of zeros.
bool bitmask_pays(Format format, Layout layout, size_t elements, double zeros);

}  // namespace alstm
