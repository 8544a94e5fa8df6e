"""Rows of a pool that the native core does not run as a whole: those of a session of chunks, on arrays outside."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..execution import torch_state
from ..execution.executor import Executor
from ..types import Counts, RunStats, StreamState
from .pool_rows import Frames, Rows
from .session import ChunkSession, stats_of


class ChunkRows:
    """Rows of a ``ChunkSession``."""

    def __init__(self, executor: Executor, capacity: int):
        self.shape, self.policy, self._executor = executor.shape, executor.policy, executor
        self.dtype: type[np.floating[Any]] = np.float64 if executor.computes_in is torch.float64 else np.float32
        self._session = ChunkSession(executor, capacity)

    def step(self, rows: Rows, x: Frames, y: Frames) -> None:
        """As ``PoolRows.step``."""
        self._session.step_rows(torch.from_numpy(x), torch.from_numpy(rows), torch.from_numpy(y)[: len(rows)])

    def reset(self, rows: Rows) -> None:
        """As ``PoolRows.reset``."""
        self._session.reset_rows(torch.from_numpy(rows))

    def read(self, row: int) -> StreamState[np.ndarray]:
        """As ``PoolRows.read``."""
        return torch_state.arrays(self._session.read_rows(torch.tensor([row], device="cpu")))

    def write(self, row: int, state: StreamState[np.ndarray]) -> None:
        """As ``PoolRows.write``."""
        self._session.write_rows(torch.tensor([row], device="cpu"), torch_state.tensors(state))

    def exited(self) -> npt.NDArray[np.bool_]:
        """As ``PoolRows.exited``."""
        found: npt.NDArray[np.bool_] = self._session.exited().numpy()
        return found

    def counted(self) -> tuple[int, Counts]:
        """As ``PoolRows.counted``."""
        return self._session.counted()

    def stats(self) -> RunStats:
        """As ``PoolRows.stats``."""
        return stats_of(self._session, self._executor)
