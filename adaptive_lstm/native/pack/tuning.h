// When a form or a path pays: every threshold that was measured.
#pragma once

namespace alstm {

// As Kernels::dense_above_share_int8, of float matrices: four times the bytes are visited.
constexpr double kDenseAboveShareFloat = 0.12;

// Share of held timesteps above which projecting a whole chunk costs more than single timesteps that run.
constexpr double kMostlyHeld = 0.5;

}  // namespace alstm
