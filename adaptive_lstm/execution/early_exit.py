"""Exits in time around any executor: run a few timesteps, ask, go on with the rows that stay.

The loop knows nothing of how timesteps are run. Rows that leave are taken out of the batch, not masked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from ..policies import TimeExitPolicy
from ..types import Counts, ExitState, HoldState, StackShape, StreamState

Advance = Callable[[torch.Tensor, Sequence[int], StreamState, int], tuple[torch.Tensor, StreamState, Counts]]
"""Runs packed rows x [sum(sizes), I] from a state; the last argument is the number of the first timestep."""


def begin(time: TimeExitPolicy, shape: StackShape, batch: int, like: torch.Tensor) -> ExitState:
    """No timestep run, no row exit_state."""
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


def run_with_exits(
    time: TimeExitPolicy,
    shape: StackShape,
    advance: Advance,
    x: torch.Tensor,
    sizes: Sequence[int],
    state: StreamState,
    *,
    open_ended: bool,
) -> tuple[torch.Tensor, StreamState, Counts]:
    """Run packed rows and let them leave.

    Args:
        time: when to leave.
        shape: sizes of the stack.
        advance: runs some timesteps of some rows.
        x: [sum(sizes), I].
        sizes: rows alive at each timestep.
        state: where to start.
        open_ended: whether rows may go on after x (a stream). If not, a row is not asked after its last timestep, where
            nothing is exit_state to leave out.

    Returns:
        Output [sum(sizes), P], the final state, and what was counted.
    """
    exit_state = state.exit or begin(time, shape, sizes[0], x)
    xs = list(x.split(list(sizes)))
    ys = [exit_state.translation[:n] for n in sizes]
    counts = Counts.none(shape)
    t = 0
    while t < len(sizes):
        until = min(len(sizes), t + time.check_every - exit_state.time % time.check_every)
        rows = (~exit_state.exited[: sizes[t]]).nonzero()[:, 0]
        if len(rows):
            alive = [n for n in (int((rows < n).sum()) for n in sizes[t:until]) if n]
            chunk = torch.cat([xs[t + i][rows[:n]] for i, n in enumerate(alive)])
            y, part, some = advance(chunk, alive, _selected(state, rows), exit_state.time)
            state, counts = _returned(state, rows, part), counts + some
            for i, out in enumerate(y.split(alive)):
                ys[t + i] = ys[t + i].index_copy(0, rows[: len(out)], out)
        exit_state = replace(exit_state, time=exit_state.time + until - t)
        if exit_state.time % time.check_every == 0:
            goes_on = sizes[until - 1] if open_ended else sizes[until] if until < len(sizes) else 0
            rows = rows[rows < goes_on]
            exit_state, exiting = _check(time, exit_state, state.h, rows)
            counts = replace(counts, exit_checks=counts.exit_checks + len(rows), exits=counts.exits + len(exiting))
            state = replace(
                state,
                h=torch.cat([state.h[:-1], state.h[-1].index_copy(0, exiting, exit_state.translation[exiting])[None]]),
            )
            for i in range(until - 1, len(sizes)):
                here = exiting[exiting < sizes[i]]
                ys[i] = ys[i].index_copy(0, here, exit_state.translation[here])
        t = until
    return torch.cat(ys), replace(state, exit=exit_state), _of_all(shape, counts, len(x))


def _check(
    time: TimeExitPolicy, exit_state: ExitState, h: torch.Tensor, rows: torch.Tensor
) -> tuple[ExitState, torch.Tensor]:
    """Put the question to some rows; returns which of them leave."""
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
