"""A whole layer as a feed-forward map of its inputs.

With i = o = 1 and f = 0 an LSTM layer is h = tanh(tanh(A x + b)): no recurrence, and only the rows of the cell gate are
left, an eighth of the weights of a square layer. A and b are the ridge regression of arctanh(arctanh(h)) on x. Values
of h beyond tanh(1) = 0.76 cannot be reached.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch

from ...analysis.moments import Moments, moments
from ...weights.layout import CellTensors, gate_rows
from .refit import quadratic

MAX_OUTPUT = 0.75  # of |h|: a little below tanh(1), the limit of the map
SATURATED = 30.0  # a sigmoid that is 1 in float32; 0 for its negative


def feed_forward(
    original: CellTensors, pairs: Iterable[tuple[torch.Tensor, torch.Tensor]], ridge: float
) -> CellTensors:
    """Weights of the map that replaces a layer in one direction.

    Args:
        original: the weights of one direction, without projection.
        pairs: output [n, H] of the dense run and input [n, width] of the pruned one, batch by batch.
        ridge: of A, toward zero, as a multiple of E[x_j^2].
    """
    hidden, width = original.w_hh.shape[1], original.w_ih.shape[1]
    joined = (torch.cat([x, h.clamp(-MAX_OUTPUT, MAX_OUTPUT).atanh().atanh()], dim=1) for h, x in pairs)
    joint = moments((both, both) for both in joined)
    x, y = slice(0, width), slice(width, None)
    of_x = Moments(joint.mean[x], joint.covariance[x, x], joint.mean[x], joint.covariance[x, x])
    problem = quadratic(np.zeros((hidden, width)), of_x, ridge)
    a = (joint.covariance[y, x] / problem.scale) @ problem.inverse / problem.scale
    w = torch.zeros_like(original.w_ih)
    w[gate_rows("g", hidden)] = torch.from_numpy(a)
    bias = torch.zeros_like(original.bias)
    for gate, value in (("i", SATURATED), ("f", -SATURATED), ("o", SATURATED)):
        bias[gate_rows(gate, hidden)] = value
    bias[gate_rows("g", hidden)] = torch.from_numpy(joint.mean[y] - a @ joint.mean[x])
    return replace(original, w_ih=w, w_hh=torch.zeros_like(original.w_hh), bias=bias)
