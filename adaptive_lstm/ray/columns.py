"""Columns of a batch as Ray hands them to functions: sequences out of them, checked, and new ones beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..codec import brief, is_whole
from ..errors import InputError
from ..runtime.arrays import floats
from ..types import FloatArray

Batch = Mapping[str, Any]

MOST_NAMED = 3  # columns that tell which row is meant


def column_of(batch: Batch, name: str, parameter: str) -> Any:
    """A column of a batch.

    Raises:
        InputError: it is not there, or the batch is no mapping.
    """
    if not isinstance(batch, Mapping):
        raise InputError(
            f"batch: got {type(batch).__name__}, expected a dict of arrays; call map_batches with "
            'batch_format="numpy", which is its default'
        )
    if name not in batch:
        raise InputError(
            f"batch: got columns {_listed(batch)}, expected {name!r}; name yours in fn_constructor_kwargs: "
            f'{{"{parameter}": ...}}'
        )
    return batch[name]


def sequences_of(batch: Batch, name: str, width: int, lengths: str | None) -> list[FloatArray]:
    """Every row's sequence [T, I]; those of a padded column are cut to their lengths.

    Args:
        batch: its columns by name.
        name: of the column: an array [N, T, I] of numbers, or [N] objects, each [T, I] in arrays or nested lists; where
            I is 1 also without that axis.
        width: I.
        lengths: the column [N] of timesteps; None: all of them.

    Raises:
        InputError: a column is missing, or a row is null, empty, ragged, of another width, or holds no numbers.
    """
    column = column_of(batch, name, "sequences")
    if not len(column):
        return []
    if isinstance(column, np.ndarray) and column.dtype != object:  # rows of one shape, so that one tells of all
        _sequence(column[0], width, lambda: f"{name}: {row_name(batch, 0)}")
        column = floats(column, name)
    found = [_sequence(one, width, lambda i=i: f"{name}: {row_name(batch, i)}") for i, one in enumerate(column)]  # type: ignore[misc]
    return found if lengths is None else list(_cut(found, batch, lengths))


def row_name(batch: Batch, i: int) -> str:
    """Row ``i`` of a batch for people: its number, and what stands in its first columns of numbers or words."""
    told = list[str]()
    for name, column in batch.items():
        one = column[i]
        if isinstance(one, str | int | float | np.number) and one == one and len(told) < MOST_NAMED:
            told.append(f"{name}={brief(one.item() if isinstance(one, np.number) else one)}")
    return f"row {i} of the batch" + (f" ({', '.join(told)})" if told else "")


def objects(values: Sequence[Any]) -> np.ndarray:
    """A column [N] of one object per row, whatever their shapes."""
    column = np.empty(len(values), object)
    for i, value in enumerate(values):
        column[i] = value
    return column


def _sequence(value: Any, width: int, where: Callable[[], str]) -> FloatArray:
    """One sequence; ``where`` tells whose."""
    if isinstance(value, np.ndarray) and value.dtype == np.float32 and value.ndim == 2 and value.shape[1] == width:
        if len(value):
            return value
    elif value is None or (isinstance(value, float) and value != value):
        raise InputError(
            f"{where()}: got null, {_expected(width)}; leave such rows out before: ds.filter(lambda row: ...)"
        )
    try:
        given = _array(value)
        if given.ndim and not given.size and not len(given):
            raise InputError(f"got no timestep, {_expected(width)}, T at least 1; leave such rows out before")
        array = floats(given, "sequence")
    except InputError as error:
        raise InputError(f"{where()}: {error}") from None
    whole = array[:, None] if width == 1 and array.ndim == 1 else array
    if whole.ndim != 2 or whole.shape[1] != width or not len(whole):
        raise InputError(f"{where()}: got shape {array.shape}, {_expected(width)}")
    return whole


def _array(value: Any) -> np.ndarray:
    """Nested lists as an array. Raises ``InputError`` where timesteps are null or differ in width."""
    if isinstance(value, np.ndarray) and value.dtype == object and value.ndim == 1 and len(value):
        try:
            return np.stack(value.tolist())
        except (TypeError, ValueError):
            kinds = {"null" if one is None else f"width {np.size(one)}" for one in value}
            raise InputError(f"got timesteps of {' and '.join(sorted(kinds))}, expected one width") from None
    try:
        return np.asarray(value)
    except (TypeError, ValueError):
        raise InputError(f"got {brief(value)}, expected numbers [T, I]") from None


def _cut(sequences: Sequence[FloatArray], batch: Batch, name: str) -> Iterator[FloatArray]:
    for i, (x, n) in enumerate(zip(sequences, column_of(batch, name, "lengths"), strict=True)):
        if not (is_whole(n) and 1 <= n <= len(x)):
            where = f"{name}: {row_name(batch, i)}"
            raise InputError(f"{where}: got {brief(n)}, expected a whole number from 1 to {len(x)}")
        yield x[:n]


def _expected(width: int) -> str:
    return f"expected [T, {width}]" + (" or [T]" if width == 1 else "")


def _listed(batch: Batch) -> str:
    return ", ".join(map(repr, batch)) or "none"
