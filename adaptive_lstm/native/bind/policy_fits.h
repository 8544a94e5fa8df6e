// Whether a policy fits a plan.
#pragma once

#include "run/policy.h"

namespace alstm {

// Throws std::invalid_argument unless states of this plan can follow this policy.
void check_fits(const Plan& plan, const Policy& policy);

}  // namespace alstm
