"""One call's inputs in one layout: packed or padded, one sequence or many; checked once, and put back once."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence

from ..errors import InputError
from ..types import StackShape
from .packed import checked
from .plain import resolved

Initial = tuple[torch.Tensor, torch.Tensor]
"""h_0 [L * D, B, P] and c_0 [L * D, B, H]."""


class Batch:
    """What a runner is given, and the way back to the layout that the caller used; made by ``Batch.of``.

    ``x``: [T, B, I], [B, T, I] if ``batch_first``, or packed rows [sum(sizes), I].
    ``sizes`` [T] int64: rows alive at each timestep if x is packed, else None.
    ``batch_first``: layout of x and of the output; False if x is packed.
    ``initial``: h_0 [L * D, B, P] and c_0 [L * D, B, H], or None: zeros.
    ``rows``: B.
    ``timesteps``: batch rows times timesteps.
    """

    __slots__ = ("_order", "_unbatched", "batch_first", "initial", "rows", "sizes", "timesteps", "x")

    x: torch.Tensor
    sizes: torch.Tensor | None
    batch_first: bool
    initial: Initial | None
    rows: int
    timesteps: int
    _order: tuple[torch.Tensor | None, torch.Tensor | None] | None  # of a PackedSequence: sorted, unsorted indices
    _unbatched: bool

    @staticmethod
    def of(
        input: Any,  # noqa: A002 (torch's name)
        hx: Any,
        shape: StackShape,
        batch_first: bool,
        *,
        graph: bool = False,
    ) -> Batch:
        """The arguments of ``nn.LSTM.forward``.

        Args:
            input: [T, B, I], [B, T, I] if ``batch_first``, [T, I], or a ``PackedSequence``.
            hx: (h_0, c_0), [L * D, B, ...] or [L * D, ...] beside an unbatched input; None: zeros.
            shape: sizes of the stack.
            batch_first: as of ``nn.LSTM``.
            graph: whether gradients pass to what gave the states.

        Raises:
            InputError: sizes, dtypes or devices do not fit.
        """
        batch = Batch()
        batch.sizes = batch._order = None
        batch._unbatched = False
        if isinstance(input, PackedSequence):
            x, sizes, *order = checked(input)
            rows, batch_first = int(sizes[0]), False
            batch.sizes, batch._order = sizes, (order[0], order[1])
            timesteps, features = x.shape
        else:
            x, dims = input, input.dim()
            if dims == 2:
                batch._unbatched = True
                x = x.unsqueeze(0 if batch_first else 1)
            elif dims != 3:
                raise InputError(f"LSTM: got an input of {dims} dimensions, expected 2 (unbatched) or 3")
            outer, inner, features = x.shape
            rows, timesteps = outer if batch_first else inner, outer * inner
        if features != shape.input_size:
            raise InputError(f"got inputs with {features} features, expected input_size = {shape.input_size}")
        batch.x, batch.batch_first, batch.rows, batch.timesteps = resolved(x), batch_first, rows, timesteps
        batch.initial = None if hx is None else batch._given(hx, shape, graph)
        return batch

    @staticmethod
    def of_packed(x: torch.Tensor, sizes: torch.Tensor, initial: Initial) -> Batch:
        """Packed rows x [sum(sizes), I], sizes [T] int64 and given states, known to fit."""
        batch = Batch()
        batch.x, batch.sizes, batch.initial = x, sizes, initial
        batch.rows, batch.timesteps = initial[0].shape[1], len(x)
        batch.batch_first = batch._unbatched = False
        batch._order = None
        return batch

    def _given(self, hx: Any, shape: StackShape, graph: bool) -> Initial:
        """``(h_0, c_0)``, checked, in the order of the rows."""
        if not (isinstance(hx, (tuple, list)) and len(hx) == 2):  # a union is made anew at every call
            raise InputError(f"got hx of type {type(hx).__name__}, expected (h_0, c_0)")
        h = self._given_state("h_0", hx[0], shape.num_cells, shape.output_size, graph)
        c = self._given_state("c_0", hx[1], shape.num_cells, shape.hidden_size, graph)
        if self._order is None or self._order[0] is None:
            return h, c
        return h.index_select(1, self._order[0]), c.index_select(1, self._order[0])

    def _given_state(self, name: str, state: Any, cells: int, width: int, graph: bool) -> torch.Tensor:
        want = (cells, width) if self._unbatched else (cells, self.rows, width)
        if not isinstance(state, torch.Tensor):
            raise InputError(f"{name}: got {type(state).__name__}, expected a tensor of shape {want}")
        if state.shape != want:
            raise InputError(f"{name}: got shape {tuple(state.shape)}, expected {want}")
        x = self.x
        if state.dtype is not x.dtype or not ((state.is_cpu and x.is_cpu) or state.device == x.device):
            raise InputError(f"{name}: got {state.dtype} on {state.device}, expected {x.dtype} on {x.device}")
        given = resolved(state.detach() if state.requires_grad and not graph else state)
        return given.unsqueeze(1) if self._unbatched else given

    def restore(self, y: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> tuple[Any, Initial]:
        """``output, (h_n, c_n)`` as ``nn.LSTM.forward`` returns them, from y in the layout of x."""
        if self.sizes is not None and self._order is not None:
            of_sorted, of_unsorted = self._order
            if of_unsorted is not None:
                h, c = h.index_select(1, of_unsorted), c.index_select(1, of_unsorted)
            return PackedSequence(y, self.sizes, of_sorted, of_unsorted), (h, c)
        if self._unbatched:
            return y.squeeze(0 if self.batch_first else 1), (h.squeeze(1), c.squeeze(1))
        return y, (h, c)

    def packed(self) -> tuple[torch.Tensor, list[int]]:
        """x as packed rows [sum(sizes), I], all rows of timestep 0 first, and the rows alive at each timestep."""
        x = self.x
        if self.sizes is not None:
            return x, self.sizes.tolist()
        x = x.transpose(0, 1) if self.batch_first else x
        return x.reshape(-1, x.shape[-1]), [x.shape[1]] * x.shape[0]

    def unpacked(self, y: torch.Tensor) -> torch.Tensor:
        """Packed output rows [sum(sizes), D * P] in the layout of x."""
        if self.sizes is not None:
            return y
        outer, inner, _ = self.x.shape
        if self.batch_first:
            return y.reshape(inner, outer, -1).transpose(0, 1)
        return y.reshape(outer, inner, -1)

    def converted(self, dtype: torch.dtype) -> Batch:
        """The same batch with values of another dtype."""
        out = copy.copy(self)
        out.x = self.x.to(dtype)
        out.initial = None if self.initial is None else (self.initial[0].to(dtype), self.initial[1].to(dtype))
        return out

    def finite(self) -> bool:
        """Whether neither x nor the given states hold NaN or infinity."""
        return all(bool(torch.isfinite(part).all()) for part in (self.x, *(self.initial or ())))


def rows_in(x: Any, batch_first: bool) -> int:
    """B of an input as ``Batch.of`` takes it."""
    if isinstance(x, PackedSequence):
        return int(x.batch_sizes[0])
    return 1 if x.dim() == 2 else int(x.shape[0 if batch_first else 1])


def timesteps_in(x: Any) -> int:
    """Batch rows times timesteps of an input as ``Batch.of`` takes it."""
    if isinstance(x, PackedSequence):
        return len(x.data)
    return int(x.shape[0] * x.shape[1] if x.dim() == 3 else x.shape[0])
