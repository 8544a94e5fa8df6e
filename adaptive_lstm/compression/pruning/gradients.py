"""Mean squared gradients of the output with respect to single weights, for the Taylor score.

With v standard normal, E_v[(sum_s d(v_s . y_s)/dw)^2] = sum_s |dy_s/dw|^2 over the sequences s of a batch: random
projections give the diagonal of the Gauss-Newton matrix in the weights themselves, sequence by sequence, without a
backward pass for each.
"""

from __future__ import annotations
