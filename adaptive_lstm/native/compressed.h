// The compressed form of a matrix, for zeros that lie anywhere: a mask and the elements that are not zero.
#pragma once

#include <cstdint>
#include <vector>

#include "plan.h"

namespace alstm {

// The mask and the starts of runs of `entries` * 64 elements, which lie one behind the other in `data` (see
// Matrix::mask); leaves those in `data` that are kept.
void compress(Buffer<uint8_t>& data, Format format, size_t entries, std::vector<uint64_t>& mask,
              std::vector<int64_t>& start);

// Whether the compressed form saves time here, of a matrix of so many elements, a share of which are zeros.
bool compressing_pays(Format format, Layout layout, size_t elements, double zeros);

}  // namespace alstm
