"""Frames that are given to a pool: checked, as an array."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import strided

from ..errors import InputError
from ..execution.backend import refuse_non_finite
from ..execution.executor import Executor
from ..execution.plain import is_dense, is_plain, may_step, not_dense, resolved

_ONE, _SOME, _ANY = (1,), (2,), (1, 2)


class FrameCheck:
    """Refuses what cannot be a frame, or frames, of an executor on the CPU."""

    def __init__(self, executor: Executor):
        self._width, self._dtype, self._inside = executor.shape.input_size, executor.dtype, executor.computes_in
        self._frame = (self._width,)
        self.dtype = np.float64 if self._inside is torch.float64 else np.float32

    def frames(self, x: torch.Tensor) -> npt.NDArray[Any]:
        """Frames [I] or [n, I] as an array [n, I] in the dtype that is computed in; may share their memory.

        Raises:
            InputError: not a dense tensor, or a wrong shape, dtype or device.
            NonFiniteError: NaN or infinity.
        """
        return self._values(x, _ANY)

    def one_each(self, x: torch.Tensor) -> npt.NDArray[Any]:
        """The same of frames [n, I] alone."""
        return self._values(x, _SOME)

    def _values(self, x: torch.Tensor, dims: tuple[int, ...]) -> npt.NDArray[Any]:
        values = self._at_once(x, dims)
        if values is None:
            self._check(x, dims)
            values = resolved(x.detach()).to(self._inside).numpy()
        if not np.isfinite(values).all():
            raise refuse_non_finite()
        return values if values.ndim == 2 else values[None]

    def _at_once(self, x: torch.Tensor, dims: tuple[int, ...]) -> npt.NDArray[Any] | None:
        """The values of frames that need no more checks; None: they need them."""
        try:
            if (
                type(x) is torch.Tensor
                and x.is_cpu
                and x.dtype is self._dtype is self._inside
                and (x.shape == self._frame if dims is _ANY else x.dim() == 2 and x.shape[1] == self._width)
                and x.layout is strided
                and not x.requires_grad
                and may_step(x)
            ):
                return x.numpy()
        except RuntimeError:  # nested tensors do not even know their shape
            pass
        return None

    def _check(self, x: torch.Tensor, dims: tuple[int, ...]) -> None:
        if not isinstance(x, torch.Tensor):
            raise InputError(f"got {type(x).__name__}, expected a torch.Tensor")
        if not is_dense(x):
            raise InputError(f"got {not_dense(x)}")
        if x.dim() not in dims or x.shape[-1] != self._width:
            wanted = f"[n, {self._width}]" if dims == _SOME else f"[{self._width}] or [n, {self._width}]"
            raise InputError(f"got frames of shape {tuple(x.shape)}, expected {wanted}")
        if x.dtype is not self._dtype or not x.is_cpu:
            raise InputError(f"got {x.dtype} on {x.device}, expected {self._dtype} on cpu like the weights")
        if not is_plain(x):
            raise InputError("got a tensor that is traced, transformed or differentiated, expected plain memory")
