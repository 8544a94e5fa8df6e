"""Digests of inputs by value: what holds the same numbers has the same digest, in whatever object they come.

Numbers count, not how they are kept: neither dtype, layout, nor the sign of zero, nor the bits of a NaN, nor
dimensions of size 1, nor the class of a container or of a tensor. An object of an unknown class is what pickling it
would store, which is read and never executed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import PackedSequence

from ..errors import CalibrationError, InputError

_NUMBERS = (bool, int, float, complex, np.generic)


def fingerprint(inputs: Any) -> str:
    """SHA-256 of an input by value.

    Raises:
        CalibrationError: it holds an object whose values cannot be read.
    """
    digest = hashlib.sha256()
    for part in _parts(inputs, ()):
        digest.update(part)
    return digest.hexdigest()


def fingerprint_of_all(sequences: Iterable[str]) -> str:
    """SHA-256 of a set of fingerprints, in any order."""
    return hashlib.sha256("".join(sorted(sequences)).encode()).hexdigest()


def _parts(value: Any, inside: tuple[int, ...]) -> Iterator[bytes]:
    """What a value is made of; inside: ids of the objects that hold it."""
    if id(value) in inside:
        yield b"itself"
    elif value is None or isinstance(value, str | bytes | bytearray | memoryview):
        yield repr(bytes(value) if isinstance(value, bytearray | memoryview) else value).encode()
    elif isinstance(value, PackedSequence):
        yield from _of_packed(value)
    elif isinstance(value, torch.Tensor):
        yield from _of_tensor(value)
    elif isinstance(value, (np.ndarray, *_NUMBERS)):
        yield from _of_array(np.asarray(value))
    else:
        yield from _of_object(value, (*inside, id(value)))


def _of_object(value: Any, inside: tuple[int, ...]) -> Iterator[bytes]:
    if isinstance(value, Mapping):
        yield from _named(value.items(), inside)
    elif isinstance(value, set | frozenset):
        yield from sorted(fingerprint(one).encode() for one in value)
    elif is_dataclass(value) and not isinstance(value, type):
        yield from _named(((field.name, getattr(value, field.name, None)) for field in fields(value)), inside)
    elif (array := _as_array(value)) is not None:
        yield from _of_array(array)
    elif not isinstance(value, type) and _is_row(value):
        yield from _row(value, inside)
    else:
        yield from _pickled(value, inside)


def _named(items: Iterable[tuple[Any, Any]], inside: tuple[int, ...]) -> Iterator[bytes]:
    """Names with values, in any order."""
    yield b"{"
    yield from sorted(b":".join((fingerprint(key).encode(), *_parts(one, inside))) for key, one in items)
    yield b"}"


def _is_row(value: Any) -> bool:
    return hasattr(value, "__len__") and hasattr(value, "__getitem__") and hasattr(value, "__iter__")


def _row(values: Any, inside: tuple[int, ...]) -> Iterator[bytes]:
    """Values in their order; numbers alone are an array."""
    values = list(values)
    if values and all(isinstance(one, _NUMBERS) for one in values):
        yield from _of_array(np.array(values))
        return
    yield f"({len(values)}".encode()
    for one in values:
        yield from _parts(one, inside)


def _as_array(value: Any) -> np.ndarray | None:
    """The array that an object says it is."""
    return np.asarray(value) if hasattr(type(value), "__array__") else None


def _pickled(value: Any, inside: tuple[int, ...]) -> Iterator[bytes]:
    """What pickling an object would store; nothing is imported, called or executed to read it."""
    if isinstance(value, type) or callable(value):
        yield f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}".encode()
        if not hasattr(value, "__dict__") or isinstance(value, type):
            return
    try:
        stored = value.__reduce_ex__(4)
    except Exception as error:  # any class may define it
        raise CalibrationError(
            f"sequences: got a {type(value).__name__} whose values cannot be read ({error}), so duplicates cannot be "
            "told; expected tensors, arrays, numbers, text, and containers of them"
        ) from error
    if isinstance(stored, str):
        yield stored.encode()
        return
    _, arguments, state, *rows = (*stored, None)[: max(3, len(stored))]
    yield from _named(state.items(), inside) if isinstance(state, dict) else _parts(state, inside)
    yield from _row([one for one in arguments if not isinstance(one, type)], inside)
    for row in rows:
        yield from _row([] if row is None else row, inside)


# ------------------------------------------------------------------------------------------------------------- numbers


def _of_packed(packed: PackedSequence) -> Iterator[bytes]:
    yield from _of_tensor(packed.data)
    if int(packed.batch_sizes[0]) > 1:  # one sequence alone is its rows
        yield from _of_tensor(packed.batch_sizes)


def _of_tensor(tensor: torch.Tensor) -> Iterator[bytes]:
    if tensor.is_meta:
        raise InputError("inputs: got a tensor on the meta device, which holds no values, expected its values")
    plain = tensor.detach()
    if plain.is_nested:
        yield from _row(plain.unbind(), ())
        return
    if plain.layout is not torch.strided:
        plain = plain.to_dense()
    if plain.is_quantized:
        plain = plain.dequantize()
    if plain.is_complex():
        plain = plain.to(torch.complex128)
    elif plain.is_floating_point():
        plain = plain.double()
    copy = plain.resolve_conj().resolve_neg().cpu().clone()  # no array shares the memory of a parameter
    yield from _of_array(copy.numpy())


def _of_array(array: np.ndarray) -> Iterator[bytes]:
    """Sizes and values; all numbers as float64 where that holds them exactly."""
    if array.dtype.kind not in "biufc":
        yield from _row(array.tolist(), ()) if array.ndim else _parts(array.tolist(), ())
        return
    yield f"[{', '.join(str(n) for n in array.shape if n != 1)}]".encode()
    if array.dtype.kind == "c" and not np.any(array.imag):
        array = array.real
    if array.dtype.kind == "c":
        numbers = np.stack([array.real, array.imag]).astype(np.float64)
        rest = np.zeros(())
    else:
        with np.errstate(over="ignore"):
            numbers = array.astype(np.float64)
        rest = _beyond(array, numbers)
    numbers = np.where(np.isnan(numbers), np.nan, numbers + 0.0)  # one NaN, one zero
    yield np.ascontiguousarray(numbers).tobytes()
    if np.any(rest):
        yield repr(array.tolist()).encode()


def _beyond(array: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Where float64 does not hold the numbers exactly."""
    if array.dtype.kind in "bf" and array.dtype.itemsize <= 8:
        return np.zeros(())
    if array.dtype.kind in "iu":
        return np.asarray(np.abs(numbers) >= 2.0**53)
    return np.asarray((numbers.astype(array.dtype) != array) & ~np.isnan(array))
