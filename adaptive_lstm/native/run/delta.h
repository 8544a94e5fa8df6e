// Sending columns: an operand's estimate of its values, and W times that estimate, kept up to date by differences.
#pragma once

#include "run/stack_state.h"

namespace alstm {

// Lists the columns of z to send for row b in `work`, and moves the estimate there; returns how many.
int list_changed(const Kernels& k, const Matrix& w, Memory& m, int b, const float* z, int cols, const float* thresholds,
                 Workspace& work);

// Brings acc of row b up to date with the `count` listed columns and adds it to base (bias, or null for pre itself).
void send_listed(const Kernels& k, const Matrix& w, Memory& m, int b, int count, const float* bias, float* pre,
                 bool reverse, Workspace& work);

}  // namespace alstm
