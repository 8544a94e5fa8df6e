"""Weights in the precision in which they are executed, as the arrays of a file, and back. Needs no torch.

What a ``CompressReport`` counts of a matrix is what is stored: int8 stays int8 with its scales, and zeros are left out
where a bitmask is smaller.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..codec import Arrays
from ..errors import ModelFileError
from ..policies import ColumnPolicy
from ..types import StackShape, sites
from ..weights.matrices import CellMatrices, Matrix
from ..weights.precision import Precision, Quantize
from ..weights.quantization import int8_matrix, sent_to
from . import sparse

_DTYPES: dict[Precision, str] = {"fp32": "float32", "bf16": "uint16", "int8": "int8"}
_KINDS = ("w_ih", "w_hh", "w_hr")


def write_matrices(cells: Sequence[CellMatrices], at: str, arrays: dict[str, np.ndarray]) -> None:
    """Add weights to ``arrays``, with names that begin with ``at``; how activations are sent follows from settings."""
    for cell, weights in enumerate(cells):
        _write_cell(weights, f"{at}.{cell}", arrays)


def _write_cell(weights: CellMatrices, at: str, arrays: dict[str, np.ndarray]) -> None:
    for kind in _KINDS:
        matrix: Matrix | None = getattr(weights, kind)
        if matrix is None:
            continue
        name, values = f"{at}.{kind}", matrix.values
        sparse.put(name, values + np.float32(0) if values.dtype.kind == "f" else values, arrays)  # -0.0 becomes 0.0
        if matrix.scale is not None:
            arrays[f"{name}.scale"] = matrix.scale
    arrays[f"{at}.bias"] = weights.bias
    if weights.live is not None and weights.constant is not None:
        sparse.put_bits(f"{at}.live", weights.live, arrays)
        sparse.put(f"{at}.constant", weights.constant, arrays)


def read_matrices(
    shape: StackShape, quantize: Quantize, columns: ColumnPolicy, at: str, arrays: Arrays
) -> tuple[CellMatrices, ...]:
    """The weights of every cell of a stack, as they are executed.

    Args:
        shape, quantize, columns: of the stack; ``columns``: which columns it may skip.
        at: as for ``write_matrices``.
        arrays: of the file.

    Raises:
        ModelFileError: weights are missing, of another shape or precision, or impossible.
    """
    thresholded = {site for site in sites(shape) if columns.thresholded(site)}

    def matrix(kind: str, cell: int, rows: int, width: int) -> Matrix:
        name, weight = f"{at}.{cell}.{kind}", kind.replace("w_", "weight_")
        precision = quantize.of(shape, weight, cell)
        values = sparse.take(name, _DTYPES[precision], (rows, width), arrays)
        if precision != "int8":
            return _finite(Matrix(values), name)
        if (values == -128).any():
            raise ModelFileError(f"{name}: got a weight of -128, expected -127 to 127")
        scale = _positive(f"{name}.scale", rows, arrays)
        return _finite(int8_matrix(values, scale, *sent_to(weight, cell, shape, quantize, thresholded)), name)

    def stored(cell: int) -> CellMatrices:
        gates, hidden, name = 4 * shape.hidden_size, shape.hidden_size, f"{at}.{cell}"
        w_ih = matrix("w_ih", cell, gates, shape.input_width(cell))
        w_hh = matrix("w_hh", cell, gates, shape.output_size)
        w_hr = matrix("w_hr", cell, shape.proj_size, hidden) if shape.proj_size else None
        live = sparse.take_bits(f"{name}.live", hidden, arrays)
        constant = None if live is None else sparse.take(f"{name}.constant", "float32", (hidden,), arrays)
        bias = arrays.take(f"{name}.bias", "float32", gates)
        for what, array in (("bias", bias), ("constant", constant)):
            if array is not None and not np.isfinite(array).all():
                raise ModelFileError(f"{name}.{what}: it holds NaN or infinity, expected finite numbers")
        return CellMatrices(w_ih, w_hh, bias, w_hr, live, constant)

    return tuple(stored(cell) for cell in range(shape.num_cells))


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
