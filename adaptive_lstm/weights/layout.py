"""From ``nn.LSTM`` to the weights that a backend executes: the only place that knows torch's names and bias pairs."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import nn

from ..types import StackShape


@dataclass(frozen=True)
class CellTensors:
    """Weights of one layer and direction as tensors, gates in torch order.

    ``w_ih`` [4H, width], ``w_hh`` [4H, P], ``bias`` [4H] (both biases added), ``w_hr`` [P, H] or None. ``x_levels``,
    ``h_levels``: the operand is rounded to multiples of 1/levels before it is multiplied; 0: it is used as it is.
    ``x_scale`` [width], float32, or None: x_j is rounded to multiples of x_scale_j / levels and ends at x_scale_j.
    ``x_dynamic``: every row of x is rounded to multiples of its own largest magnitude / levels instead.
    ``fixed`` [H] or None: units that were pruned have c = 0 and, ahead of a projection, stand at this value for ever;
    NaN: the unit lives.
    """

    w_ih: torch.Tensor
    w_hh: torch.Tensor
    bias: torch.Tensor
    w_hr: torch.Tensor | None
    x_levels: int = 0
    h_levels: int = 0
    x_scale: torch.Tensor | None = None
    x_dynamic: bool = False
    fixed: torch.Tensor | None = None

    @functools.cached_property
    def useful(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Which columns of w_ih [width] and w_hh [P] are not all zero, bool; the others need never be sent."""
        return self.w_ih.detach().ne(0).any(dim=0), self.w_hh.detach().ne(0).any(dim=0)


def shape_of(lstm: nn.LSTM) -> StackShape:
    """Sizes of an ``nn.LSTM``."""
    return StackShape(lstm.input_size, lstm.hidden_size, lstm.num_layers, lstm.proj_size, lstm.bidirectional)


def named_weights(lstm: nn.LSTM) -> dict[str, torch.Tensor]:
    """The current weights of an ``nn.LSTM`` by torch's names."""
    # _flat_weights is what nn.LSTM.forward itself reads: it follows pruning hooks and replaced parameters.
    named = zip(lstm._flat_weights_names, lstm._flat_weights, strict=True)
    return {name: weight for name, weight in named if weight is not None}


def tensors_of(lstm: nn.LSTM) -> tuple[CellTensors, ...]:
    """The current weights of an ``nn.LSTM``, one entry per layer and direction; gradients flow back to them."""
    named, shape = named_weights(lstm), shape_of(lstm)

    def get(kind: str, cell: int) -> torch.Tensor | None:
        return named.get(f"{kind}_{shape.name(cell)}")

    def need(kind: str, cell: int) -> torch.Tensor:
        found = get(kind, cell)
        assert found is not None, f"nn.LSTM without {kind}_{shape.name(cell)}"
        return found

    out = []
    for cell in range(shape.num_cells):
        w_ih = need("weight_ih", cell)
        bias = need("bias_ih", cell) + need("bias_hh", cell) if lstm.bias else w_ih.new_zeros(4 * shape.hidden_size)
        out.append(CellTensors(w_ih, need("weight_hh", cell), bias, get("weight_hr", cell)))
    return tuple(out)
