// Which gate strips of a pruned matrix (16 rows of one gate of a row block) are zero in which columns.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/kernels.h"

namespace alstm {

// [strips, cols] whether a gate strip has a value other than zero in a column.
struct GateStrips {
  int count = 0, cols = 0;
  std::vector<uint8_t> used;
  bool at(int strip, int col) const { return used[size_t(strip) * cols + col]; }
};

constexpr int kStripsPerBlock = kRowBlock / kGateStrip;

// An order of the strips, four to a row block, that leaves few blocks (see Matrix::strip): as they are, or grouped by
// similar zeros.
std::vector<int32_t> group_strips(const GateStrips& strips);

// Number of blocks that are not all zeros with the strips in this order.
size_t count_blocks(const GateStrips& strips, const std::vector<int32_t>& order);

}  // namespace alstm
