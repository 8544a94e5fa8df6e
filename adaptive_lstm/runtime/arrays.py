"""Arrays from callers, checked, as the native core reads them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..codec import brief
from ..errors import InputError, StateError
from ..types import FloatArray


def floats(value: Any, name: str, dtype: type[np.floating[Any]] = np.float32) -> FloatArray:
    """Real numbers as ``dtype``, in aligned plain memory whose last axis is dense; a copy only where it must be.

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
        array = given.astype(dtype, copy=False)
    steps, size = array.strides, array.itemsize
    if steps[-1] != size or not array.flags.aligned or any(step < 0 or step % size for step in steps):
        array = np.ascontiguousarray(array)
    return array


def as_stored(
    name: str, value: Any, kind: type[np.generic] | None, dtype: type[np.floating[Any]] = np.float32
) -> np.ndarray:
    """An array of a stream's state (``state_check.Read``); ``dtype``: in which states are computed.

    Raises:
        StateError: it is none of this kind.
    """
    want = np.dtype(kind or dtype)
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
