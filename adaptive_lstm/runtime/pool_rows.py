"""What a pool advances: rows that come and go, on arrays. Needs no torch."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..execution.accounting import run_stats
from ..execution.backend import refuse_non_finite
from ..execution.native_rows import read_rows, write_rows
from ..execution.native_stack import NativeStack
from ..policies import Parts
from ..types import Counts, Route, RunStats, StackShape, StreamState
from .arrays import address

Rows = npt.NDArray[np.int64]
Frames = npt.NDArray[Any]


class PoolRows(Protocol):
    """Rows of a batch and what they remember. Frames have been checked; a failed call changes nothing."""

    shape: StackShape
    policy: Parts
    dtype: type[np.floating[Any]]  # of frames, outputs and states

    def step(self, rows: Rows, x: Frames, y: Frames) -> None:
        """Advance rows [n], ascending, by x [n, I], to y [n, P], both contiguous. Raises ``NonFiniteError``."""

    def reset(self, rows: Rows) -> None:
        """Rows [n] become new sequences; counting goes on."""

    def read(self, row: int) -> StreamState[np.ndarray]:
        """A copy of everything that is remembered of a row."""

    def write(self, row: int, state: StreamState[np.ndarray]) -> None:
        """A row continues from a state that has been checked; counting goes on."""

    def exited(self) -> npt.NDArray[np.bool_]:
        """Which rows have exited in time."""

    def counted(self) -> tuple[int, Counts]:
        """Timesteps of all rows together, and what was counted in them."""

    def stats(self) -> RunStats:
        """The same as statistics."""


class NativeRows:
    """Rows of a state of the native core."""

    dtype = np.float32

    def __init__(self, stack: NativeStack, route: Route, capacity: int):
        self.shape, self.policy, self._route = stack.shape, stack.policy, route
        self._stack, self._state = stack, stack.new_state(capacity)

    def step(self, rows: Rows, x: Frames, y: Frames) -> None:
        """As ``PoolRows.step``."""
        if not self._state.step_rows(address(rows), len(rows), address(x), address(y)):
            raise refuse_non_finite()

    def reset(self, rows: Rows) -> None:
        """As ``PoolRows.reset``."""
        write_rows(self._stack, self._state, rows, None)

    def read(self, row: int) -> StreamState[np.ndarray]:
        """As ``PoolRows.read``."""
        return read_rows(self._stack, self._state, np.array([row]))

    def write(self, row: int, state: StreamState[np.ndarray]) -> None:
        """As ``PoolRows.write``."""
        write_rows(self._stack, self._state, np.array([row]), state)

    def exited(self) -> npt.NDArray[np.bool_]:
        """As ``PoolRows.exited``."""
        return self._stack.exited(self._state)

    def counted(self) -> tuple[int, Counts]:
        """As ``PoolRows.counted``."""
        return self._stack.counted_in_all(self._state)

    def stats(self) -> RunStats:
        """As ``PoolRows.stats``."""
        timesteps, counts = self.counted()
        return run_stats(self.policy, self.shape, counts, timesteps, route=self._route, threads=1)
