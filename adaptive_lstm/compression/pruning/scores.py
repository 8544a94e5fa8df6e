"""Scores of single weights: the expected squared change of the output if a weight is set to zero.

Zero order: w^2. First order: (w g)^2 with g^2 the mean squared gradient of random projections of the output
(``squared_gradients``; Molchanov et al., CVPR 2019, with projections in place of a loss), and Wanda's (|w| rms(z_j))^2
(arXiv 2306.11695). Second order: F_r^gamma w^2 E[z_j^2] with the output sensitivity F_r of the row
(``analysis/sensitivity.py`` explains the damping). Scores of a structure are sums over its weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from ...analysis.measure_sensitivity import Output
from ...analysis.recorder import run_all_on
from ...errors import InputError
from ...model_io import call
from ...progress import tracked
from ...runtime.lstm import AdaptiveLSTM
from ...types import DoubleArray
from ...weights.layout import CellTensors
from .model_runs import torch_runners


def damped(rows: DoubleArray, gamma: float) -> DoubleArray:
    """F_r^gamma [R]; gamma = 0 ignores the output."""
    return np.asarray(rows**gamma) if gamma else np.ones(len(rows))


def magnitude(w: DoubleArray) -> DoubleArray:
    """Scores of w [R, C], zero order."""
    return np.asarray(w**2)


def activation(w: DoubleArray, power: DoubleArray) -> DoubleArray:
    """Scores of w [R, C] with E[z_j^2] [C], output-agnostic."""
    return np.asarray(w**2 * power)


def taylor(w: DoubleArray, squares: DoubleArray) -> DoubleArray:
    """Scores of w [R, C] with mean squared gradients [R, C]."""
    return np.asarray(w**2 * squares)


def second_order(w: DoubleArray, power: DoubleArray, rows: DoubleArray, gamma: float) -> DoubleArray:
    """Scores of w [R, C] with E[z_j^2] [C] and F_r [R]."""
    return np.asarray(damped(rows, gamma)[:, None] * w**2 * power)


TAYLOR_PROBES = 4  # random projections of the output per batch


def squared_gradients(
    model: nn.Module,
    lstms: Mapping[str, AdaptiveLSTM],
    weights: Mapping[str, tuple[CellTensors, ...]],
    batches: Sequence[Any],
    output: Output,
    progress: bool,
) -> dict[str, list[DoubleArray]]:
    """Squared gradients of the output with respect to single weights, for the Taylor score.

    With v standard normal, E_v[(sum_s d(v_s . y_s)/dw)^2] = sum_s |dy_s/dw|^2 over the sequences s of a batch: random
    projections give the diagonal of the Gauss-Newton matrix in the weights, without a backward pass per sequence.

    Returns:
        Sums over batches, [4H, C] of [W_ih | W_hh] for every cell of every LSTM.

    Raises:
        InputError: the output depends on no LSTM.
    """
    stacks = torch_runners(lstms, weights)
    matrices = [m for stack in stacks.values() for layer in stack.layers for m in layer.matrices()]
    sums = [torch.zeros(m.shape, dtype=torch.float64) for m in matrices]
    generator = torch.Generator().manual_seed(0)
    with torch.enable_grad(), run_all_on(lstms, stacks):
        for item in tracked(batches, "gradients", "batch", show=progress):
            out = output(call(model, item))
            if not out.requires_grad:
                raise InputError(
                    "the output that counts does not depend on any LSTM; pass output=... to pick one that does"
                )
            for _ in range(TAYLOR_PROBES):
                v = torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out)
                found = torch.autograd.grad((out * v).sum(), matrices, retain_graph=True, allow_unused=True)
                for total, gradient in zip(sums, found, strict=True):
                    if gradient is not None:
                        total += gradient.double().pow(2).cpu()
    left = iter(sums)
    return {
        name: [torch.cat([next(left), next(left)], dim=1).numpy() for _ in range(stack.shape.num_cells)]
        for name, stack in stacks.items()
    }
