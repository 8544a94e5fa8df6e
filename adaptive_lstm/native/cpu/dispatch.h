// Which instruction set is used: the best that runs here, or the one that ADAPTIVE_LSTM_ISA names.
#pragma once

#include <string>
#include <vector>

#include "kernels/kernels.h"

namespace alstm {

// The active table, chosen once per process. Throws std::runtime_error if ADAPTIVE_LSTM_ISA names an unknown or
// unusable instruction set.
const Kernels& active_kernels();

std::vector<std::string> usable_isas();  // best first

}  // namespace alstm
