"""Weight matrices as plain arrays, in the precision in which they are executed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..types import FloatArray, StackShape
from .layout import CellTensors


@dataclass(frozen=True, eq=False)
class Matrix:
    """One weight matrix in the precision that it is executed in.

    ``values`` [rows, columns]: float32, uint16 (the bits of bfloat16) or int8; ``scale`` [rows] for int8, else None;
    ``levels``: activations are sent as integers round(z * levels), or 0: as floats. ``column_scale`` [columns] or None:
    they are sent as round(z / column_scale * levels), and ``values`` stand for weights that were multiplied by it.
    ``dynamic``: they are sent as round(z / m * levels) with the largest magnitude m of the row that z belongs to.
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
        """The float32 matrix that these values stand for."""
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
    """Weights of one layer and direction as a backend executes them; ``bias`` [4H] stays in float32.

    ``fixed`` [H] as in ``CellTensors``. Rows of pruned units and columns that read them hold zeros.
    """

    w_ih: Matrix
    w_hh: Matrix
    bias: FloatArray
    w_hr: Matrix | None
    fixed: FloatArray | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of everything."""
        return self.w_ih.nbytes + self.w_hh.nbytes + self.bias.nbytes + (self.w_hr.nbytes if self.w_hr else 0)

    def tensors(self, dtype: torch.dtype, device: torch.device) -> CellTensors:
        """The same numbers as tensors, for the reference executor."""

        def tensor(array: FloatArray) -> torch.Tensor:
            return torch.from_numpy(array).to(device=device, dtype=dtype)

        return CellTensors(
            w_ih=tensor(self.w_ih.dequantized()),
            w_hh=tensor(self.w_hh.dequantized()),
            bias=tensor(self.bias),
            w_hr=tensor(self.w_hr.dequantized()) if self.w_hr else None,
            x_levels=self.w_ih.levels,
            h_levels=self.w_hh.levels,
            x_scale=None if self.w_ih.column_scale is None else torch.from_numpy(self.w_ih.column_scale).to(device),
            x_dynamic=self.w_ih.dynamic,
            fixed=None if self.fixed is None else tensor(self.fixed),
        )


def live_units(shape: StackShape, weights: Sequence[CellTensors | CellMatrices]) -> tuple[int, ...]:
    """Units that are not pruned, for every layer and direction; empty where none is pruned anywhere."""
    fixed = [w.fixed for w in weights]
    if all(f is None for f in fixed):
        return ()
    return tuple(shape.hidden_size if f is None else sum(map(math.isnan, f.tolist())) for f in fixed)
