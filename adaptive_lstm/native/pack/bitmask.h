// The compressed form of a matrix, for zeros that lie anywhere: a mask and the elements that are not zero.
#pragma once

#include <cstdint>
#include <vector>

#include "pack/plan.h"

namespace alstm {

// Of an element as it is stored: float, bfloat16 bits, int8, and q8.
inline bool is_zero(float v) { return v == 0; }
inline bool is_zero(uint16_t bits) { return !(bits & 0x7FFF); }
inline bool is_zero(int8_t v) { return v == 0; }
inline bool is_zero(uint8_t v) { return v == stored_zero<uint8_t>(); }

// The mask and the starts of runs of `entries` * 64 elements, which lie one behind the other in `data` (see
// Matrix::mask); leaves those in `data` that are kept.
void compress(Buffer<uint8_t>& data, Format format, size_t entries, std::vector<uint64_t>& mask,
              std::vector<int64_t>& start);

// Whether the compressed form saves time here, of a matrix of so many elements, a share of which are zeros.
bool compressing_pays(Format format, Layout layout, size_t elements, double zeros);

}  // namespace alstm
