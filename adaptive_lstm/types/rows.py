"""Which rows of a batch a caller means."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..codec import brief
from ..errors import InputError

Rows = Any
"""Rows of a batch: numbers as a tensor, an array or a sequence of ints, or a bool mask of all rows."""


def row_numbers(rows: Rows, batch: int) -> npt.NDArray[np.int64]:
    """Rows of a batch of this size as numbers, int64 [n], in the caller's order.

    Raises:
        InputError: neither numbers from 0 to ``batch - 1`` nor a mask [batch].
    """
    index = _array("rows", rows, "numbers of rows or a bool mask")
    if index.dtype == np.bool_:
        if index.shape != (batch,):
            raise InputError(f"rows: got a mask of shape {index.shape}, expected ({batch},), one entry for every row")
        return np.flatnonzero(index)
    if index.ndim != 1 or (index.size and index.dtype.kind not in "iu"):
        raise InputError(f"rows: got {_told(rows, index)}, expected whole numbers [n] or a bool mask [{batch}]")
    if index.size and (index.min() < 0 or index.max() >= batch):
        wrong = index.min() if index.min() < 0 else index.max()
        raise InputError(f"rows: got {wrong}, expected 0 to {batch - 1}: there are {batch} rows")
    return index.astype(np.int64)


def row_mask(name: str, mask: Any, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """A bool mask of this shape, from a tensor, an array or nested sequences.

    Raises:
        InputError: another shape, or no truth values.
    """
    found = _array(name, mask, f"a bool mask {list(shape)}")
    if found.dtype != np.bool_ or found.shape != shape:
        raise InputError(
            f"{name}: got {_told(mask, found)}, expected a bool mask of shape {shape}; of numbers, done > 0 makes one"
        )
    return found


def _array(name: str, values: Any, expected: str) -> npt.NDArray[Any]:
    """A copy of the caller's values; numpy refuses most of what is not plain memory."""
    try:
        # Sequences are numpy's to read: of an empty one torch makes its default dtype, which numpy may not know.
        return np.array(_of_tensor(values) if hasattr(values, "detach") else values)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputError(f"{name}: got {brief(values)} ({error!s:.100}), expected {expected}") from None


def _told(given: Any, array: npt.NDArray[Any]) -> str:
    return f"{array.dtype} of shape {array.shape}" if array.dtype.kind in "biufc" else brief(given)


def _of_tensor(values: Any) -> Any:
    import torch

    if torch._is_functional_tensor(values):
        raise TypeError("a functionalized tensor has no memory")
    return values.detach().cpu().numpy()
