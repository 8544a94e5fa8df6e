"""One layer in one direction on the reference executor: its state, and what it can do in a timestep."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from ..policies import Change, ColumnPolicy, HoldPolicy, Parts
from ..types import ColumnCounts, HoldState, Site, StackShape
from ..weights.layout import CellTensors, split_gates

RUN, HOLD_GATES, HOLD_STATE, QUEUE_INPUT, EXITED = range(5)
"""Action of one batch row at one timestep: RUN (compute), HOLD_GATES (reuse the gates, advance c and h), HOLD_STATE,
QUEUE_INPUT (hold, and replay the input later), EXITED (use the depth exit's translation; layers between hold)."""

ACTION = {"hold_gates": HOLD_GATES, "hold_state": HOLD_STATE, "queue_input": QUEUE_INPUT}

# Rows whose largest magnitude is below count as zeros under a dynamic range: levels / magnitude has to stay finite.
# kernels.h has the same number.
MIN_DYNAMIC_RANGE = 2.0**-100


@dataclass(frozen=True)
class Step:
    """What an observer sees of one timestep of one layer and direction; n rows that run.

    ``x`` [n, width], ``h`` [n, P]: operands before any estimate; ``x_sent``, ``h_sent``: columns computed, bool;
    ``gates`` [n, 4H]: pre-activations in torch order; ``rows`` [n]: which batch rows.
    """

    cell: int
    time: int
    x: torch.Tensor
    h: torch.Tensor
    x_sent: torch.Tensor
    h_sent: torch.Tensor
    gates: torch.Tensor
    rows: torch.Tensor


Observer = Callable[[Step], None]


@dataclass(frozen=True)
class CellState:
    """What a cell starts from.

    ``h`` [B, P], ``c`` [B, H]: its state, from ``state_with_pruned_constant``.
    ``sent_x`` [B, width], ``sent_h`` [B, P]: the values last sent, NaN in rows that have sent none; None: no row has.
    ``hold``: what it remembers for a policy that holds it; empty: nothing yet.
    """

    h: torch.Tensor
    c: torch.Tensor
    sent_x: torch.Tensor | None = None
    sent_h: torch.Tensor | None = None
    hold: HoldState = field(default_factory=HoldState)


@dataclass(frozen=True)
class _Sending:
    """How an operand is sent.

    ``nonzero`` [C] bool: columns with any weight that is not zero.
    ``levels``, ``scale`` [C]: as in ``CellTensors``.
    """

    nonzero: torch.Tensor
    levels: int
    scale: torch.Tensor | None = None


class _Operand:
    """The estimate that one operand of one cell keeps of its values, for all rows of ``like`` [B, ...]."""

    def __init__(self, site: Site, policy: ColumnPolicy, how: _Sending, like: torch.Tensor, sent: torch.Tensor | None):
        self.site, self.policy, self.levels = site, policy, how.levels
        nonzero, levels, scale, batch = how.nonzero, how.levels, how.scale, len(like)
        # Float32 quotients as the native kernels have them; of two tensors, because torch multiplies by the reciprocal
        # of a plain number instead.
        full = like.new_ones(1, dtype=torch.float32) if scale is None else scale
        count = torch.full_like(full, max(levels, 1))
        self.factor, self.step = count / full, full / count
        self.thresholded = policy.thresholded(site)
        # A column whose weights are all zero is never sent, and counts as none.
        self.nonzero, self.columns = nonzero, int(nonzero.sum())
        if sent is None:
            sent = like.new_full((batch, site.width), math.nan)
        self.fresh = sent[:, :1].isnan()
        self.sent = self._rounded(_flushed(torch.where(nonzero & ~self.fresh, sent, 0.0)))
        self.count = 0

    def _rounded(self, value: torch.Tensor) -> torch.Tensor:
        if not self.levels:
            return value
        return ((value * self.factor).round().clamp(-self.levels, self.levels) * self.step).to(value.dtype)

    def _beyond(self, value: torch.Tensor) -> torch.Tensor | None:
        """Rows whose h exceeds the 1 that integers reach, because it was given or is a translation: [n, 1] or None."""
        if self.site.operand == "x" or not self.levels:
            return None
        beyond = torch.where(self.nonzero, value, 0.0).abs().amax(dim=1, keepdim=True) > 1
        return beyond if bool(beyond.any()) else None

    def estimate(self, value: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Values to multiply with [n, C] and which columns they were sent for (bool), for the given rows [n].

        A row of h that exceeds what integers reach is sent whole, in a range of its own; what counts as sent is the row
        as integers reach it.
        """
        value = _flushed(value)
        estimate, beyond = self._rounded(value), self._beyond(value)
        fires = self.nonzero.expand_as(value)
        if self.thresholded:
            rounded, old = estimate, self.sent[rows]
            sends = self.fresh[rows] | self.policy.send(self.site, value, old)
            moved = self.nonzero & (rounded != old) & (sends if beyond is None else sends | beyond)
            estimate = torch.where(moved, rounded, old)
            self.sent = self.sent.index_copy(0, rows, estimate)
            fires = moved if beyond is None else torch.where(beyond, fires, moved)
        self.count += int(fires.sum()) if self.thresholded else len(rows) * self.columns
        if beyond is not None:
            whole, step = quantize_rows(value, self.nonzero, self.levels)
            estimate = torch.where(beyond, whole * step, estimate)
        return estimate, fires


def _flushed(value: torch.Tensor) -> torch.Tensor:
    """Denormal float32 numbers as zeros, which they are to the native core."""
    if value.dtype != torch.float32:
        return value
    return torch.where(value.abs() < torch.finfo(torch.float32).tiny, 0.0, value)


def quantize_rows(value: torch.Tensor, nonzero: torch.Tensor, levels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows [n, C] as integers in -levels..levels, and the size of one step of each row [n, 1].

    The largest magnitude of a row becomes ``levels``; only ``nonzero`` columns [C] count and are sent.
    """
    sent = torch.where(nonzero, value, 0.0)
    largest = sent.abs().amax(dim=1, keepdim=True) if value.shape[1] else value.new_zeros(len(value), 1)
    count = torch.full_like(largest, levels)
    factor = torch.where(largest < MIN_DYNAMIC_RANGE, 0.0, count / largest.clamp(min=MIN_DYNAMIC_RANGE))
    return (sent * factor).round().clamp(-levels, levels), largest / count


def cell_update(gates: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One LSTM cell: pre-activations [n, 4H] and c [n, H] to o * tanh(c') and c'."""
    i, f, g, o = split_gates(gates)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def units_with_pruned_constant(
    weights: CellTensors, units: torch.Tensor, c: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs of the units ahead of a projection and c, both [n, H]; pruned units get their constant and c = 0."""
    if weights.live is None or weights.constant is None:
        return units, c
    return torch.where(weights.live, units, weights.constant), torch.where(weights.live, c, 0.0)


def state_with_pruned_constant(
    weights: CellTensors, h: torch.Tensor, c: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """A given state [B, P], [B, H] with pruned units at their constant and c = 0."""
    units, c = units_with_pruned_constant(weights, h if weights.w_hr is None else c, c)
    return (units if weights.w_hr is None else h), c


class ReferenceCell:
    """State of one layer and direction for all batch rows, and the work it has done.

    Args:
        shape, cell: which one.
        weights: its matrices.
        policy: what may be left out.
        start: what it starts from.
        observer: called with every step that runs.
    """

    def __init__(
        self,
        shape: StackShape,
        cell: int,
        weights: CellTensors,
        policy: Parts,
        start: CellState,
        observer: Observer | None = None,
    ):
        self.shape, self.index, self.weights, self.observer = shape, cell, weights, observer
        h = start.h
        self.h, self.c = h, start.c
        batch, (used_x, used_h) = len(h), weights.nonzero_columns
        static = 0 if weights.x_dynamic else weights.x_levels  # dynamic rows come to the operand as integers
        x_how, h_how = _Sending(used_x, static, weights.x_scale), _Sending(used_h, weights.h_levels)
        self.of_x = _Operand(Site(shape, cell, "x"), policy.columns, x_how, h, start.sent_x)
        self.of_h = _Operand(Site(shape, cell, "h"), policy.columns, h_how, h, start.sent_h)
        self.decider: HoldPolicy | None = policy.decider(shape, cell // shape.directions)
        self.holding = bool(policy.hold)
        self.queues = any(p.action == "queue_input" for p in policy.hold)
        held = start.hold
        self.x_used = h.new_zeros(batch, self.of_x.site.width) if held.x_used is None else held.x_used
        self.h_used = torch.zeros_like(h) if held.h_used is None else held.h_used
        self.run = torch.full((batch,), -1, device=h.device) if held.run is None else held.run.clone()
        self.gates = h.new_zeros(batch, 4 * shape.hidden_size) if held.gates is None else held.gates
        self.queue: list[list[torch.Tensor]] = [[] for _ in range(batch)]
        if held.queue is not None and held.queued is not None:
            self.queue = [list(q[:n]) for q, n in zip(held.queue, held.queued.tolist(), strict=True)]
        self.ran = self.advanced = 0

    def actions(self, x: torch.Tensor, below: torch.Tensor) -> torch.Tensor:
        """What the first n rows do at a timestep: from the input x [n, width] and what the layer below does [n]."""
        n = len(x)
        if self.decider is not None:
            change = Change(x, self.x_used[:n], self.h[:n], self.h_used[:n])
            still = self.decider.should_hold(self.shape, self.index, change)
            held = still & (self.run[:n] >= 0) & (self.run[:n] < self.decider.cap)
            below = torch.where((below == RUN) & held, ACTION[self.decider.action], below)
        # A row that never ran has no gates to keep: the layers above an exit in depth may be in that place.
        return torch.where((below == HOLD_GATES) & (self.run[:n] < 0), HOLD_STATE, below)

    def settle(self, n: int) -> None:
        """End a timestep of the first n rows: only the first of a sequence sends every column, run or not."""
        self.of_x.fresh[:n] = self.of_h.fresh[:n] = False

    def note(self, x: torch.Tensor, actions: torch.Tensor) -> None:
        """Remember what the next decision needs, before the rows run."""
        n, ran = len(x), actions == RUN
        self.run[:n] = torch.where(ran, 0, torch.where(self.run[:n] < 0, -1, self.run[:n] + 1))
        if self.decider is not None:
            rows = ran.nonzero()[:, 0]
            self.x_used = self.x_used.index_copy(0, rows, x[rows])
            self.h_used = self.h_used.index_copy(0, rows, self.h[rows])

    def advance(self, x: torch.Tensor, rows: torch.Tensor, time: int) -> None:
        """Run the given rows [n] on x [n, width]."""
        h, w = self.h[rows], self.weights
        operand, step = quantize_rows(x, w.nonzero_columns[0], w.x_levels) if w.x_dynamic else (x, None)
        x_hat, x_sent = self.of_x.estimate(operand, rows)
        h_hat, h_sent = self.of_h.estimate(h, rows)
        from_x = x_hat @ w.w_ih.T
        gates = (from_x if step is None else from_x * step) + w.bias + h_hat @ w.w_hh.T
        if self.observer:
            self.observer(Step(self.index, time, x, h, x_sent, h_sent, gates, rows))
        self.ran += len(rows)
        if self.holding:
            self.gates = self.gates.index_copy(0, rows, gates)
        self._move(gates, rows)

    def reuse_gates(self, rows: torch.Tensor) -> None:
        """Advance c and h of the given rows with the gates they kept."""
        self._move(self.gates[rows], rows)

    def take(self, rows: torch.Tensor, h: torch.Tensor) -> None:
        """Put h [n, P] of the given rows where an exit in depth says; pruned units stay."""
        h = state_with_pruned_constant(self.weights, h, self.c[rows])[0]
        self.h = self.h.index_copy(0, rows, h)

    def _move(self, gates: torch.Tensor, rows: torch.Tensor) -> None:
        out, c = units_with_pruned_constant(self.weights, *cell_update(gates, self.c[rows]))
        if self.weights.w_hr is not None:
            out = out @ self.weights.w_hr.T
        self.h, self.c = self.h.index_copy(0, rows, out), self.c.index_copy(0, rows, c)
        self.advanced += len(rows)

    def held_state(self) -> HoldState:
        """What to remember until the next call."""
        decides = self.decider is not None
        queue = queued = None
        if self.decider is not None and self.decider.action == "queue_input":
            queue = self.h.new_zeros(len(self.h), self.decider.cap, self.of_x.site.width)
            for row, items in enumerate(self.queue):
                for i, item in enumerate(items):
                    queue[row, i] = item
            queued = torch.tensor([len(items) for items in self.queue], device=self.h.device)
        return HoldState(
            self.x_used if decides else None, self.h_used if decides else None, self.run, self.gates, queue, queued
        )

    def counts(self, possible: int) -> ColumnCounts:
        """Work done, of ``possible`` batch rows times timesteps."""
        x, h = self.of_x, self.of_h
        return ColumnCounts(x.count, possible * x.site.width, h.count, possible * h.site.width, self.ran, self.advanced)
