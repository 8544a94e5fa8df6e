// How far values have moved, and how sure a head is: the numbers that decisions are made by.
#pragma once

#include "run/policy.h"

namespace alstm {

double rms(const float* x, int n);                    // root mean square
double moved(const float* x, const float* y, int n);  // of the difference; summed in double, as in policies/holding.py

// Of logits [n]: 1 if entirely sure (policies/head.py).
float confidence(const Head& head, const float* logits, int n);

}  // namespace alstm
