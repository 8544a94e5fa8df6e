"""What ``SplitTime`` must compute, chunk by chunk and one row at a time: an oracle in plain Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

import adaptive_lstm as al
from adaptive_lstm.execution.batch import Batch
from adaptive_lstm.execution.native_runner import NativeRunner
from adaptive_lstm.execution.native_stack import cell_of
from adaptive_lstm.types import StackShape
from adaptive_lstm.weights.layout import shape_of

State = tuple[torch.Tensor, torch.Tensor]  # h [P], c [H]
Cell = Callable[[torch.Tensor, State], tuple[torch.Tensor, State]]  # x [T, width] and a state to y [T, P] and a state


class Split(NamedTuple):
    """One sequence: ``y`` [T, D * P], ``h`` [L * D, P], ``c`` [L * D, H], and what happened at the seams."""

    y: torch.Tensor
    h: torch.Tensor
    c: torch.Tensor
    residuals: list[float]
    repeated: int
    timesteps: list[int]  # that ran, per cell


def torch_cells(lstm: nn.LSTM) -> list[Cell]:
    """Every cell as an ``nn.LSTM`` of its own."""

    def of(index: int, shape: StackShape) -> Cell:
        suffix, one = shape.name(index), shape.cell(index)
        single = nn.LSTM(one.input_size, one.hidden_size, proj_size=one.proj_size, bias=lstm.bias).to(
            next(lstm.parameters())
        )
        with torch.no_grad():
            for name, parameter in single.named_parameters():
                parameter.copy_(getattr(lstm, name.replace("l0", suffix)))

        def run(x: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
            with torch.no_grad():
                y, (h, c) = single(x, (state[0][None], state[1][None]))
            return y, (h[0], c[0])

        return run

    return [of(k, shape_of(lstm)) for k in range(shape_of(lstm).num_cells)]


def native_cells(lstm: al.AdaptiveLSTM) -> list[Cell]:
    """Every cell on the native core, in the precision of the LSTM."""
    stack = lstm.executor().native
    assert stack is not None

    def of(index: int) -> Cell:
        one = cell_of(stack, index)
        runner = NativeRunner(one)

        def run(x: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
            given = state[0][None, None], state[1][None, None]
            y, h, c, *_ = runner.run(Batch.of(x[:, None], given, one.shape, False))
            return y[:, 0], (h[0, 0], c[0, 0])

        return run

    return [of(k) for k in range(stack.shape.num_cells)]


def split_by_hand(
    cells: list[Cell], shape: StackShape, policy: al.SplitTime, x: torch.Tensor, given: State | None = None
) -> Split:
    """Run one sequence x [T, I]; ``given`` h [L * D, P] and c [L * D, H], or zeros."""
    zeros = x.new_zeros(shape.num_cells, shape.output_size), x.new_zeros(shape.num_cells, shape.hidden_size)
    h_0, c_0 = zeros if given is None else given
    ends, residuals, repeated, ran = list[State](), list[float](), 0, list[int]()
    for layer in range(shape.num_layers):
        outputs = []
        for d in range(shape.directions):
            k = layer * shape.directions + d
            run = _OneCell(cells[k], policy, k)
            y = run.over(x.flip(0) if d else x, (h_0[k], c_0[k]))
            outputs.append(y.flip(0) if d else y)
            ends.append(run.end)
            residuals += run.residuals
            repeated += run.repeated
            ran.append(run.ran)
        x = torch.cat(outputs, dim=1)
    h, c = (torch.stack(each) for each in zip(*ends, strict=True))
    return Split(x, h, c, residuals, repeated, ran)


class _OneCell:
    def __init__(self, cell: Cell, policy: al.SplitTime, index: int):
        self.cell, self.policy, self.index = cell, policy, index
        self.residuals: list[float] = []
        self.repeated = self.ran = 0
        self.end: State = (torch.empty(0), torch.empty(0))

    def run(self, x: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        self.ran += len(x)
        return self.cell(x, state)

    def over(self, x: torch.Tensor, given: State) -> torch.Tensor:
        """All of one sequence, chunk after chunk."""
        T, W = len(x), self.policy.warm_up
        count = max(-(-(T - W) // self.policy.chunk), 1)
        if count == 1:
            y, self.end = self.run(x, given)
            return y
        starts = [i * (T - W) // count for i in range(count)] + [T - W]
        y, self.end = self.run(x[: starts[1] + W], given)
        pieces = [y]
        for i in range(1, count):
            begin = self.policy.begin(self.index)
            fresh = (torch.zeros_like(given[0]), torch.zeros_like(given[1]))
            start = fresh if begin is None else (torch.tensor(begin[0]).to(x), torch.tensor(begin[1]).to(x))
            _, warmed = self.run(x[starts[i] : starts[i] + W], start)
            own = x[starts[i] + W : starts[i + 1] + W]
            y, end = self.run(own, warmed)
            (h, c), (true_h, true_c) = [(one[0].double(), one[1].double().tanh()) for one in (warmed, self.end)]
            off = [(a - b).pow(2).mean().sqrt() for a, b in ((h, true_h), (c, true_c))]
            self.residuals.append(float(max(off)))
            limit = self.policy.tolerance
            limit = limit[self.index] if isinstance(limit, tuple) else limit
            if self.residuals[-1] > limit or limit == 0:
                self.repeated += 1
                y, end = self.run(own, self.end)
            pieces.append(y)
            self.end = end
        return torch.cat(pieces)
