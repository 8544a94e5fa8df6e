"""Weights in the precision in which they are executed, as the arrays of a file, and back. Needs no torch.

What a ``CompressReport`` counts of a matrix is what is stored: int8 stays int8 with its scales, and zeros are left out
where a bitmask is smaller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import codec
from ..codec import Arrays
from ..errors import ModelFileError
from ..policies import ColumnPolicy
from ..types import Site, StackShape
from ..weights.matrices import CellMatrices, Matrix
from ..weights.precision import MAX_LEVELS, Precision, Quantize
from . import sparse

_DTYPES: dict[Precision, str] = {"fp32": "float32", "bf16": "uint16", "int8": "int8"}
_KINDS = ("w_ih", "w_hh", "w_hr")


@dataclass(frozen=True)
class _Sent:
    """How the activations of an int8 matrix are sent: the fields of ``Matrix`` that are no arrays."""

    levels: int
    column_scale: bool
    dynamic: bool


def write_matrices(cells: Sequence[CellMatrices], at: str, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Add weights to ``arrays``, with names that begin with ``at``; returns what else ``read_matrices`` needs."""
    return [_write_cell(weights, f"{at}.{cell}", arrays) for cell, weights in enumerate(cells)]


def _write_cell(weights: CellMatrices, at: str, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    said: dict[str, Any] = {}
    for kind in _KINDS:
        matrix: Matrix | None = getattr(weights, kind)
        if matrix is None:
            continue
        name, values = f"{at}.{kind}", matrix.values
        sparse.put(name, values + np.float32(0) if values.dtype.kind == "f" else values, arrays)  # -0.0 becomes 0.0
        if matrix.scale is None:
            continue
        arrays[f"{name}.scale"] = matrix.scale
        if matrix.column_scale is not None:
            arrays[f"{name}.columns"] = matrix.column_scale
        sent = _Sent(matrix.levels, matrix.column_scale is not None, matrix.dynamic)
        said[kind] = codec.encode(sent, name, arrays)
    arrays[f"{at}.bias"] = weights.bias
    if weights.live is not None and weights.constant is not None:
        sparse.put_bits(f"{at}.live", weights.live, arrays)
        sparse.put(f"{at}.constant", weights.constant, arrays)
    return said


def read_matrices(
    found: object, shape: StackShape, quantize: Quantize, columns: ColumnPolicy, at: str, arrays: Arrays
) -> tuple[CellMatrices, ...]:
    """The weights of every cell of a stack.

    Args:
        found: what ``write_matrices`` has returned.
        shape, quantize, columns: of the stack; ``columns``: which columns it may skip.
        at: as for ``write_matrices``.
        arrays: of the file.

    Raises:
        ModelFileError: weights are missing, of another shape or precision, or impossible.
    """
    if not isinstance(found, list) or len(found) != shape.num_cells:
        raise codec.unexpected(found, at, f"a list of {shape.num_cells} cells")
    return tuple(
        _read_cell(codec.mapping(said, f"{at}.{cell}"), shape, quantize, columns, cell, f"{at}.{cell}", arrays)
        for cell, said in enumerate(found)
    )


def _read_cell(
    said: dict[str, Any],
    shape: StackShape,
    quantize: Quantize,
    columns: ColumnPolicy,
    cell: int,
    at: str,
    arrays: Arrays,
) -> CellMatrices:
    gates = 4 * shape.hidden_size
    unread = set(said)

    def matrix(kind: str, rows: int, width: int, thresholded: bool) -> Matrix:
        precision = quantize.of(shape, kind.replace("w_", "weight_"), cell)
        values = sparse.take(f"{at}.{kind}", _DTYPES[precision], (rows, width), arrays)
        if precision != "int8":
            return _finite(Matrix(values), f"{at}.{kind}")
        unread.discard(kind)
        sent: _Sent = codec.decode(_Sent, said.get(kind), f"{at}.{kind}", arrays)
        scale = _positive(f"{at}.{kind}.scale", rows, arrays)
        column_scale = _positive(f"{at}.{kind}.columns", width, arrays) if sent.column_scale else None
        return _check(Matrix(values, scale, sent.levels, column_scale, sent.dynamic), f"{at}.{kind}", thresholded)

    skips = {operand: columns.thresholded(Site(shape, cell, operand)) for operand in ("x", "h")}
    w_ih = matrix("w_ih", gates, shape.input_width(cell), skips["x"])
    w_hh = matrix("w_hh", gates, shape.output_size, skips["h"])
    w_hr = matrix("w_hr", shape.proj_size, shape.hidden_size, False) if shape.proj_size else None
    if unread:
        raise codec.unexpected(sorted(said), at, "the int8 matrices of the cell")
    live = sparse.take_bits(f"{at}.live", shape.hidden_size, arrays)
    constant = None if live is None else sparse.take(f"{at}.constant", "float32", (shape.hidden_size,), arrays)
    bias = arrays.take(f"{at}.bias", "float32", gates)
    for name, array in (("bias", bias), ("constant", constant)):
        if array is not None and not np.isfinite(array).all():
            raise ModelFileError(f"{at}.{name}: it holds NaN or infinity, expected finite numbers")
    return CellMatrices(w_ih, w_hh, bias, w_hr, live, constant)


def _check(matrix: Matrix, at: str, thresholded: bool) -> Matrix:
    """An int8 matrix, if the core can execute it."""
    most = min(MAX_LEVELS, (2**31 - 1) // (255 * max(matrix.values.shape[1], 1)))  # the sums are 32-bit integers
    ranged = matrix.dynamic or matrix.column_scale is not None
    if not (1 if ranged else 0) <= matrix.levels <= most:
        raise ModelFileError(f"{at}: got {matrix.levels} levels, expected {1 if ranged else 0} to {most}")
    if matrix.dynamic and (thresholded or matrix.column_scale is not None):
        raise ModelFileError(f"{at}: got a dynamic range beside thresholds or ranges of columns, expected one of them")
    if (matrix.values == -128).any():
        raise ModelFileError(f"{at}: got a weight of -128, expected -127 to 127")
    return _finite(matrix, at)


def _finite(matrix: Matrix, at: str) -> Matrix:
    with np.errstate(over="ignore"):
        finite = np.isfinite(matrix.dequantized()).all()
    if not finite:
        raise ModelFileError(f"{at}: it holds NaN or infinity, expected finite weights")
    return matrix


def _positive(name: str, count: int, arrays: Arrays) -> np.ndarray:
    array = arrays.take(name, "float32", count)
    if not (np.isfinite(array) & (array > 0)).all():
        raise ModelFileError(f"{name}: got scales that are not positive, expected positive numbers")
    return array
