"""Squared gradients of single weights, for the Taylor score of pruning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ...analysis.measure_sensitivity import Output, projected_gradients
from ...analysis.recorder import run_all_on
from ...model_io import call
from ...progress import tracked
from ...runtime.lstm import AdaptiveLSTM
from ...types import DoubleArray
from ...weights.layout import CellTensors
from .model_runs import torch_runners

TAYLOR_PROBES = 4  # random projections of the output per batch


def squared_gradients(
    model: nn.Module,
    lstms: Mapping[str, AdaptiveLSTM],
    weights: Mapping[str, tuple[CellTensors, ...]],
    batches: Sequence[Any],
    output: Output,
    progress: bool,
) -> dict[str, list[DoubleArray]]:
    """Squared gradients of the output with respect to single weights.

    With v standard normal, E_v[(sum_s d(v_s . y_s)/dw)^2] = sum_s |dy_s/dw|^2 over the sequences s of a batch: random
    projections give the diagonal of the Gauss-Newton matrix in the weights, without a backward pass per sequence.

    Returns:
        Sums over batches, [4H, C] of [W_ih | W_hh] for every cell of every LSTM.

    Raises:
        InputError: the output depends on no LSTM.
    """
    stacks = torch_runners(lstms, weights)
    matrices = [m for stack in stacks.values() for layer in stack.layers for m in layer.matrices()]
    sums = [torch.zeros(m.shape, dtype=torch.float64, device="cpu") for m in matrices]
    generator = torch.Generator().manual_seed(0)
    with torch.enable_grad(), run_all_on(lstms, stacks):
        for item in tracked(batches, "gradients", "batch", show=progress):
            out = output(call(model, item))
            for found in projected_gradients(out, matrices, TAYLOR_PROBES, generator):
                for total, gradient in zip(sums, found, strict=True):
                    if gradient is not None:
                        total += gradient.double().pow(2).cpu()
    left = iter(sums)
    return {
        name: [torch.cat([next(left), next(left)], dim=1).numpy() for _ in range(stack.shape.num_cells)]
        for name, stack in stacks.items()
    }
