"""The reference as a runner: a state that moves on, and rows that leave it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from ..policies import Parts
from ..types import Counts, HoldState, StackShape, StreamState
from ..weights.layout import CellTensors
from . import reference
from .reference_cell import Observer
from .runner import Chunk, Counted


class ReferenceRunner:
    """The readable executor (``reference``): any device, float32 or float64, every policy but exits in time.

    Args:
        weights: one entry per cell.
        shape: sizes of the stack.
        policy: what may be left out; ``ExitLoop`` adds exits in time.
        observer: called with every step that runs.
    """

    def __init__(
        self,
        weights: Sequence[CellTensors],
        shape: StackShape,
        policy: Parts,
        observer: Observer | None = None,
    ):
        self.weights, self.shape, self.policy, self.observer = tuple(weights), shape, policy, observer

    def open(self, state: StreamState) -> ReferenceRun:
        """As ``ChunkRunner.open``."""
        return ReferenceRun(self, state)


class ReferenceRun:
    """Sequences on their way through the reference. Its tensors are replaced, never written to."""

    def __init__(self, runner: ReferenceRunner, state: StreamState):
        self._runner, self._state = runner, state
        self._batch = state.h.shape[1]
        self._rows = torch.arange(self._batch, device=state.h.device)  # those that have not left
        self._counts, self._first = Counts.none(runner.shape), 0

    def advance(self, x: torch.Tensor, sizes: Sequence[int], *, open_ended: bool = False) -> torch.Tensor:
        """As ``Run.advance``."""
        runner, rows = self._runner, self._rows[: sizes[0]]
        all_rows = len(rows) == self._batch
        state = self._state if all_rows else _selected(self._state, rows)
        chunk = Chunk(x, sizes, state, self._first)
        y, end, counts = reference.run(runner.weights, runner.shape, runner.policy, chunk, runner.observer)
        self._state = end if all_rows else _returned(self._state, rows, end)
        self._counts, self._first = self._counts + counts, self._first + len(sizes)
        return y

    def h(self) -> torch.Tensor:
        """As ``ExitableRun.h``."""
        return self._state.h

    def leave(self, rows: torch.Tensor, h: torch.Tensor) -> None:
        """As ``ExitableRun.leave``."""
        self._rows = self._rows[~torch.isin(self._rows, rows)]
        below, top = self._state.h[:-1], self._state.h[-1].index_copy(0, rows, h)
        self._state = replace(self._state, h=torch.cat([below, top[None]]))

    def state(self) -> StreamState:
        """As ``Run.state``."""
        return self._state

    def counted(self, timesteps: int) -> Counted:
        """As ``Run.counted``."""
        shape, done = self._runner.shape, self._counts

        def counts() -> Counts:
            dense = Counts.dense(shape, timesteps).columns
            columns = tuple(
                c._replace(x_possible=d.x_possible, h_possible=d.h_possible)
                for c, d in zip(done.columns, dense, strict=True)
            )
            return replace(done, columns=columns)

        return counts

    def close(self) -> None:
        """As ``Run.close``."""


def _rows(value: torch.Tensor | None, rows: torch.Tensor) -> torch.Tensor | None:
    return None if value is None else value.index_select(0, rows)


def _selected(state: StreamState, rows: torch.Tensor) -> StreamState:
    """The state of some batch rows."""
    hold = tuple(HoldState(*(_rows(v, rows) for v in vars(h).values())) for h in state.hold)
    return StreamState(
        state.h.index_select(1, rows),
        state.c.index_select(1, rows),
        tuple(_rows(s, rows) for s in state.sent_x),
        tuple(_rows(s, rows) for s in state.sent_h),
        hold,
    )


def _put(old: torch.Tensor | None, rows: torch.Tensor, new: torch.Tensor | None, batch: int) -> torch.Tensor | None:
    if new is None:
        return old
    return (new.new_zeros(batch, *new.shape[1:]) if old is None else old).index_copy(0, rows, new)


def _returned(state: StreamState, rows: torch.Tensor, part: StreamState) -> StreamState:
    """The state with some batch rows replaced."""
    batch = state.h.shape[1]
    hold = state.hold or (HoldState(),) * len(part.hold)
    return replace(
        state,
        h=state.h.index_copy(1, rows, part.h),
        c=state.c.index_copy(1, rows, part.c),
        sent_x=tuple(_put(a, rows, b, batch) for a, b in zip(state.sent_x, part.sent_x, strict=True)),
        sent_h=tuple(_put(a, rows, b, batch) for a, b in zip(state.sent_h, part.sent_h, strict=True)),
        hold=tuple(
            HoldState(*(_put(getattr(a, name), rows, value, batch) for name, value in vars(b).items()))
            for a, b in zip(hold, part.hold, strict=True)
        ),
    )
