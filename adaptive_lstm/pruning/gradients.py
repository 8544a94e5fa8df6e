"""Mean squared gradients of the output with respect to single weights, for the Taylor score.

With v standard normal, E_v[(sum_s d(v_s . y_s)/dw)^2] = sum_s |dy_s/dw|^2 over the sequences s of a batch: random
projections give the diagonal of the Gauss-Newton matrix in the weights themselves, sequence by sequence, without a
backward pass for each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from ..errors import InputError
from ..measure import Output
from ..pruned import moved
from ..runtime import AdaptiveLSTM
from ..tap import call, standing_in
from ..weights import PairTensors, shape_of
from .layers import Stack
from .moments import Doubles

PROBES = 4  # projections a batch


def squared_gradients(
    model: nn.Module,
    lstms: Mapping[str, AdaptiveLSTM],
    weights: Mapping[str, tuple[PairTensors, ...]],
    batches: Sequence[Any],
    output: Output,
    progress: bool,
) -> dict[str, list[Doubles]]:
    """Summed over batches, [4H, C] of [W_ih | W_hh] for every pair of every LSTM.

    Raises:
        InputError: the output depends on no LSTM.
    """
    stacks = {
        name: Stack([moved(w, next(lstm.parameters())) for w in weights[name]], shape_of(lstm))
        for name, lstm in lstms.items()
    }
    matrices = [m for stack in stacks.values() for layer in stack.layers for m in layer.matrices()]
    sums = [torch.zeros(m.shape, dtype=torch.float64) for m in matrices]
    generator = torch.Generator().manual_seed(0)
    with torch.enable_grad(), standing_in(lstms, stacks):
        for item in tqdm(batches, desc="gradients", unit="batch", disable=not progress):
            out = output(call(model, item))
            if not out.requires_grad:
                raise InputError(
                    "the output that counts does not depend on any LSTM; pass output=... to pick one that does"
                )
            for _ in range(PROBES):
                v = torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out)
                found = torch.autograd.grad((out * v).sum(), matrices, retain_graph=True, allow_unused=True)
                for total, gradient in zip(sums, found, strict=True):
                    if gradient is not None:
                        total += gradient.double().pow(2).cpu()
    left = iter(sums)
    return {
        name: [torch.cat([next(left), next(left)], dim=1).numpy() for _ in range(stack.shape.pairs)]
        for name, stack in stacks.items()
    }
