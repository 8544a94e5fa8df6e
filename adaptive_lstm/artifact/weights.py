"""Replaced weights as the arrays of a file, and back, bit for bit, as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..codec import Arrays
from ..types import StackShape
from ..weights.grid import on_grid
from ..weights.layout import CellTensors
from ..weights.matrices import CellMatrices
from ..weights.replaced import ReplacedWeights
from . import sparse
from .replaced import read_replaced_arrays

_KINDS = ("w_ih", "w_hh", "bias", "w_hr", "constant")


def write_replaced(replaced: ReplacedWeights, at: str, arrays: dict[str, np.ndarray]) -> None:
    """Add replaced weights to ``arrays``, with names that begin with ``at``."""
    for cell, weights in enumerate(replaced.cells):
        for kind in _KINDS:
            value: torch.Tensor | None = getattr(weights, kind)
            if value is not None:
                array = value.detach().to("cpu", torch.float32).contiguous().numpy()
                sparse.put(f"{at}.{cell}.{kind}", array, arrays)
        if weights.live is not None:
            sparse.put_bits(f"{at}.{cell}.live", weights.live.cpu().numpy(), arrays)


def read_replaced(shape: StackShape, at: str, arrays: Arrays) -> tuple[CellTensors, ...]:
    """The weights of every cell of a stack of this shape, float32. Raises as ``read_replaced_arrays`` does."""
    cells = read_replaced_arrays(shape, at, arrays)
    return tuple(CellTensors(**{kind: _tensor(array) for kind, array in cell.items()}) for cell in cells)


def standing_in(matrices: Sequence[CellMatrices]) -> tuple[CellTensors, ...]:
    """Float32 weights that round to these in the same precision, but for scales that no float32 weights have."""
    return tuple(
        CellTensors(
            w_ih=torch.from_numpy(on_grid(m.w_ih)),
            w_hh=torch.from_numpy(on_grid(m.w_hh)),
            bias=torch.from_numpy(m.bias.copy()),
            w_hr=None if m.w_hr is None else torch.from_numpy(on_grid(m.w_hr)),
            live=_tensor(m.live),
            constant=_tensor(m.constant),
        )
        for m in matrices
    )


def _tensor(array: np.ndarray | None) -> Any:
    """A copy of an array, if there is one."""
    return None if array is None else torch.from_numpy(array.copy())
