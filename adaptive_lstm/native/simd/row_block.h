// The unit in which gate rows are stored: 16 units x gates i, f, g, o.
#pragma once

namespace alstm {

constexpr int kRowBlock = 64;       // rows that every kernel handles together
constexpr int kUnits = 16;          // hidden units of a row block
constexpr int kGateStrip = kUnits;  // rows of a row block that belong to one gate

}  // namespace alstm
