"""The native core on torch tensors: addresses in, new tensors out."""

from __future__ import annotations

import torch
from torch import empty_like

from .backend import refuse_non_finite
from .batch import Batch
from .native_stack import NativeStack
from .runner import Result
from .threads import get_num_threads


class NativeRunner:
    """The native core on torch tensors.

    Args:
        stack: packed weights and policy.
        counts: whether batches are counted, because a run may do less than all of the work.
    """

    __slots__ = ("_counts", "_finite_only", "_hidden", "_one_row", "_output", "_race", "_width", "shape", "stack")

    def __init__(self, stack: NativeStack, *, counts: bool = True):
        self.stack, self.shape = stack, stack.shape
        shape = stack.shape
        self._counts, self._finite_only, self._race = counts, stack.finite_only, stack.race
        self._width = shape.directions * shape.output_size
        self._output, self._hidden = (shape.num_cells, shape.output_size), (shape.num_cells, shape.hidden_size)
        like = torch.empty(0, dtype=torch.float32, device="cpu")
        self._one_row = tuple(like.new_empty(cells, 1, n) for cells, n in (self._output, self._hidden))

    def run(self, batch: Batch) -> Result:
        """As ``Runner.run``."""
        # Short sequences take no longer than what surrounds them here, so that is kept short.
        x, sizes, rows, width = batch.x, batch.sizes, batch.rows, self._width
        if sizes is not None:
            x, sizes = x.contiguous(), sizes.contiguous()
            y = x.new_empty(batch.timesteps, width)
            x_time, x_row, y_time, y_row = 0, x.shape[1], 0, width
            steps, alive = len(sizes), sizes.data_ptr()
        else:
            x_outer, x_inner, dense = x.stride()
            if dense != 1:
                x = x.contiguous()
                x_outer, x_inner, _ = x.stride()
            outer, inner, _ = x.shape
            y, alive = x.new_empty(outer, inner, width), 0
            if batch.batch_first:
                steps, x_time, x_row, y_time, y_row = inner, x_inner, x_outer, width, width * inner
            else:
                steps, x_time, x_row, y_time, y_row = outer, x_outer, x_inner, width * inner, width
        (cells, output), (_, hidden) = self._output, self._hidden
        if rows == 1:  # copying sizes from a tensor takes half as long as reading them
            h, c = empty_like(self._one_row[0]), empty_like(self._one_row[1])
        else:
            h, c = x.new_empty(cells, rows, output), x.new_empty(cells, rows, hidden)
        stack, initial = self.stack, batch.initial
        state = stack.acquire()
        try:
            if initial is None:
                finite = state.forward(
                    rows, x.data_ptr(), x_time, x_row, y.data_ptr(), y_time, y_row, steps, alive, self._finite_only,
                    h.data_ptr(), c.data_ptr(), threads=get_num_threads(), race=self._race,
                )  # fmt: skip
            else:
                h_0, c_0 = initial
                if h_0.stride(2) != 1 or c_0.stride(2) != 1:
                    h_0, c_0 = h_0.contiguous(), c_0.contiguous()
                finite = state.forward(
                    rows, x.data_ptr(), x_time, x_row, y.data_ptr(), y_time, y_row, steps, alive, self._finite_only,
                    h.data_ptr(), c.data_ptr(), *_rows(h_0), *_rows(c_0),
                    threads=get_num_threads(), race=self._race,
                )  # fmt: skip
            if not finite:
                raise refuse_non_finite()
            return Result(y, h, c, stack.counted(state, batch.timesteps) if self._counts else None, state.threads)
        finally:
            stack.release(state)


def _rows(state: torch.Tensor) -> tuple[int, int, int]:
    """The address of a state [L * D, B, n] with dense rows, and the distances between its cells and its rows."""
    cell, row, _ = state.stride()
    return state.data_ptr(), cell, row
