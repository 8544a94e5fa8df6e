"""A stack layer by layer on torch: recording what its LSTM is given, and running layers with other weights on that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from .. import reference
from ..policies import Dense, parts
from ..types import StackShape
from ..weights import PairTensors

State = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Call:
    """One call of an LSTM: packed ``rows`` [n, I], ``alive`` at each timestep, h_0 and c_0 of all pairs or None."""

    rows: torch.Tensor
    alive: list[int]
    initial: State | None


class Layer:
    """One layer of a stack, all its directions, on torch's kernels."""

    def __init__(self, weights: Sequence[PairTensors], shape: StackShape):
        first = weights[0].w_ih
        self.directions = len(weights)
        with torch.random.fork_rng(devices=[]):  # its initial weights are overwritten
            self.lstm = nn.LSTM(
                first.shape[1], shape.hidden_size, bidirectional=self.directions == 2, proj_size=shape.proj_size
            ).to(first)
        for w, end in zip(weights, ("", "_reverse"), strict=False):
            values = {"weight_ih": w.w_ih, "weight_hh": w.w_hh, "bias_ih": w.bias, "weight_hr": w.w_hr}
            for name, value in (values | {"bias_hh": torch.zeros_like(w.bias)}).items():
                if value is not None:
                    getattr(self.lstm, f"{name}_l0{end}").data.copy_(value)
        self.lstm.eval()
        self.standing = torch.cat([_standing(w) for w in weights])

    def matrices(self) -> list[torch.Tensor]:
        """W_ih and W_hh of every direction, as leaves of a graph."""
        ends = ("", "_reverse")[: self.directions]
        return [getattr(self.lstm, f"{name}_l0{end}") for end in ends for name in ("weight_ih", "weight_hh")]

    def run(self, rows: torch.Tensor, alive: list[int], initial: State | None) -> tuple[torch.Tensor, State]:
        """Packed rows [n, width] through the layer: its output [n, D * P] and its end states [D, B, P], [D, B, H]."""
        if alive[0] == alive[-1]:  # torch steps through packed sequences one by one
            out, (h, c) = self.lstm(rows.view(len(alive), alive[0], -1), initial)
            out = out.flatten(0, 1)
        else:
            packed, (h, c) = self.lstm(PackedSequence(rows, torch.tensor(alive)), initial)
            out = packed.data
        return out + self.standing, (h + self.standing.view(self.directions, 1, -1), c)


def _standing(w: PairTensors) -> torch.Tensor:
    """What pruned units stand at, to be added to states [P] in which torch leaves them at zero."""
    zeros = w.w_hh.new_zeros(w.w_hh.shape[1])
    return zeros if w.fixed is None or w.w_hr is not None else zeros + w.fixed.nan_to_num(0.0)


class Stack:
    """Runs a stack in place of an executor (``tap.Runner``), and keeps the calls."""

    finite_only = False
    policy = parts(Dense())

    def __init__(self, weights: Sequence[PairTensors], shape: StackShape, *, record: bool = False):
        self.shape, self.record = shape, record
        self.calls: list[Call] = []
        D = shape.directions
        self.layers = [Layer(weights[k : k + D], shape) for k in range(0, shape.pairs, D)]

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


def of_layer(initial: State | None, layer: int, directions: int) -> State | None:
    """The part of h_0 and c_0 that belongs to a layer."""
    part = slice(layer * directions, (layer + 1) * directions)
    return None if initial is None else (initial[0][part], initial[1][part])


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
