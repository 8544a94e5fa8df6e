"""Quantized weights as tensors: what the reference executes is what the native core executes."""

from __future__ import annotations

import torch

from ..types import FloatArray
from ..weights.layout import CellTensors
from ..weights.matrices import CellMatrices


def dequantized(cell: CellMatrices, dtype: torch.dtype, device: torch.device) -> CellTensors:
    """The numbers that a cell's matrices encode, as tensors."""

    def tensor(array: FloatArray) -> torch.Tensor:
        return torch.from_numpy(array).to(device=device, dtype=dtype)

    return CellTensors(
        w_ih=tensor(cell.w_ih.dequantized()),
        w_hh=tensor(cell.w_hh.dequantized()),
        bias=tensor(cell.bias),
        w_hr=tensor(cell.w_hr.dequantized()) if cell.w_hr else None,
        x_levels=cell.w_ih.levels,
        h_levels=cell.w_hh.levels,
        x_scale=None if cell.w_ih.column_scale is None else torch.from_numpy(cell.w_ih.column_scale).to(device),
        x_dynamic=cell.w_ih.dynamic,
        live=None if cell.live is None else torch.from_numpy(cell.live).to(device),
        constant=None if cell.constant is None else tensor(cell.constant),
    )
