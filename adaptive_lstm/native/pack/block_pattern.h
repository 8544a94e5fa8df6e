// Which strips of a pruned matrix, the 16 rows of one gate of a block, hold something in which columns.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/kernels.h"

namespace alstm {

// [strips, cols] whether a strip holds something else than zeros in a column.
struct Strips {
  int count = 0, cols = 0;
  std::vector<uint8_t> used;
  bool at(int strip, int col) const { return used[size_t(strip) * cols + col]; }
};

constexpr int kStrips = kRowBlock / kGateStrip;  // strips of a piece

// Four strips to a block, in an order that leaves few pieces (see Matrix::strip): those beside each other, or those
// that were pruned alike.
std::vector<int32_t> group_strips(const Strips& strips);

// How many pieces hold something, with the strips in this order.
size_t count_pieces(const Strips& strips, const std::vector<int32_t>& order);

}  // namespace alstm
