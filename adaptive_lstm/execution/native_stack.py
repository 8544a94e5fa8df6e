"""Packed weights and one policy in the native core, behind Python objects."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from ..errors import StateError
from ..policies import Dense, Parts, parts
from ..types import ColumnCounts, Counts, ExitState, HoldState, Route, Site, StackShape, StreamState, sites
from ..weights.matrices import CellMatrices, Matrix, live_units
from .native_policy import packed_policy
from .racing import races

if TYPE_CHECKING:
    from .. import _native


UseBitmask = Literal["auto", "always", "never"]

# Idle states that are kept: more threads than cores gain nothing, and a larger one is made anew in no time beside the
# run that it is for.
MOST_IDLE = os.cpu_count() or 1
MOST_IDLE_BYTES = 32 << 20


@dataclass(frozen=True)
class Packed:
    """How the native core stores a matrix.

    ``form``: "dense"; "blocks": without blocks of zeros; "bitmask": without any zeros.
    ``columns``: how many are stored; the others are all zeros or belong to pruned units.
    """

    form: str
    columns: int


def _packed(
    matrix: Matrix,
    live: npt.NDArray[np.bool_] | None,
    *,
    columns: bool,
    gates: bool,
    zeros: bool,
    bitmask: UseBitmask,
) -> _native.Matrix:
    from .. import _native

    return _native.Matrix(
        matrix.values,
        matrix.scale,
        levels=matrix.levels,
        column_scale=matrix.column_scale,
        dynamic=matrix.dynamic,
        gates=gates,
        columns=columns,
        live=live,
        zeros=zeros,
        bitmask=bitmask,
    )


class NativeStack:
    """Packed weights and one policy, ready to run; immutable but for a pool of idle states. Threads may share it.

    Args:
        weights: one entry per cell; pruned units are not stored.
        shape: sizes of the stack.
        policy: what may be skipped.
        zeros: skip columns of zeros, and blocks of zeros where there are many; NaN in the inputs that they would
            have multiplied is ignored then.
        bitmask: store unstructured zeros as a bitmask and the other weights, expanded on load, so that NaN is not
            ignored; by default where that is faster.
    """

    def __init__(
        self,
        weights: Sequence[CellMatrices],
        shape: StackShape,
        policy: Parts,
        *,
        zeros: bool = True,
        bitmask: UseBitmask = "auto",
    ):
        from .. import _native

        self.shape, self.policy, self.finite_only = shape, policy, zeros
        self.thresholded = {site: policy.columns.thresholded(site) for site in sites(shape)}
        self.live_units = live_units(shape, weights)
        cells, packed = [], list[tuple[Packed, ...]]()
        for cell, w in enumerate(weights):
            x, h = Site(shape, cell, "x"), Site(shape, cell, "h")
            w_ih, w_hh = (
                _packed(m, w.live, columns=self.thresholded[site], gates=True, zeros=zeros, bitmask=bitmask)
                for m, site in ((w.w_ih, x), (w.w_hh, h))
            )
            w_hr = None
            if w.w_hr:
                w_hr = _packed(w.w_hr, w.live, columns=False, gates=False, zeros=False, bitmask="never")
            cells.append(_native.cell(w_ih, w_hh, w.bias, w_hr, live=w.live, constant=w.constant))
            packed.append(tuple(Packed(m.form, m.columns) for m in (w_ih, w_hh, w_hr) if m is not None))
        self.packed = tuple(packed)
        self._widths = [shape.input_width(cell) for cell in range(shape.num_cells)]
        per_layer = shape.directions
        self._cells = cells
        self._plan = _native.Plan([cells[i : i + per_layer] for i in range(0, shape.num_cells, per_layer)])
        self._policy = packed_policy(policy, shape)
        self.race = _native.ThreadRace() if races() else None
        self._idle: list[_native.State] = []

    @property
    def nbytes(self) -> int:
        """Bytes of the packed weights."""
        return self._plan.bytes

    def new_state(self, batch: int) -> _native.State:
        """A zero state for ``batch`` rows with nothing sent."""
        from .. import _native

        return _native.State(self._plan, self._policy, batch)

    def acquire(self) -> _native.State:
        """An idle state for one run, which has to reset it; give it back with ``release``."""
        try:
            return self._idle.pop()  # atomic, so threads may race for it
        except IndexError:
            return self.new_state(0)

    def release(self, state: _native.State) -> None:
        """Keep a state's buffers for the next run, unless they are large or there are many."""
        if len(self._idle) < MOST_IDLE and state.bytes <= MOST_IDLE_BYTES:
            self._idle.append(state)

    def direct_call(
        self,
        access: _native.Torch,
        bypassed: _native.Bypassed,
        *,
        weights: list[tuple[str, Any, int, int]],
        contents: Any,
        contested: int,
        states: bool,
        one_step: bool,
        counts: bool,
        most_threads: Callable[[], int],
        route: Route,
        policy: Parts,
        monitor: object,
    ) -> Callable[..., Any]:
        """Whole calls with torch's tensors in one native entry; see ``execution.direct_call``.

        Args:
            access: how tensors are read and made.
            bypassed: what such a call goes past.
            weights: name, tensor, address and version of every parameter.
            contents: what they hold (``Contents``), or None.
            contested: numbers of an input beyond which torch may be as fast on several rows or threads; -1: never.
            states: whether calls with given states are served.
            one_step: whether these are calls of an ``nn.LSTMCell``.
            counts: whether batches are counted.
            most_threads: how many may serve a call.
            route, policy: what is remembered of a call.
            monitor: is told the rates of every call (``direct_call.Monitor``), or None.
        """
        from .. import _native

        return _native.DirectCall(
            access,
            bypassed,
            self._plan,
            idle=self._idle,
            most_idle=MOST_IDLE,
            most_bytes=MOST_IDLE_BYTES,
            weights=weights,
            contents=contents,
            contested=contested,
            check=self.finite_only,
            states=states,
            one_step=one_step,
            together=self._counts if counts else None,
            race=self.race,
            most_threads=most_threads,
            route=route,
            policy=policy,
            monitor=monitor,
        ).serve

    def counted(self, state: _native.State, timesteps: int) -> Callable[[], Counts]:
        """What was counted since the state's counters were cleared, in so many batch rows times timesteps.

        The numbers are those of one moment, also while another thread advances the state; the returned call only puts
        them together.
        """
        counted: Callable[[], Counts] = state.counted(self._counts, timesteps)
        return counted

    def counted_in_all(self, state: _native.State) -> tuple[int, Counts]:
        """Timesteps of all batch rows together since the counters were cleared, and what was counted in them."""
        columns, exits, timesteps = state.counters()
        return timesteps, self._counts(columns, exits, timesteps)

    def _counts(
        self, counters: list[tuple[int, int, int, int]], exits: tuple[int, int, list[int], list[int]], timesteps: int
    ) -> Counts:
        h_possible = timesteps * self.shape.output_size
        columns = tuple(
            [
                ColumnCounts(x, timesteps * width, h, h_possible, ran, advanced)
                for width, (x, h, ran, advanced) in zip(self._widths, counters, strict=True)
            ]
        )
        checks, exited, depth_checks, depth_exits = exits
        depth = (tuple(depth_checks), tuple(depth_exits)) if self.policy.depth_exit else ((), ())
        return Counts(columns, checks, exited, *depth, self.live_units)

    def read(self, state: _native.State) -> StreamState[np.ndarray]:
        """A copy of everything that a state remembers, of one moment: waits while another thread advances it."""
        shape, batch = self.shape, state.batch
        h = np.empty((shape.num_cells, batch, shape.output_size), np.float32)
        c = np.empty((shape.num_cells, batch, shape.hidden_size), np.float32)
        sent_x, sent_h = self._new_sent("x", batch), self._new_sent("h", batch)
        hold = [self._new_hold(cell, batch) for cell in range(shape.num_cells)] if self.policy.hold else []
        exit_ = self._new_exit(batch)
        of_exit = None if exit_ is None else _arrays(exit_)
        if not state.read(h, c, sent_x, sent_h, [_arrays(held) for held in hold], of_exit):
            nothing = (None,) * shape.num_cells
            return StreamState(h, c, nothing, nothing)
        return StreamState(h, c, tuple(sent_x), tuple(sent_h), tuple(hold), exit_)

    def write(self, state: _native.State, value: StreamState[np.ndarray]) -> None:
        """Make a state equal to ``value``; counters start again.

        Raises:
            StateError: ``value`` is of another stack, batch size or policy, or counts more than 2**62 timesteps; the
                state is as it was.
            BusyError: another thread is advancing the state.
        """
        sent_x, sent_h = (
            [None if sent is None else _float32(sent) for sent in every] for every in (value.sent_x, value.sent_h)
        )
        hold = [_arrays(held) for held in value.hold]
        exit_ = None if value.exit is None else _arrays(value.exit)
        try:
            state.write(_float32(value.h), _float32(value.c), sent_x, sent_h, hold, exit_)
        except ValueError as error:
            raise StateError(f"{error}; the state is of another model, batch size or policy, or damaged") from None

    def exited(self, state: _native.State) -> np.ndarray:
        """Which rows have exited in time: bool [B]."""
        return np.array(state.exited(), np.bool_)

    def _new_sent(self, operand: Literal["x", "h"], batch: int) -> list[np.ndarray | None]:
        sites = [Site(self.shape, cell, operand) for cell in range(self.shape.num_cells)]
        return [np.empty((batch, site.width), np.float32) if self.thresholded[site] else None for site in sites]

    def _new_hold(self, cell: int, batch: int) -> HoldState[np.ndarray]:
        shape, width = self.shape, self.shape.input_width(cell)
        decider = self.policy.decider(shape, cell // shape.directions)
        queues = decider is not None and decider.action == "queue_input"
        return HoldState(
            None if decider is None else np.empty((batch, width), np.float32),
            None if decider is None else np.empty((batch, shape.output_size), np.float32),
            np.empty(batch, np.int64),
            np.empty((batch, 4 * shape.hidden_size), np.float32),
            np.empty((batch, decider.cap, width), np.float32) if decider is not None and queues else None,
            np.empty(batch, np.int64) if queues else None,
        )

    def _new_exit(self, batch: int) -> ExitState[np.ndarray] | None:
        if self.policy.time_exit is None:
            return None
        width, window = self.shape.output_size, self.policy.time_exit.window
        translation, past = np.empty((batch, width), np.float32), np.empty((batch, window, width), np.float32)
        time, streak = np.empty(batch, np.int64), np.empty(batch, np.int64)
        return ExitState(time, np.empty(batch, np.bool_), translation, streak, past)


def cell_of(stack: NativeStack, cell: int) -> NativeStack:
    """One cell of a stack as a stack of its own, dense, on the same packed weights."""
    from .. import _native

    one, policy = copy.copy(stack), parts(Dense())
    one.shape, one.policy = stack.shape.cell(cell), policy
    one.thresholded = dict.fromkeys(sites(one.shape), False)
    one.live_units = stack.live_units[cell : cell + 1]
    one.packed, one._cells = stack.packed[cell : cell + 1], stack._cells[cell : cell + 1]
    one._widths = [one.shape.input_size]
    one._plan, one._policy = _native.Plan([one._cells]), packed_policy(policy, one.shape)
    one.race, one._idle = None if stack.race is None else _native.ThreadRace(), []
    return one


def _float32(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, np.float32)


def _arrays(part: HoldState[np.ndarray] | ExitState[np.ndarray]) -> Any:
    """The fields in their order, arrays contiguous."""
    return tuple(np.ascontiguousarray(v) if isinstance(v, np.ndarray) else v for v in vars(part).values())
