"""Packed weights and one policy in the native core, behind Python objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from ..policies import Parts
from ..types import ColumnCounts, Counts, ExitState, HoldState, Site, StackShape, StreamState, sites
from ..weights.matrices import CellMatrices, Matrix, live_units
from .native_policy import packed_policy

if TYPE_CHECKING:
    from .. import _native


UseBitmask = Literal["auto", "always", "never"]


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
        self._plan = _native.Plan([cells[i : i + per_layer] for i in range(0, shape.num_cells, per_layer)])
        self._policy = packed_policy(policy, shape)
        self._idle: list[_native.State] = []

    @property
    def nbytes(self) -> int:
        """Bytes of the packed weights."""
        return self._plan.bytes

    def new_state(self, batch: int) -> _native.State:
        """A zero state for ``batch`` rows with nothing sent."""
        from .. import _native

        return _native.State(self._plan, self._policy, batch)

    def acquire(self, batch: int) -> _native.State:
        """An idle state, reset, for one run; give it back with ``release``."""
        try:
            state = self._idle.pop()  # atomic, so threads may race for it
        except IndexError:
            return self.new_state(batch)
        state.reset(batch)
        return state

    def release(self, state: _native.State) -> None:
        """Keep a state's buffers for the next run."""
        self._idle.append(state)

    def counted(self, state: _native.State, timesteps: int) -> Callable[[], Counts]:
        """What was counted since the state's counters were cleared, in so many batch rows times timesteps.

        The numbers are those of now; the returned call only puts them together.
        """
        counters, exits = state.counters(), state.exit_counters()

        def counts() -> Counts:
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

        return counts

    def read(self, state: _native.State) -> StreamState[np.ndarray]:
        """A copy of everything that a state remembers."""
        shape, batch, started = self.shape, state.batch, state.started
        h = np.empty((shape.num_cells, batch, shape.output_size), np.float32)
        c = np.empty((shape.num_cells, batch, shape.hidden_size), np.float32)
        state.store(h, c)

        def sent(site: Site) -> np.ndarray | None:
            if not (started and self.thresholded[site]):
                return None
            out = np.empty((batch, site.width), np.float32)
            state.store_sent(site.cell, site.operand, out)
            return out

        held = []
        for cell in range(shape.num_cells if started and self.policy.hold else 0):
            held.append(self._new_hold(cell, batch))
            state.store_hold(cell, *_hold_arrays(held[-1]))
        return StreamState(
            h,
            c,
            tuple(sent(Site(shape, cell, "x")) for cell in range(shape.num_cells)),
            tuple(sent(Site(shape, cell, "h")) for cell in range(shape.num_cells)),
            tuple(held),
            self._read_exit(state) if started and self.policy.time_exit else None,
        )

    def write(self, state: _native.State, value: StreamState[np.ndarray]) -> None:
        """Make a state equal to ``value``; counters start again."""
        state.reset(value.h.shape[1])
        state.load(_float32(value.h), _float32(value.c))
        for site in self.thresholded:
            sent = (value.sent_x if site.operand == "x" else value.sent_h)[site.cell]
            if sent is not None:
                state.load_sent(site.cell, site.operand, _float32(sent))
        for cell, hold in enumerate(value.hold):
            state.load_hold(cell, *_hold_arrays(hold))
        if value.exit is not None:
            exit_ = value.exit
            parts = (exit_.exited.astype(np.uint8), exit_.translation, exit_.streak, exit_.past)
            state.load_exit(exit_.time, *(_flat(part) for part in parts))

    def exited(self, state: _native.State) -> np.ndarray:
        """Which rows have exited in time: bool [B]."""
        return np.zeros(state.batch, np.bool_) if self.policy.time_exit is None else self._read_exit(state).exited

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

    def _read_exit(self, state: _native.State) -> ExitState[np.ndarray]:
        batch, width = state.batch, self.shape.output_size
        window = self.policy.time_exit.window if self.policy.time_exit else 0
        exited, translation = np.empty(batch, np.uint8), np.empty((batch, width), np.float32)
        streak, past = np.empty(batch, np.int64), np.empty((batch, window, width), np.float32)
        time = state.store_exit(exited, translation.reshape(-1), streak, past.reshape(-1))
        return ExitState(time, exited.astype(np.bool_), translation, streak, past)


def _float32(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, np.float32)


def _flat(part: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(part).reshape(-1)


_Hold = tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None, np.ndarray | None, np.ndarray | None]


def _hold_arrays(hold: HoldState[np.ndarray]) -> _Hold:
    """Views of contiguous arrays, in the order that the native core takes them."""
    assert hold.run is not None
    assert hold.gates is not None
    x_used, h_used, queue, queued = (
        None if part is None else _flat(part) for part in (hold.x_used, hold.h_used, hold.queue, hold.queued)
    )
    return _flat(hold.run), _flat(hold.gates), x_used, h_used, queue, queued
