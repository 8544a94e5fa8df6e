"""Arrays from callers, checked, as the native core reads them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..codec import brief
from ..errors import InputError, StateError
from ..types import FloatArray


def floats(value: Any, name: str) -> FloatArray:
    """Real numbers as float32, in aligned plain memory whose last axis is dense; a copy only where it must be.

    Raises:
        InputError: it does not hold real numbers.
    """
    try:
        given = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name}: got {brief(value)} ({error!s:.100}), expected an array of numbers") from None
    if given.dtype.kind not in "fiu" or not given.ndim:
        raise InputError(f"{name}: got {given.dtype} of shape {given.shape}, expected an array of real numbers")
    with np.errstate(over="ignore"):  # a float64 beyond float32 is infinite then, which the core refuses where it must
        array = given.astype(np.float32, copy=False)
    steps = array.strides
    if steps[-1] != 4 or not array.flags.aligned or any(step < 0 or step % 4 for step in steps):
        array = np.ascontiguousarray(array)
    return array


def as_stored(name: str, value: Any, kind: type[np.generic] | None) -> np.ndarray:
    """An array of a stream's state (``runtime.state_check.Read``). Raises ``StateError`` if it is none of this kind."""
    want = np.dtype(kind or np.float32)
    if not isinstance(value, np.ndarray) or value.dtype != want:
        got = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
        raise StateError(f"{name}: got {got}, expected an array of {want} or None")
    return value


def address(array: np.ndarray) -> int:
    """Where the first element lies; a third of the time that ``ctypes.data`` takes."""
    where: int = array.__array_interface__["data"][0]
    return where


def distances(array: np.ndarray) -> tuple[int, ...]:
    """Between neighbours along each axis, in elements."""
    return tuple(step // array.itemsize for step in array.strides)


def row_numbers(rows: Any, batch: int) -> np.ndarray:
    """Rows of a batch of this size as numbers, int64 [n]: each once.

    Raises:
        InputError: neither numbers from 0 to ``batch - 1``, each once, nor a mask [batch].
    """
    try:
        index = np.asarray(rows)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"rows: got {brief(rows)} ({error!s:.100}), expected numbers of rows or a bool mask") from None
    if index.dtype == np.bool_:
        if index.shape != (batch,):
            raise InputError(f"rows: got a mask of shape {index.shape}, expected ({batch},), one entry for every row")
        return np.flatnonzero(index)
    if index.ndim != 1 or (index.size and index.dtype.kind not in "iu"):
        raise InputError(
            f"rows: got {index.dtype} of shape {index.shape}, expected whole numbers [n] or a bool mask [{batch}]"
        )
    if index.size and (int(index.min()) < 0 or int(index.max()) >= batch):
        wrong = int(index.min()) if int(index.min()) < 0 else int(index.max())
        raise InputError(f"rows: got {wrong}, expected 0 to {batch - 1}: there are {batch} rows")
    if len(np.unique(index)) < len(index):
        raise InputError(f"rows: got {index.tolist()!s:.100}, expected every row once at most")
    return index.astype(np.int64)
