"""Replaced weights as the arrays of a file, and back, bit for bit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..codec import Arrays
from ..errors import ModelFileError
from ..types import StackShape
from ..weights.grid import on_grid
from ..weights.layout import CellTensors
from ..weights.matrices import CellMatrices
from ..weights.replaced import ReplacedWeights
from . import sparse

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
    """The weights of every cell of a stack of this shape, float32.

    Raises:
        ModelFileError: weights are missing, of another shape, or not finite.
    """
    gates, width = 4 * shape.hidden_size, shape.output_size
    out = []
    for cell in range(shape.num_cells):

        def tensor(kind: str, *size: int, cell: int = cell) -> torch.Tensor:
            array = sparse.take(f"{at}.{cell}.{kind}", "float32", size, arrays)
            if not np.isfinite(array).all():
                raise ModelFileError(f"{at}.{cell}.{kind}: it holds NaN or infinity, expected finite weights")
            return torch.from_numpy(array)

        live = sparse.take_bits(f"{at}.{cell}.live", shape.hidden_size, arrays)
        out.append(
            CellTensors(
                w_ih=tensor("w_ih", gates, shape.input_width(cell)),
                w_hh=tensor("w_hh", gates, width),
                bias=tensor("bias", gates),
                w_hr=tensor("w_hr", shape.proj_size, shape.hidden_size) if shape.proj_size else None,
                live=None if live is None else torch.from_numpy(live),
                constant=None if live is None else tensor("constant", shape.hidden_size),
            )
        )
    return tuple(out)


def standing_in(matrices: Sequence[CellMatrices]) -> tuple[CellTensors, ...]:
    """Float32 weights that round to these in the same precision, but for scales that no float32 weights have."""

    def tensor(array: np.ndarray | None) -> torch.Tensor | None:
        return None if array is None else torch.from_numpy(array.copy())

    return tuple(
        CellTensors(
            w_ih=torch.from_numpy(on_grid(m.w_ih)),
            w_hh=torch.from_numpy(on_grid(m.w_hh)),
            bias=torch.from_numpy(m.bias.copy()),
            w_hr=None if m.w_hr is None else torch.from_numpy(on_grid(m.w_hr)),
            live=tensor(m.live),
            constant=tensor(m.constant),
        )
        for m in matrices
    )
