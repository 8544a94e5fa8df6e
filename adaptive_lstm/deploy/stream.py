"""Streaming on arrays: one step or one chunk at a time, the state carried along."""

from __future__ import annotations

from functools import partial
from types import TracebackType
from typing import Any

import numpy as np

from ..errors import InputError
from ..execution.accounting import run_stats
from ..execution.backend import refuse_non_finite
from ..execution.native_rows import write_rows
from ..execution.native_stack import NativeStack
from ..policies import Parts
from ..runtime.arrays import address, as_stored, distances, floats
from ..runtime.monitor import Monitor
from ..runtime.state_check import check_state
from ..runtime.stream_watch import Watched
from ..types import FloatArray, Route, RunStats, StreamState
from ..types.rows import row_numbers


class Stream:
    """A running sequence of ``batch_size`` rows; made by ``LSTM.stream``.

    A stream does not know where its sequence ends, so an exit in time is checked after its last timestep too, which
    ``LSTM.run`` never does. One thread at a time may advance it; any number of streams may run at once. A failed call
    leaves the state as it was.
    """

    def __init__(self, stack: NativeStack, policy: Parts, monitor: Monitor | None, batch_size: int):
        self._stack, self._policy, self._batch = stack, policy, batch_size
        shape = stack.shape
        self._in, self._out = (batch_size, shape.input_size), (batch_size, shape.output_size)
        self._state = stack.new_state(batch_size)
        self._watched = Watched(monitor, policy, batch_size, partial(stack.counted_in_all, self._state))
        self._looks = bool(self._watched)

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Tell the monitor what the stream did; its buffers are freed with the object."""
        self._watched.ended()

    def step(self, x: Any) -> FloatArray:
        """Advance by one timestep.

        Args:
            x: [B, I], float32; other real numbers are converted.

        Returns:
            Output of the top layer [B, P]: a new array.

        Raises:
            InputError: another shape, or no numbers.
            NonFiniteError: x holds NaN or infinity.
            BusyError: another thread is advancing the stream.
        """
        if not (type(x) is np.ndarray and x.dtype == np.float32 and x.shape == self._in and x.flags.carray):
            x = np.ascontiguousarray(self._checked(x, self._in, "[B, I]"))
        if self._looks:
            self._watched.advanced(1)
        y = np.empty(self._out, np.float32)
        if not self._state.step(address(x), address(y)):
            raise refuse_non_finite()
        return y

    def run(self, x: Any) -> FloatArray:
        """Advance by a chunk of any length.

        Args:
            x: [T, B, I], float32; other real numbers are converted.

        Returns:
            Outputs of the top layer [T, B, P]; equal to those of single steps.

        Raises:
            InputError: another shape, or no numbers.
            NonFiniteError: x holds NaN or infinity.
            BusyError: another thread is advancing the stream.
        """
        steps = len(x) if hasattr(x, "__len__") else 0
        given = self._checked(x, (steps, *self._in), "[T, B, I]")
        self._watched.advanced(steps)
        y = np.empty((steps, *self._out), np.float32)
        where = (address(given), *distances(given)[:2], address(y), *distances(y)[:2], steps)
        if steps and not self._state.run(*where, check=True, open_ended=True):
            raise refuse_non_finite()
        return y

    def ahead(self) -> None:
        """Compute the recurrent side of the next timestep now, in the idle time before its frame comes.

        As ``adaptive_lstm.Stream.ahead``: no result changes. Raises ``BusyError`` while another thread advances it.
        """
        self._state.ahead()

    def reset(self, rows: Any = None) -> None:
        """Back to zero states with nothing sent: new sequences, statistics cleared.

        Args:
            rows: start these anew and leave the others, and the statistics, as they are: numbers [n], or a bool
                mask [B].

        Raises:
            InputError: rows that are not there.
            BusyError: another thread is advancing the stream.
        """
        if rows is not None:
            write_rows(self._stack, self._state, np.unique(row_numbers(rows, self._batch)), None)
            return
        self._watched.ended()
        self._state.reset(self._batch)

    @property
    def state(self) -> StreamState[np.ndarray]:
        """A copy of everything that the stream remembers, as arrays; assign one to continue from there.

        Assigning raises ``StateError`` if it is of another model, batch size or policy; nothing is changed then.
        Statistics start again.
        """
        return self._stack.read(self._state)

    @state.setter
    def state(self, state: StreamState[np.ndarray]) -> None:
        check_state(state, self._stack.shape, self._batch, self._policy, as_stored)
        self._stack.write(self._state, state)

    @property
    def stats(self) -> RunStats:
        """What the stream did since it was opened, reset, or given a state."""
        timesteps, counts = self._stack.counted_in_all(self._state)
        return run_stats(self._policy, self._stack.shape, counts, timesteps, route=Route("native"), threads=1)

    @property
    def exited(self) -> np.ndarray:
        """Which rows have exited (``ExitInTime``): bool [B]. Their outputs stay the translation they exited with."""
        return self._stack.exited(self._state)

    def _checked(self, x: Any, want: tuple[int, ...], letters: str) -> FloatArray:
        given = floats(x, "x")
        if given.shape != want:
            raise InputError(f"x: got shape {given.shape}, expected {want} ({letters})")
        return given
