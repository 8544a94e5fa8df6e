"""A stack on torch's kernels with any weights: for passes over data in which nothing is skipped."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from ..types import StackShape
from ..weights.layout import CellTensors
from .batch import Batch, Initial
from .runner import Result


class Layer:
    """One layer of a stack, all its directions, on torch's kernels."""

    def __init__(self, weights: Sequence[CellTensors], shape: StackShape):
        first = weights[0].w_ih
        self.directions = len(weights)
        with torch.random.fork_rng(devices=[]):  # its initial weights are overwritten
            self.lstm = nn.LSTM(
                first.shape[1],
                shape.hidden_size,
                bidirectional=self.directions == 2,
                proj_size=shape.proj_size,
                device=first.device,
                dtype=first.dtype,
            )
        for w, end in zip(weights, ("", "_reverse"), strict=False):
            values = {"weight_ih": w.w_ih, "weight_hh": w.w_hh, "bias_ih": w.bias, "weight_hr": w.w_hr}
            for name, value in (values | {"bias_hh": torch.zeros_like(w.bias)}).items():
                if value is not None:
                    getattr(self.lstm, f"{name}_l0{end}").data.copy_(value)
        self.lstm.eval()
        self.constant = torch.cat([_pruned_constant(w) for w in weights])

    def matrices(self) -> list[torch.Tensor]:
        """W_ih and W_hh of every direction, as leaf tensors of autograd."""
        ends = ("", "_reverse")[: self.directions]
        return [getattr(self.lstm, f"{name}_l0{end}") for end in ends for name in ("weight_ih", "weight_hh")]

    def run(self, rows: torch.Tensor, alive: list[int], initial: Initial | None) -> tuple[torch.Tensor, Initial]:
        """Packed rows [n, width] through the layer: its output [n, D * P] and its end states [D, B, P], [D, B, H]."""
        if alive[0] == alive[-1]:  # torch steps through packed sequences one by one
            out, (h, c) = self.lstm(rows.view(len(alive), alive[0], -1), initial)
            out = out.flatten(0, 1)
        else:
            packed, (h, c) = self.lstm(PackedSequence(rows, torch.tensor(alive, device="cpu")), initial)
            out = packed.data
        return out + self.constant, (h + self.constant.view(self.directions, 1, -1), c)


def _pruned_constant(w: CellTensors) -> torch.Tensor:
    """The constant output of pruned units, to be added to states [P] in which they are zero in torch."""
    zeros = w.w_hh.new_zeros(w.w_hh.shape[1])
    if w.live is None or w.constant is None or w.w_hr is not None:
        return zeros
    return torch.where(w.live, zeros, w.constant)


class TorchRunner:
    """A stack, layer by layer, on torch's kernels; nothing is skipped.

    Args:
        weights: one entry per cell.
        shape: sizes of the stack.
    """

    def __init__(self, weights: Sequence[CellTensors], shape: StackShape):
        D = shape.directions
        self.shape = shape
        self.layers = [Layer(weights[k : k + D], shape) for k in range(0, shape.num_cells, D)]

    def run(self, batch: Batch) -> Result:
        """As ``Runner.run``."""
        rows, sizes = batch.packed()
        levels, h, c = self.levels(rows, sizes, batch.initial)
        return Result(batch.unpacked(levels[-1]), h, c, None)

    def levels(
        self, rows: torch.Tensor, sizes: list[int], initial: Initial | None
    ) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
        """Packed rows [n, I] through the stack: outputs [n, D * P] of every layer, h_n and c_n."""
        levels, ends = [], []
        for layer in range(self.shape.num_layers):
            rows, end = self.layers[layer].run(rows, sizes, of_layer(initial, layer, self.shape.directions))
            levels.append(rows)
            ends.append(end)
        return levels, torch.cat([h for h, _ in ends]), torch.cat([c for _, c in ends])


def of_layer(initial: Initial | None, layer: int, directions: int) -> Initial | None:
    """The part of h_0 and c_0 that belongs to a layer."""
    part = slice(layer * directions, (layer + 1) * directions)
    return None if initial is None else (initial[0][part], initial[1][part])
