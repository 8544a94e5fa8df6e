"""What is given to a pool and what it gives: tensors outside, arrays inside."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import strided

from ..errors import InputError
from ..execution.executor import Executor
from ..execution.plain import is_dense, is_plain, may_step, resolved
from .tensor_check import check_tensor

_CPU = torch.device("cpu")

Arrays = npt.NDArray[Any]


class PoolTensors:
    """Frames and outputs of an executor on the CPU, converted where it computes in another dtype than it takes."""

    def __init__(self, executor: Executor):
        self._dtype, self._inside, self._width = executor.dtype, executor.computes_in, executor.shape.output_size
        self.computes_in: type[np.floating[Any]] = np.float64 if self._inside is torch.float64 else np.float32

    def array(self, x: torch.Tensor) -> Arrays:
        """Frames as an array, which may share their memory; their shape and values are not looked at.

        Raises:
            InputError: not a dense tensor in plain memory, or a wrong dtype or device.
        """
        try:
            if (
                type(x) is torch.Tensor
                and x.is_cpu
                and x.dtype is self._dtype is self._inside
                and x.layout is strided
                and not x.requires_grad
                and may_step(x)
            ):
                return x.numpy()
        except RuntimeError:  # nested tensors do not even know their shape
            pass
        check_tensor(x, self._dtype, _CPU)
        return resolved(x.detach()).to(self._inside).numpy()

    def tensor(self, y: Arrays) -> torch.Tensor:
        """Outputs as a tensor."""
        return torch.from_numpy(y).to(self._dtype)

    def fill(self, y: torch.Tensor, advance: Callable[[Arrays], tuple[list[int], Arrays]]) -> list[int]:
        """The streams that ``advance`` advances into an array [n, P], and their outputs in the first rows of y [n, P].

        Raises:
            InputError: wrong shape, dtype, device or layout.
        """
        known: bool = isinstance(y, torch.Tensor) and is_dense(y) and is_plain(y)  # type: ignore[redundant-expr]
        fits = known and y.dim() == 2 and len(y) and y.shape[1] == self._width and y.dtype is self._dtype and y.is_cpu
        if not fits or not y.is_contiguous() or y.is_neg() or y._is_zerotensor():
            got = f"{tuple(y.shape)} of {y.dtype}, strides {y.stride()}" if known else type(y).__name__
            want = f"[n, {self._width}] of {self._dtype} on the CPU to fill, n at least 1"
            raise InputError(f"y: got {got}, expected contiguous plain memory {want}")
        if self._dtype is self._inside:
            return advance(_memory(y, self.computes_in))[0]
        streams, outputs = advance(np.empty(y.shape, self.computes_in))
        with torch.inference_mode():  # y may have been made there
            y.detach()[: len(streams)].copy_(torch.from_numpy(outputs))
        return streams


def _memory(y: torch.Tensor, dtype: type[np.floating[Any]]) -> Arrays:
    """The memory of a contiguous tensor as an array, for a moment; ``Tensor.numpy`` would pin its storage for good."""
    raw = (ctypes.c_byte * (y.numel() * y.element_size())).from_address(y.data_ptr())
    array: Arrays = np.frombuffer(memoryview(raw), dtype).reshape(y.shape)
    return array
