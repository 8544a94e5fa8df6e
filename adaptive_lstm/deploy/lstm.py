"""One LSTM of a file: whole sequences on arrays."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..artifact.stacks import Stack
from ..codec import brief
from ..errors import BackendError, InputError, UnsupportedError
from ..execution.accounting import run_stats
from ..execution.backend import native, refuse_non_finite
from ..execution.native_policy import python_part, runs_natively
from ..execution.native_stack import NativeStack
from ..execution.threads import get_num_threads
from ..policies import Policy, kind_of, parts
from ..runtime.array_pool import PoolOptions, StreamPool
from ..runtime.arrays import address, distances, floats
from ..runtime.monitor import Monitor
from ..runtime.pool_rows import NativeRows
from ..runtime.snapshot import identity
from ..runtime.streamable import check_decisions, check_direction
from ..types import Counts, FloatArray, Route, RunStats, StackShape
from ..types.states import check_batch_size
from ..weights.precision import Quantize
from .padding import Packing
from .stream import Stream

NATIVE = Route("native")

State = tuple[FloatArray, FloatArray]
"""``(h, c)``: h [L * D, B, P] and c [L * D, B, H], without B beside a sequence without it."""


_Where = tuple[int, int, int, int, int, int, int, int]
"""x and y, each with its address and the distances between timesteps and rows; timesteps; address of sizes, or 0."""


class Output(NamedTuple):
    """What a run gives.

    ``y``: outputs of the top layer, [T, B, D * P] or [T, D * P]; zeros behind the end of a shorter sequence.
    ``state``: ``(h, c)`` after the last timestep of every sequence.
    ``stats``: what was computed, and what was left out.
    """

    y: FloatArray
    state: State
    stats: RunStats


class LSTM:
    """A stacked LSTM with its policy, in the native core; made by ``load``. Threads may share it; none holds the GIL.

    ``shape``: its sizes.
    ``policy``: what a run may leave out.
    ``quantize``: the precision of every matrix.
    ``monitor``: compares every run with the rates that calibration saw; None: the file holds none.
    """

    def __init__(self, stack: Stack, name: str):
        settings = stack.settings
        policy = parts(settings.policy)
        if not native():
            raise BackendError(
                "ADAPTIVE_LSTM_BACKEND=reference, or the extension does not load; deploy runs on the extension alone"
            )
        if not runs_natively(policy, stack.shape):
            raise UnsupportedError(
                f"{name}: {python_part(settings.policy)}, and deploy runs none; use adaptive_lstm.load"
            )
        if policy.split is not None:
            raise UnsupportedError(
                f"{name}: {kind_of(policy.split).name} needs torch, and deploy has none; use adaptive_lstm.load, or "
                "save the model under another policy"
            )
        self.shape: StackShape = stack.shape
        self.policy: Policy = settings.policy
        self.quantize: Quantize = settings.quantize
        self.monitor = None if settings.monitor is None else Monitor(settings.monitor)
        self._digest = stack.digest
        self._parts, self._counts = policy, stack.replaced or policy.acts
        self._stack = NativeStack(stack.cells, stack.shape, policy, zeros=not stack.exact)

    def __repr__(self) -> str:
        return f"LSTM({self.shape}, policy={type(self.policy).__name__}, quantize={self.quantize.precision})"

    @property
    def nbytes(self) -> int:
        """Bytes of the packed weights."""
        return self._stack.nbytes

    def run(self, x: Any, state: Any = None, lengths: Sequence[int] | np.ndarray | None = None) -> Output:
        """Run whole sequences.

        Time comes first, whatever ``batch_first`` the module had; ``x.swapaxes(0, 1)`` costs nothing.

        Args:
            x: [T, B, I], or one sequence [T, I]: float32, other real numbers are converted.
            state: ``(h, c)`` to start from, as ``Output.state``; None: zeros.
            lengths: [B] timesteps of each sequence, 1 to T; None: all are T long.

        Returns:
            ``y, state, stats``.

        Raises:
            InputError: sizes that do not fit, or no numbers.
            NonFiniteError: NaN or infinity, and the policy can skip or weights are quantized or pruned; nothing ran.
        """
        shape = self.shape
        given = floats(x, "x")
        if given.ndim not in (2, 3) or given.shape[-1] != shape.input_size or 0 in given.shape:
            raise InputError(
                f"x: got shape {given.shape}, expected [T, B, {shape.input_size}] or [T, {shape.input_size}], "
                "with a timestep and a row at least"
            )
        alone = given.ndim == 2
        batch = given[:, None] if alone else given
        start = None if state is None else self._given(state, batch.shape[1], alone=alone)
        if lengths is None:
            y, h, c, stats = self._uniform(batch, start)
        else:
            y, h, c, stats = self._ragged(batch, start, Packing.of(lengths, *batch.shape[:2]))
        return Output(y[:, 0], (h[:, 0], c[:, 0]), stats) if alone else Output(y, (h, c), stats)

    def stream(self, batch_size: int = 1) -> Stream:
        """A stream of ``batch_size`` rows from zero states.

        Raises:
            InputError: a batch size below 1 or above 2**26.
            UnsupportedError: a bidirectional LSTM, or a policy that decides on whole sequences.
        """
        check_direction(self.shape)
        check_decisions(self._parts)
        check_batch_size(batch_size)
        return Stream(self._stack, self._parts, self.monitor, batch_size)

    def stream_pool(
        self,
        capacity: int = 512,
        *,
        backlog: int = 64,
        max_batch: int | None = None,
        idle_timeout: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> StreamPool:
        """A pool of streams that join and leave at any time and advance together.

        Args:
            capacity: streams that may be open at once.
            backlog: frames that may wait in each.
            max_batch: streams that a tick advances at most, the longest not served first; None: all that have a frame.
            idle_timeout: seconds after which ``tick`` closes a stream that brought no frame and has none waiting; None:
                never.
            clock: tells the time in seconds.

        Raises:
            InputError: an option out of range.
            UnsupportedError: a bidirectional LSTM, or a policy that decides on whole sequences.
        """
        check_direction(self.shape)
        check_decisions(self._parts)
        options = PoolOptions(capacity, backlog, max_batch, idle_timeout, clock)
        owner = identity(self._digest, self.quantize, self.policy, np.float32)
        return StreamPool(partial(NativeRows, self._stack, NATIVE), self.monitor, owner, options)

    def _given(self, state: Any, rows: int, *, alone: bool) -> State:
        if not (isinstance(state, (tuple, list)) and len(state) == 2):
            raise InputError(f"state: got {brief(state)}, expected (h, c)")
        shape, found = self.shape, []
        for name, value, width in (("h", state[0], shape.output_size), ("c", state[1], shape.hidden_size)):
            array = floats(value, name)
            want = (shape.num_cells, width) if alone else (shape.num_cells, rows, width)
            if array.shape != want:
                raise InputError(f"{name}: got shape {array.shape}, expected {want}")
            found.append(array[:, None] if alone else array)
        return found[0], found[1]

    def _uniform(self, x: FloatArray, start: State | None) -> tuple[FloatArray, FloatArray, FloatArray, RunStats]:
        """Sequences x [T, B, I] of one length."""
        steps, rows, _ = x.shape
        y = np.empty((steps, rows, self.shape.directions * self.shape.output_size), np.float32)
        x_time, x_row, _ = distances(x)
        y_time, y_row, _ = distances(y)
        h, c, stats = self._forward(
            rows, steps * rows, (address(x), x_time, x_row, address(y), y_time, y_row, steps, 0), start
        )
        return y, h, c, stats

    def _ragged(
        self, x: FloatArray, start: State | None, packing: Packing
    ) -> tuple[FloatArray, FloatArray, FloatArray, RunStats]:
        """Padded sequences: packed, so that nothing runs behind the end of one, and put back."""
        rows, width = x.shape[1], self.shape.directions * self.shape.output_size
        packed = packing.packed(x)
        y = np.empty((len(packed), width), np.float32)
        where = (address(packed), 0, packed.shape[1], address(y), 0, width, len(packing.sizes), address(packing.sizes))
        first = None if start is None else (start[0][:, packing.order], start[1][:, packing.order])
        h, c, stats = self._forward(rows, len(packed), where, first)
        return packing.padded(y, x.shape[0]), h[:, packing.back], c[:, packing.back], stats

    def _forward(
        self, rows: int, timesteps: int, where: _Where, start: State | None
    ) -> tuple[FloatArray, FloatArray, RunStats]:
        shape, stack = self.shape, self._stack
        h = np.empty((shape.num_cells, rows, shape.output_size), np.float32)
        c = np.empty((shape.num_cells, rows, shape.hidden_size), np.float32)
        given = (0,) * 6
        if start is not None:
            given = (*_place(start[0]), *_place(start[1]))
        state = stack.acquire()
        try:
            out = address(h), address(c)
            if not state.forward(
                rows, *where, stack.finite_only, *out, *given, threads=get_num_threads(), race=stack.race
            ):
                raise refuse_non_finite()
            used = state.threads
            counts = stack.counted(state, timesteps)() if self._counts else Counts.dense(shape, timesteps)
        finally:
            stack.release(state)
        if self.monitor is not None:
            self.monitor.see(counts, timesteps, rows)
        return h, c, run_stats(self._parts, shape, counts, timesteps, route=NATIVE, threads=used)


def _place(state: FloatArray) -> tuple[int, int, int]:
    """The address of a state [L * D, B, n] with dense rows, and the distances between its cells and its rows."""
    cell, row, _ = distances(state)
    return address(state), cell, row
