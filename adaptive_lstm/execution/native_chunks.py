"""The native core between checks that Python makes: its state stays where it is, and rows leave it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..types import StreamState
from . import torch_state
from .native_stack import NativeStack
from .runner import Counted


class NativeChunks:
    """The native core, chunk by chunk.

    Args:
        stack: packed weights and a policy without an exit in time.
    """

    def __init__(self, stack: NativeStack):
        self.stack, self.shape = stack, stack.shape

    def open(self, state: StreamState) -> NativeRun:
        """As ``ChunkRunner.open``."""
        return NativeRun(self.stack, state)


class NativeRun:
    """Sequences on their way through the native core."""

    def __init__(self, stack: NativeStack, start: StreamState):
        shape, batch = stack.shape, start.h.shape[1]
        self._stack, self._state = stack, stack.acquire()
        stack.write(self._state, torch_state.arrays(start))
        self._rows = batch  # that have not left
        self._widths = shape.input_size, shape.output_size * shape.directions
        self._states = shape.num_cells, batch, shape.output_size

    def advance(self, x: torch.Tensor, sizes: Sequence[int], *, open_ended: bool = False) -> torch.Tensor:
        """As ``Run.advance``."""
        (inputs, outputs), rows = self._widths, self._rows
        x, y, alive = x.contiguous(), x.new_empty(x.shape[0], outputs), 0
        if sizes[-1] < rows:
            falling = torch.tensor(sizes, dtype=torch.int64, device="cpu")
            alive = falling.data_ptr()
        steps = rows * inputs, inputs, y.data_ptr(), rows * outputs, outputs, len(sizes)
        self._state.run(x.data_ptr(), *steps, alive, check=False, open_ended=open_ended)
        return y

    def h(self) -> torch.Tensor:
        """As ``ExitableRun.h``."""
        h = np.empty(self._states, np.float32)
        self._state.store_h(h)
        return torch.from_numpy(h)

    def leave(self, rows: torch.Tensor, h: torch.Tensor) -> None:
        """As ``ExitableRun.leave``."""
        self._state.leave(rows.numpy(), h.detach().contiguous().numpy())
        self._rows -= len(rows)

    def state(self) -> StreamState:
        """As ``Run.state``."""
        return torch_state.tensors(self._stack.read(self._state))

    def counted(self, timesteps: int) -> Counted:
        """As ``Run.counted``."""
        return self._stack.counted(self._state, timesteps)

    def close(self) -> None:
        """As ``Run.close``."""
        self._stack.release(self._state)
