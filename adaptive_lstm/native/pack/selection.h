// Which rows and columns of a source matrix are packed.
#pragma once

#include <cstdint>
#include <vector>

#include "pack/block_pattern.h"
#include "pack/plan.h"

namespace alstm {

struct Selection {
  std::vector<int> rows;      // [R] source row of every packed row, -1 for padding
  std::vector<int32_t> cols;  // source columns, at least one
  int useful = 0;             // how many of them are not all zeros
  GateStrips used;            // of the selected columns; empty unless zeros may be left out
};

// The source row of every packed row of a gate matrix with `rows` rows: gates of the live units, at least one row
// block.
std::vector<int> packed_order(int rows, const std::vector<int32_t>& live);

Selection select(const MatrixSource& source);

// Share of zeros among the selected elements, padding included.
double share_of_zeros(const MatrixSource& source, const Selection& selection);

}  // namespace alstm
