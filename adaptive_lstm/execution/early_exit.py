"""Exits in time around any runner: run a few timesteps, check, go on with the rows that stay.

Nothing here knows how timesteps are run. Rows that exit leave the run; they are not masked.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

import torch

from ..errors import PolicyError
from ..policies import TimeExitPolicy
from ..types import Counts, ExitState, StreamState
from .runner import Counted, ExitableRun, ExitableRunner


class ExitLoop:
    """Runs a few timesteps, checks, and goes on with the rows that stay.

    Args:
        time: when to exit.
        runner: runs the timesteps between two checks.
    """

    def __init__(self, time: TimeExitPolicy, runner: ExitableRunner):
        self.time, self.runner, self.shape = time, runner, runner.shape

    def open(self, state: StreamState) -> ExitRun:
        """As ``ChunkRunner.open``."""
        like, batch = state.h, state.h.shape[1]
        start = state.exit or ExitState(
            torch.zeros(batch, dtype=torch.long, device=like.device),
            torch.zeros(batch, dtype=torch.bool, device=like.device),
            like.new_zeros(batch, self.shape.output_size),
            torch.zeros(batch, dtype=torch.long, device=like.device),
            like.new_full((batch, self.time.window, self.shape.output_size), float("nan")),
        )
        return ExitRun(self.time, self.runner.open(replace(state, exit=None)), start)


class ExitRun:
    """Sequences on their way through a stack that they may leave early.

    ``_members``: the batch rows that have not exited, ascending.
    """

    def __init__(self, policy: TimeExitPolicy, run: ExitableRun, start: ExitState):
        self._policy, self._run = policy, run
        self._time: list[int] = start.time.tolist()
        self._streak: list[int] = start.streak.tolist()
        self._translation, self._past = start.translation.clone(), start.past.clone()
        self._exited = start.exited.clone()
        self._members = (~self._exited).nonzero()[:, 0]
        self._checks = self._exits = 0
        gone = self._exited.nonzero()[:, 0]
        if len(gone):
            run.leave(gone, run.h()[-1].index_select(0, gone))
        self._listed: list[int] = self._members.tolist()

    def advance(self, x: torch.Tensor, sizes: Sequence[int], *, open_ended: bool = False) -> torch.Tensor:
        """As ``Run.advance``; with an open end rows are checked after the last timestep too."""
        y = x.new_empty(len(x), self._translation.shape[1])
        starts = list(accumulate(sizes, initial=0))
        every, t, steps = self._policy.check_every, 0, len(sizes)
        if len(self._listed) < len(self._streak):
            self._translate(y, starts, sizes, 0, self._exited[: sizes[0]].nonzero()[:, 0])
        while t < steps and bisect_left(self._listed, sizes[t]):
            until = min(steps, t + min(every - self._time[row] % every for row in self._listed))
            self._run_members(x, y, starts, sizes, t, until)
            self._time = [time + until - t for time in self._time]
            goes_on = sizes[until - 1] if open_ended else sizes[until] if until < steps else 0
            due: dict[int, list[int]] = {}
            for row in self._listed[: bisect_left(self._listed, goes_on)]:
                if self._time[row] % every == 0:
                    due.setdefault(self._time[row], []).append(row)
            for time, rows in due.items():
                exiting = self._check(rows, time - 1)
                if exiting.shape[0]:
                    self._translate(y, starts, sizes, until - 1, exiting)
            t = until
        self._time = [time + steps - t for time in self._time]
        return y

    def _run_members(
        self, x: torch.Tensor, y: torch.Tensor, starts: list[int], sizes: Sequence[int], first: int, until: int
    ) -> None:
        """Timesteps first, ..., until - 1 of the rows that have not exited, from packed rows x to packed rows y."""
        if len(self._listed) == len(self._streak):
            begin, rows = starts[first], starts[until] - starts[first]
            y.narrow(0, begin, rows).copy_(self._run.advance(x.narrow(0, begin, rows), sizes[first:until]))
            return
        alive = [n for n in (bisect_left(self._listed, size) for size in sizes[first:until]) if n]
        if alive[0] == alive[-1]:
            where = torch.tensor(starts[first : first + len(alive)], device=x.device)[:, None]
            at = (where + self._members[: alive[0]]).flatten()
        else:
            at = torch.cat([self._members[:n] + start for n, start in zip(alive, starts[first:], strict=False)])
        y.index_copy_(0, at, self._run.advance(x.index_select(0, at), alive))

    def _check(self, listed: list[int], now: int) -> torch.Tensor:
        """Check some rows that have not exited after their timestep ``now``; returns those that exit."""
        policy, n, h, past = self._policy, len(listed), self._run.h(), self._past
        rows = torch.tensor(listed, device=past.device)
        if n < h.shape[1]:
            h, past = h.index_select(1, rows), past.index_select(0, rows)
        translation = policy.translate(now, h.transpose(0, 1))
        passed = policy.should_exit(now, translation, past)
        if passed.shape != (n,) or translation.shape != (n, self._translation.shape[1]):
            raise PolicyError(
                f"{type(policy).__name__}: got {tuple(passed.shape)} decisions on translations of shape "
                f"{tuple(translation.shape)}, expected {(n,)} on {(n, self._translation.shape[1])}"
            )
        if past.shape[1]:
            self._past.index_copy_(0, rows, torch.cat([past[:, 1:], translation[:, None]], dim=1))
        exits = []
        for i, (row, passes) in enumerate(zip(listed, passed.tolist(), strict=True)):
            self._streak[row] = streak = self._streak[row] + 1 if passes else 0
            if streak >= policy.patience:
                exits.append(i)
        self._checks, self._exits = self._checks + n, self._exits + len(exits)
        if not exits:
            return rows[:0]
        exiting, final = rows[exits], translation[exits]
        self._translation.index_copy_(0, exiting, final)
        self._exited.index_fill_(0, exiting, True)
        self._members = (~self._exited).nonzero()[:, 0]
        self._listed = self._members.tolist()
        self._run.leave(exiting, final)
        return exiting

    def _translate(
        self, y: torch.Tensor, starts: list[int], sizes: Sequence[int], first: int, rows: torch.Tensor
    ) -> None:
        """Outputs of rows that have exited, from timestep ``first`` to their last."""
        if sizes[first] == sizes[-1]:
            y[starts[first] :].view(len(sizes) - first, sizes[first], -1)[:, rows] = self._translation[rows]
            return
        offsets, falling = torch.tensor(starts[first:-1], device=y.device), [-n for n in sizes]
        for row in rows.tolist():
            length = bisect_left(falling, -row)  # timesteps with more than ``row`` rows
            y[offsets[: length - first] + row] = self._translation[row]

    def state(self) -> StreamState:
        """As ``Run.state``."""
        time, streak = (
            torch.tensor(numbers, dtype=torch.long, device=self._exited.device)
            for numbers in (self._time, self._streak)
        )
        now = self._exited.clone(), self._translation.clone(), streak, self._past.clone()
        return replace(self._run.state(), exit=ExitState(time, *now))

    def counted(self, timesteps: int) -> Counted:
        """As ``Run.counted``."""
        counted, checks, exits = self._run.counted(timesteps), self._checks, self._exits

        def counts() -> Counts:
            inside = counted()
            return replace(inside, exit_checks=checks, exits=inside.exits + exits)

        return counts

    def close(self) -> None:
        """As ``Run.close``."""
        self._run.close()
