"""A stack on torch with weights of one's choice, which records what its LSTM is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ...execution import reference
from ...execution.torch_layer import Layer, State, of_layer
from ...policies import Dense, parts
from ...types import StackShape
from ...weights.layout import CellTensors


@dataclass(frozen=True)
class Call:
    """One call of an LSTM: packed ``rows`` [n, I], ``alive`` at each timestep, h_0 and c_0 of all cells or None."""

    rows: torch.Tensor
    alive: list[int]
    initial: State | None


class Stack:
    """Runs a stack in place of an executor (``tap.Runner``), and keeps the calls."""

    finite_only = False
    policy = parts(Dense())

    def __init__(self, weights: Sequence[CellTensors], shape: StackShape, *, record: bool = False):
        self.shape, self.record = shape, record
        self.calls: list[Call] = []
        D = shape.directions
        self.layers = [Layer(weights[k : k + D], shape) for k in range(0, shape.num_cells, D)]

    def run(
        self, x: torch.Tensor, sizes: torch.Tensor | None, batch_first: bool, initial: State | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None]:
        """As ``Executor.run``."""
        rows, alive = reference.packed_rows(x, sizes, batch_first)
        if self.record:
            start = None if initial is None else (initial[0].cpu().float(), initial[1].cpu().float())
            self.calls.append(Call(rows.detach().cpu().float(), alive, start))
        ends = []
        for index, layer in enumerate(self.layers):
            rows, end = layer.run(rows, alive, of_layer(initial, index, layer.directions))
            ends.append(end)
        h, c = torch.cat([end[0] for end in ends]), torch.cat([end[1] for end in ends])
        return reference.unpacked_rows(rows, x, batch_first), h, c, None

    def why_not_native(self) -> str:
        """Shown in ``last_run``."""
        return "torch: weights are being pruned"


def before(h: torch.Tensor, alive: Sequence[int], reverse: bool, start: torch.Tensor | None) -> torch.Tensor:
    """The h that every timestep starts from.

    Args:
        h: [n, P] the states of one direction after every timestep, packed.
        alive: rows alive at each timestep.
        reverse: whether the direction runs from the last timestep to the first.
        start: h_0 [B, P], or None: zeros.
    """
    first = h.new_zeros(alive[0], h.shape[1]) if start is None else start
    begins = torch.tensor([0, *alive]).cumsum(0)
    out = torch.empty_like(h)
    for t, count in enumerate(alive):
        other = t + 1 if reverse else t - 1
        known = min(count, alive[other]) if 0 <= other < len(alive) else 0
        here = int(begins[t])
        if known:
            out[here : here + known] = h[int(begins[other]) : int(begins[other]) + known]
        out[here + known : here + count] = first[known:count]
    return out
