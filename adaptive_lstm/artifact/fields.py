"""What a file claims to hold, value by value: each is checked for its type and size before anybody uses it.

``where`` is the place in the file, for messages. Numbers are finite, or "inf": JSON has no other word for it.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..errors import ModelFileError


def mapping(value: object, where: str, names: Iterable[str] | None = None) -> dict[str, Any]:
    """A JSON object; with exactly these ``names``, if given."""
    if not isinstance(value, dict):
        raise _unexpected(value, where, "names with values")
    if names is not None and value.keys() != set(names):
        raise _unexpected(sorted(value), where, ", ".join(sorted(names)))
    return value


def sequence(value: object, where: str) -> list[Any]:
    """A JSON array."""
    if not isinstance(value, list):
        raise _unexpected(value, where, "a list")
    return value


def text(value: object, where: str) -> str:
    """A string."""
    if not isinstance(value, str):
        raise _unexpected(value, where, "a text")
    return value


def flag(value: object, where: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise _unexpected(value, where, "true or false")
    return value


def whole(value: object, where: str) -> int:
    """A whole number of 32 bits, sign included."""
    if not isinstance(value, int) or isinstance(value, bool) or not -(2**31) <= value < 2**31:
        raise _unexpected(value, where, "a whole number of 32 bits")
    return value


def number(value: object, where: str) -> float:
    """A finite number, or "inf"."""
    if value == "inf":
        return math.inf
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1.7e308:
        return float(value)
    raise _unexpected(value, where, 'a finite number or "inf"')


def written(value: float) -> float | str:
    """A number as ``number`` reads it."""
    return "inf" if math.isinf(value) else float(value)


class Arrays:
    """The arrays of a file; ``take`` hands out each of them once."""

    def __init__(self, arrays: dict[str, np.ndarray]):
        self._left = dict(arrays)

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def take(self, name: str, dtype: str, *shape: int | None) -> np.ndarray:
        """The array of this name if it has this dtype and shape; None: any length.

        Raises:
            ModelFileError: it is missing, or another one.
        """
        array = self._left.pop(name, None)
        expected = f"{dtype} [{', '.join('any' if n is None else str(n) for n in shape)}]"
        if array is None:
            raise ModelFileError(f"{name}: missing, expected {expected}")
        fits = array.ndim == len(shape) and all(n in (None, m) for n, m in zip(shape, array.shape, strict=True))
        if array.dtype != dtype or not fits:
            raise ModelFileError(f"{name}: got {array.dtype} {list(array.shape)}, expected {expected}")
        return array

    def finish(self) -> None:
        """Raise ``ModelFileError`` if an array was never asked for."""
        if self._left:
            raise ModelFileError(f"got arrays that nothing refers to: {reprlib.repr(sorted(self._left))}")


def _unexpected(value: object, where: str, expected: str) -> ModelFileError:
    return ModelFileError(f"{where}: got {reprlib.repr(value)}, expected {expected}")
