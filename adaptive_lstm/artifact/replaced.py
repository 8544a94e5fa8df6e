"""Replaced weights in a file, as arrays. Needs no torch."""

from __future__ import annotations

import numpy as np

from ..codec import Arrays
from ..errors import ModelFileError
from ..types import StackShape
from . import sparse


def read_replaced_arrays(shape: StackShape, at: str, arrays: Arrays) -> tuple[dict[str, np.ndarray | None], ...]:
    """The weights of every cell of a stack of this shape by the names of ``CellTensors``: float32, ``live`` bool.

    Raises:
        ModelFileError: weights are missing, of another shape, or not finite.
    """
    return tuple(_cell(shape, cell, f"{at}.{cell}", arrays) for cell in range(shape.num_cells))


def _cell(shape: StackShape, cell: int, at: str, arrays: Arrays) -> dict[str, np.ndarray | None]:
    gates, hidden = 4 * shape.hidden_size, shape.hidden_size

    def take(kind: str, *size: int) -> np.ndarray:
        array = sparse.take(f"{at}.{kind}", "float32", size, arrays)
        if not np.isfinite(array).all():
            raise ModelFileError(f"{at}.{kind}: it holds NaN or infinity, expected finite weights")
        return array

    live = sparse.take_bits(f"{at}.live", hidden, arrays)
    return {
        "w_ih": take("w_ih", gates, shape.input_width(cell)),
        "w_hh": take("w_hh", gates, shape.output_size),
        "bias": take("bias", gates),
        "w_hr": take("w_hr", shape.proj_size, hidden) if shape.proj_size else None,
        "live": live,
        "constant": None if live is None else take("constant", hidden),
    }
