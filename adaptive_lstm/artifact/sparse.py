"""Arrays of weights in a file, without their zeros where that is smaller. Needs no torch.

An array with enough zeros is stored as a bit per weight, whether it is kept, and the kept ones. Zeros of floats may
have a sign, which then takes another bit each.
"""

from __future__ import annotations

import numpy as np

from ..codec import Arrays


def put(name: str, array: np.ndarray, arrays: dict[str, np.ndarray]) -> None:
    """Add an array to ``arrays``, whole or as parts whose names begin with ``name``."""
    kept = array != 0
    parts = {f"{name}.kept": np.packbits(kept), f"{name}.values": array[kept]}
    if array.dtype.kind == "f":
        negative = np.signbit(array[~kept])  # a mask times a negative weight is -0.0
        if negative.any():
            parts[f"{name}.negative"] = np.packbits(negative)
    arrays |= parts if sum(part.nbytes for part in parts.values()) < array.nbytes else {name: array}


def take(name: str, dtype: str, size: tuple[int, ...], arrays: Arrays) -> np.ndarray:
    """What ``put`` has added, bit for bit.

    Raises:
        ModelFileError: it is missing, or of another dtype or shape.
    """
    if f"{name}.kept" not in arrays:
        return arrays.take(name, dtype, *size)
    count = int(np.prod(size))
    bits = _bits(f"{name}.kept", count, arrays)
    array = np.zeros(count, dtype)
    array[bits] = arrays.take(f"{name}.values", dtype, int(bits.sum()))
    if f"{name}.negative" in arrays:
        negative = _bits(f"{name}.negative", count - int(bits.sum()), arrays)
        array[~bits] = np.where(negative, np.float32(-0.0), np.float32(0.0))
    return array.reshape(size)


def put_bits(name: str, bits: np.ndarray, arrays: dict[str, np.ndarray]) -> None:
    """Add a row of bool to ``arrays``."""
    arrays[name] = np.packbits(bits)


def take_bits(name: str, count: int, arrays: Arrays) -> np.ndarray | None:
    """What ``put_bits`` has added, or None: there is no such row.

    Raises:
        ModelFileError: it is of another length.
    """
    return _bits(name, count, arrays) if name in arrays else None


def _bits(name: str, count: int, arrays: Arrays) -> np.ndarray:
    return np.unpackbits(arrays.take(name, "uint8", -(-count // 8)), count=count).astype(np.bool_)
