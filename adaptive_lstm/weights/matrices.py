"""Weight matrices as plain arrays, in the precision in which they are executed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..types import FloatArray, StackShape
from .layout import CellTensors


@dataclass(frozen=True, eq=False)
class Matrix:
    """One weight matrix in the precision in which it is executed.

    ``values`` [rows, columns]: float32, uint16 (the bits of bfloat16) or int8.
    ``scale`` [rows]: of int8 values; else None.
    ``levels``: activations are sent as integers round(z * levels); 0: as floats.
    ``column_scale`` [columns]: activations are sent as round(z / column_scale * levels) instead, and ``values`` encode
    weights that were multiplied by it; or None.
    ``dynamic``: activations are sent as round(z / m * levels), m the largest magnitude of the row that z belongs to.
    """

    values: np.ndarray
    scale: FloatArray | None = None
    levels: int = 0
    column_scale: FloatArray | None = None
    dynamic: bool = False

    @property
    def precision(self) -> str:
        """``"fp32"``, ``"bf16"`` or ``"int8"``."""
        return {"float32": "fp32", "uint16": "bf16", "int8": "int8"}[self.values.dtype.name]

    @property
    def nbytes(self) -> int:
        """Bytes of the values and their scales."""
        return int(self.values.nbytes + sum(s.nbytes for s in (self.scale, self.column_scale) if s is not None))

    def dequantized(self) -> FloatArray:
        """The float32 matrix that the values encode."""
        if self.values.dtype == np.uint16:
            return (self.values.astype(np.uint32) << 16).view(np.float32)
        values = self.values.astype(np.float32)
        if self.scale is not None:
            values *= self.scale[:, None]
        if self.column_scale is not None:
            values /= self.column_scale
        return values


@dataclass(frozen=True, eq=False)
class CellMatrices:
    """Weights of one layer and direction as a backend executes them.

    ``w_ih``, ``w_hh``: the matrices. Rows of pruned units and columns that read them hold zeros.
    ``bias`` [4H]: float32.
    ``w_hr``: the projection, or None.
    ``live`` [H] bool, ``constant`` [H] float32: as in ``CellTensors``.
    """

    w_ih: Matrix
    w_hh: Matrix
    bias: FloatArray
    w_hr: Matrix | None
    live: npt.NDArray[np.bool_] | None = None
    constant: FloatArray | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of everything."""
        return self.w_ih.nbytes + self.w_hh.nbytes + self.bias.nbytes + (self.w_hr.nbytes if self.w_hr else 0)


def same_bits(a: CellMatrices, b: CellMatrices) -> bool:
    """Whether two cells are executed alike; signs of zeros do not matter."""

    def same(one: Any, other: Any) -> bool:
        if one is None or other is None:
            return one is other
        if isinstance(one, Matrix):
            return all(map(same, vars(one).values(), vars(other).values()))
        return bool(np.array_equal(one, other))

    return all(map(same, vars(a).values(), vars(b).values()))


def live_units(shape: StackShape, weights: Sequence[CellTensors | CellMatrices]) -> tuple[int, ...]:
    """How many units are not pruned, for every layer and direction; empty where none is pruned anywhere."""
    if all(w.live is None for w in weights):
        return ()
    return tuple(shape.hidden_size if w.live is None else int(w.live.sum()) for w in weights)
