"""The matrices of a layer as the exported engine reads them: which rows and columns, in which order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..codec import short_repr
from ..types import FloatArray
from ..weights.layout import GATES
from ..weights.matrices import Matrix

QUAD, PADDED = 4, 8  # columns that a dot product takes at once, and in a turn of its loop
FORMATS = {"fp32": "F32", "bf16": "BF16", "int8": "S8"}


@short_repr
@dataclass(frozen=True, eq=False)
class Operand:
    """W_ih or W_hh of a layer, without what is never computed; rows in unit order, the four gates of each together.

    ``weights``: [4 * units, pitch], or [columns, 4 * units] where a threshold is set.
    ``scale`` [4 * units]: of int8; else None.
    ``kept`` [columns]: which values of the operand the columns read; ``all``: those are all of them, in their order.
    ``factor``, ``step``, ``thresholds`` [columns]: as in ``alstm_operand`` of ``c/alstm_model.h``; or None.
    """

    weights: np.ndarray
    scale: FloatArray | None
    kept: npt.NDArray[np.int64]
    all: bool
    factor: FloatArray | None
    step: FloatArray | None
    thresholds: FloatArray | None
    levels: int
    format: str
    own_range: bool

    @property
    def columns(self) -> int:
        """How many columns are computed."""
        return len(self.kept)

    @property
    def pitch(self) -> int:
        """Elements from one row to the next; columns up to it are zeros."""
        return _padded(self.columns) if self.format == "S8" else self.columns

    @property
    def integers(self) -> bool:
        """Whether activations are integers."""
        return self.format == "S8"

    @property
    def nbytes(self) -> int:
        """Bytes of everything."""
        rest = sum(a.nbytes for a in (self.scale, self.factor, self.step, self.thresholds) if a is not None)
        return int(self.weights.nbytes + rest + (0 if self.all else 2 * self.columns))


def operand(
    matrix: Matrix,
    live: npt.NDArray[np.int64],
    thresholds: FloatArray | None,
    *,
    leave_out_zeros: bool,
    quads: bool,
) -> Operand:
    """A matrix of gates as the engine reads it.

    Args:
        matrix: [4H, columns], gates in torch's order.
        live: the units that are computed, ascending.
        thresholds: [columns], or None: every column is sent.
        leave_out_zeros: whether columns of zeros are left out.
        quads: whether the rows of a unit lie as the DSP instructions of Armv7E-M want them.
    """
    values = matrix.values[unit_rows(live, len(matrix.values) // len(GATES))]
    used = (values != 0).any(axis=0) if leave_out_zeros else np.ones(values.shape[1], np.bool_)
    kept = np.flatnonzero(used)
    values, integers = values[:, kept], matrix.scale is not None and matrix.levels > 0
    scale, factor, step = None, None, None
    if matrix.scale is not None:
        scale = matrix.scale[unit_rows(live, len(matrix.scale) // len(GATES))]
        scale = scale * (np.float32(1) / np.float32(matrix.levels) if integers else np.float32(1))
    if integers and matrix.column_scale is not None:
        factor = np.float32(matrix.levels) / matrix.column_scale[kept]
        step = matrix.column_scale[kept] / np.float32(matrix.levels)
    if thresholds is not None:
        values = np.ascontiguousarray(values.T)
    elif integers:
        values = np.pad(values, ((0, 0), (0, _padded(len(kept)) - len(kept))))
        values = _in_quads(values) if quads else values
    return Operand(
        weights=values,
        scale=scale,
        kept=kept,
        all=bool(used.all()),
        factor=factor,
        step=step,
        thresholds=None if thresholds is None else thresholds[kept],
        levels=matrix.levels,
        format="S8_FLOAT" if matrix.scale is not None and not integers else FORMATS[matrix.precision],
        own_range=matrix.dynamic,
    )


def unit_rows(live: npt.NDArray[np.int64], hidden: int) -> npt.NDArray[np.int64]:
    """The gate rows of some units, unit by unit."""
    return (live[:, None] + hidden * np.arange(len(GATES))).ravel()


def _in_quads(values: np.ndarray) -> np.ndarray:
    """The rows of every unit by fours of columns; the second and third of four change places."""
    parts = values.reshape(-1, len(GATES), values.shape[1] // QUAD, QUAD)[..., [0, 2, 1, 3]]
    return np.ascontiguousarray(parts.swapaxes(1, 2)).reshape(values.shape)


def _padded(columns: int) -> int:
    return max(-(-columns // PADDED) * PADDED, PADDED)
