"""Exits in time around any runner: run a few timesteps, check, go on with the rows that stay.

The loop knows nothing of how timesteps are run. Rows that exit are taken out of the batch, not masked.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from ..policies import TimeExitPolicy
from ..types import Counts, ExitState, HoldState, StackShape, StreamState
from .runner import Advanced, Chunk, ChunkRunner


def begin(time: TimeExitPolicy, shape: StackShape, batch: int, like: torch.Tensor) -> ExitState:
    """No timestep run, no row exited."""
    return ExitState(
        0,
        torch.zeros(batch, dtype=torch.bool, device=like.device),
        like.new_zeros(batch, shape.output_size),
        torch.zeros(batch, dtype=torch.long, device=like.device),
        like.new_full((batch, time.window, shape.output_size), float("nan")),
    )


def _rows(value: torch.Tensor | None, rows: torch.Tensor, dim: int = 0) -> torch.Tensor | None:
    return None if value is None else value.index_select(dim, rows)


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


class ExitLoop:
    """Runs a few timesteps, checks, and goes on with the rows that stay.

    Args:
        time: when to exit.
        runner: runs the timesteps between two checks.
    """

    def __init__(self, time: TimeExitPolicy, runner: ChunkRunner):
        self.time, self.runner, self.shape = time, runner, runner.shape

    def advance(self, chunk: Chunk) -> Advanced:
        """As ``ChunkRunner.advance``."""
        progress = _Progress(self.time, self.shape, chunk)
        t, steps = 0, len(chunk.sizes)
        while t < steps:
            to_check = self.time.check_every - progress.exit.time % self.time.check_every
            until = min(steps, t + to_check)
            progress.run(self.runner, t, until)
            if until == t + to_check:
                progress.check(until)
            t = until
        return progress.finished()


class _Progress:
    """What a chunk has come to: its state, outputs so far, and counts."""

    def __init__(self, time: TimeExitPolicy, shape: StackShape, chunk: Chunk):
        self.time, self.shape, self.chunk = time, shape, chunk
        self.state = chunk.state
        self.exit = chunk.state.exit or begin(time, shape, chunk.sizes[0], chunk.x)
        self.xs = list(chunk.x.split(list(chunk.sizes)))
        self.ys = [self.exit.translation[:n] for n in chunk.sizes]
        self.counts = Counts.none(shape)
        self.running = (~self.exit.exited[: chunk.sizes[0]]).nonzero()[:, 0]

    def run(self, runner: ChunkRunner, start: int, until: int) -> None:
        """Advance the rows that have not exited."""
        sizes = self.chunk.sizes
        rows = self.running = (~self.exit.exited[: sizes[start]]).nonzero()[:, 0]
        if len(rows):
            alive = [n for n in (int((rows < n).sum()) for n in sizes[start:until]) if n]
            x = torch.cat([self.xs[start + i][rows[:n]] for i, n in enumerate(alive)])
            y, part, counts = runner.advance(Chunk(x, alive, _selected(self.state, rows), self.exit.time))
            self.state, self.counts = _returned(self.state, rows, part), self.counts + counts
            for i, out in enumerate(y.split(alive)):
                self.ys[start + i] = self.ys[start + i].index_copy(0, rows[: len(out)], out)
        self.exit = replace(self.exit, time=self.exit.time + until - start)

    def check(self, until: int) -> None:
        """Check the rows that go on after timestep ``until - 1``; those that exit keep their translation."""
        sizes, counts, h = self.chunk.sizes, self.counts, self.state.h
        goes_on = sizes[until - 1] if self.chunk.open_ended else sizes[until] if until < len(sizes) else 0
        rows = self.running[self.running < goes_on]
        self.exit, exiting = _check(self.time, self.exit, h, rows)
        self.counts = replace(counts, exit_checks=counts.exit_checks + len(rows), exits=counts.exits + len(exiting))
        translation = self.exit.translation
        top = h[-1].index_copy(0, exiting, translation[exiting])
        self.state = replace(self.state, h=torch.cat([h[:-1], top[None]]))
        for i in range(until - 1, len(sizes)):
            here = exiting[exiting < sizes[i]]
            self.ys[i] = self.ys[i].index_copy(0, here, translation[here])

    def finished(self) -> Advanced:
        """The outputs of all timesteps, run or not."""
        counts = _of_all(self.shape, self.counts, len(self.chunk.x))
        return Advanced(torch.cat(self.ys), replace(self.state, exit=self.exit), counts)


def _check(
    time: TimeExitPolicy, exit_state: ExitState, h: torch.Tensor, rows: torch.Tensor
) -> tuple[ExitState, torch.Tensor]:
    """Check some rows; returns which of them exit."""
    if not len(rows):
        return exit_state, rows
    now = exit_state.time - 1
    translation = time.translate(now, h[:, rows].transpose(0, 1))
    past = exit_state.past[rows]
    streak = torch.where(time.should_exit(now, translation, past), exit_state.streak[rows] + 1, 0)
    if time.window:
        past = torch.cat([past[:, 1:], translation[:, None]], dim=1)
    exits = streak >= time.patience
    exiting = rows[exits]
    exit_state = replace(
        exit_state,
        exited=exit_state.exited.index_fill(0, exiting, True),
        translation=exit_state.translation.index_copy(0, exiting, translation[exits]),
        streak=exit_state.streak.index_copy(0, rows, streak),
        past=exit_state.past.index_copy(0, rows, past),
    )
    return exit_state, exiting


def _of_all(shape: StackShape, counts: Counts, timesteps: int) -> Counts:
    """Counts whose possible columns are those of all timesteps, run or not."""
    dense = Counts.dense(shape, timesteps).columns
    columns = tuple(
        c._replace(x_possible=d.x_possible, h_possible=d.h_possible) for c, d in zip(counts.columns, dense, strict=True)
    )
    return replace(counts, columns=columns)
