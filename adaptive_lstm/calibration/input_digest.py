"""Digests of inputs by value: what holds the same numbers has the same digest, in whatever object they come.

Numbers count, not how they are kept: neither dtype, layout, nor the sign of zero, nor the bits of a NaN, nor
dimensions of size 1, nor the class of a container or of a tensor. An object of an unknown class is what pickling it
would store, which is read and never executed.

Where an input holds arrays of more than one number, nothing else of it counts: names, texts and numbers beside them may
be labels, which would tell copies of one sequence apart.
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
    return _sha256(_ARRAYS.parts(inputs, ())) or _sha256(_ALL.parts(inputs, ()))


def fingerprint_of_all(sequences: Iterable[str]) -> str:
    """SHA-256 of a set of fingerprints, in any order."""
    return hashlib.sha256("".join(sorted(sequences)).encode()).hexdigest()


def _sha256(parts: Iterable[bytes]) -> str:
    """Of what parts say one after another; empty where they say nothing."""
    said = [part for part in parts if part]
    digest = hashlib.sha256()
    for part in said:
        digest.update(part)
    return digest.hexdigest() if said else ""


class _Reader:
    """Reads values of any class; ``inside``: ids of the objects that hold one.

    Args:
        labels: read everything; without, arrays of more than one number.
    """

    def __init__(self, *, labels: bool):
        self._labels = labels

    def parts(self, value: Any, inside: tuple[int, ...]) -> Iterator[bytes]:
        """What a value is made of."""
        if id(value) in inside:
            yield from self._said("itself")
        elif value is None or isinstance(value, str | bytes | bytearray | memoryview):
            yield from self._said(repr(bytes(value) if isinstance(value, bytearray | memoryview) else value))
        elif isinstance(value, PackedSequence):
            yield from self._tensor(value.data)
            if int(value.batch_sizes[0]) > 1:  # one sequence alone is its rows
                yield from self._tensor(value.batch_sizes)
        elif isinstance(value, torch.Tensor):
            yield from self._tensor(value)
        elif isinstance(value, (np.ndarray, *_NUMBERS)):
            yield from self._array(np.asarray(value))
        else:
            yield from self._object(value, (*inside, id(value)))

    def _said(self, text: str) -> Iterator[bytes]:
        if self._labels:
            yield text.encode()

    def _object(self, value: Any, inside: tuple[int, ...]) -> Iterator[bytes]:
        if isinstance(value, Mapping):
            yield from self._named(value.items(), inside)
        elif isinstance(value, set | frozenset):
            yield from sorted(b"".join(self.parts(one, inside)) for one in value)
        elif is_dataclass(value) and not isinstance(value, type):
            yield from self._named(((field.name, getattr(value, field.name, None)) for field in fields(value)), inside)
        elif (array := _as_array(value)) is not None:
            yield from self._array(array)
        elif not isinstance(value, type) and _is_row(value):
            yield from self._row(value, inside)
        else:
            yield from self._pickled(value, inside)

    def _named(self, items: Iterable[tuple[Any, Any]], inside: tuple[int, ...]) -> Iterator[bytes]:
        """Names with values, in any order."""
        yield from self._said("{")
        read = ((fingerprint(key).encode() if self._labels else b"", self.parts(one, inside)) for key, one in items)
        yield from sorted(b":".join((key, *parts)) if self._labels else b"".join(parts) for key, parts in read)
        yield from self._said("}")

    def _row(self, values: Any, inside: tuple[int, ...]) -> Iterator[bytes]:
        """Values in their order; numbers alone are an array, also of several dimensions."""
        values = list(values)
        if values and all(isinstance(one, _NUMBERS) for one in values):
            yield from self._array(np.array(values))
        elif not self._labels and (array := _table(values)) is not None:
            yield from self._array(array)
        else:
            yield from self._each(values, inside)

    def _each(self, values: list[Any], inside: tuple[int, ...]) -> Iterator[bytes]:
        yield from self._said(f"({len(values)}")
        for one in values:
            yield from self.parts(one, inside)

    def _pickled(self, value: Any, inside: tuple[int, ...]) -> Iterator[bytes]:
        """What pickling an object would store; nothing is imported, called or executed to read it."""
        if isinstance(value, type) or callable(value):
            name = getattr(value, "__qualname__", type(value).__qualname__)
            yield from self._said(f"{getattr(value, '__module__', '')}.{name}")
            if not hasattr(value, "__dict__") or isinstance(value, type):
                return
        try:
            stored = value.__reduce_ex__(4)
        except Exception as error:  # any class may define it
            raise CalibrationError(
                f"sequences: got a {type(value).__name__} whose values cannot be read ({error}), so duplicates cannot "
                "be told; expected tensors, arrays, numbers, text, and containers of them"
            ) from error
        if isinstance(stored, str):
            yield from self._said(stored)
            return
        _, arguments, state, *rows = (*stored, None)[: max(3, len(stored))]
        yield from self._named(state.items(), inside) if isinstance(state, dict) else self.parts(state, inside)
        yield from self._each([one for one in arguments if not isinstance(one, type)], inside)
        for row in rows:
            yield from self._row([] if row is None else row, inside)

    def _tensor(self, tensor: torch.Tensor) -> Iterator[bytes]:
        if tensor.is_meta:
            raise InputError("inputs: got a tensor on the meta device, which holds no values, expected its values")
        plain = tensor.detach()
        if plain.is_nested:
            yield from self._row(plain.unbind(), ())
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
        yield from self._array(copy.numpy())

    def _array(self, array: np.ndarray) -> Iterator[bytes]:
        if array.dtype.names:
            yield from self._named(((name, array[name]) for name in array.dtype.names), ())
        elif array.dtype.kind in "biufc":
            if self._labels or array.size > 1:
                yield from _of_numbers(array)
        elif self._labels or array.dtype.kind != "O":
            yield from self._row(array.tolist(), ()) if array.ndim else self.parts(array.tolist(), ())
        else:  # a table of numbers and labels
            values = array.ravel().tolist()
            yield from self._row([one for one in values if isinstance(one, _NUMBERS)], ())
            yield from self._each([one for one in values if not isinstance(one, _NUMBERS)], ())


_ALL, _ARRAYS = _Reader(labels=True), _Reader(labels=False)


def _is_row(value: Any) -> bool:
    return hasattr(value, "__len__") and hasattr(value, "__getitem__") and hasattr(value, "__iter__")


def _as_array(value: Any) -> np.ndarray | None:
    """The array that an object says it is."""
    return np.asarray(value) if hasattr(type(value), "__array__") else None


def _table(values: list[Any]) -> np.ndarray | None:
    """Lists of numbers in lists as an array; None if they are something else, or of unequal lengths."""
    try:
        return np.array(values) if values and all(map(_of_numbers_alone, values)) else None
    except ValueError:
        return None


def _of_numbers_alone(value: Any) -> bool:
    return isinstance(value, _NUMBERS) or (isinstance(value, list | tuple) and all(map(_of_numbers_alone, value)))


# ------------------------------------------------------------------------------------------------------------- numbers


def _of_numbers(array: np.ndarray) -> Iterator[bytes]:
    """Sizes and values; all numbers as float64 where that holds them exactly."""
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
