"""Squared gradients of single weights, for the Taylor score of pruning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ...analysis.measure_sensitivity import Output, projected_gradients
from ...analysis.recorder import run_all_on
from ...execution.batch import Batch
from ...execution.runner import Result, Runner
from ...model_io import Opaque, call, picked, require_gradients
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
    """Squared gradients of the output with respect to single weights; of an ``Opaque`` model, of its LSTMs' outputs.

    With v standard normal, E_v[(sum_s d(v_s . y_s)/dw)^2] = sum_s |dy_s/dw|^2 over the sequences s of a batch: random
    projections give the diagonal of the Gauss-Newton matrix in the weights, without a backward pass per sequence.

    Returns:
        Sums over batches, [4H, C] of [W_ih | W_hh] for every cell of every LSTM.

    Raises:
        InputError: the output depends on no LSTM, or the weights were made in inference mode.
    """
    require_gradients(model)
    stacks = torch_runners(lstms, weights)
    matrices = [m for stack in stacks.values() for layer in stack.layers for m in layer.matrices()]
    sums = [torch.zeros(m.shape, dtype=torch.float64, device="cpu") for m in matrices]
    generator = torch.Generator().manual_seed(0)
    seen: list[torch.Tensor] = []
    watched = {name: _Watched(stack, seen) for name, stack in stacks.items()}
    with torch.enable_grad(), run_all_on(lstms, watched):
        for item in tracked(batches, "gradients", "batch", show=progress):
            seen.clear()
            out = picked(output, call(model, item))
            measured = torch.cat(seen) if isinstance(model, Opaque) and seen else out
            for found in projected_gradients(measured, matrices, TAYLOR_PROBES, generator):
                for total, gradient in zip(sums, found, strict=True):
                    if gradient is not None:
                        total += gradient.double().pow(2).cpu()
    left = iter(sums)
    return {
        name: [torch.cat([next(left), next(left)], dim=1).numpy() for _ in range(stack.shape.num_cells)]
        for name, stack in stacks.items()
    }


class _Watched:
    """Runs a stack on another runner and keeps its outputs, end to end."""

    def __init__(self, runner: Runner, seen: list[torch.Tensor]):
        self._runner, self._seen = runner, seen

    def run(self, batch: Batch) -> Result:
        """As ``Runner.run``."""
        result = self._runner.run(batch)
        self._seen.append(result.y.flatten())
        return result
