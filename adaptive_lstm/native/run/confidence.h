// The numbers that decisions compare with thresholds: how far values have moved, and how confident a head is.
#pragma once

#include "run/policy.h"

namespace alstm {

// Root mean square of x [n], and of x - y; summed in double, as in policies/holding.py.
double rms(const Kernels& kernels, const float* x, int n);
double rms_change(const Kernels& kernels, const float* x, const float* y, int n);

// Confidence in logits [n]: 1 is certain (policies/head.py).
float confidence(const Head& head, const float* logits, int n);

}  // namespace alstm
