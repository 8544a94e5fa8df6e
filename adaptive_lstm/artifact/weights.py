"""Replaced weights as the arrays of a file, and back, bit for bit.

A matrix with enough zeros is stored as a bit per weight, whether it is kept, and the kept ones. Zeros may have a sign,
which then takes another bit each.
"""

from __future__ import annotations

import numpy as np
import torch

from ..codec import Arrays
from ..errors import ModelFileError
from ..types import StackShape
from ..weights.layout import CellTensors
from ..weights.replaced import ReplacedWeights

_KINDS = ("w_ih", "w_hh", "bias", "w_hr", "constant")


def write_replaced(replaced: ReplacedWeights, at: str, arrays: dict[str, np.ndarray]) -> None:
    """Add replaced weights to ``arrays``, with names that begin with ``at``."""
    for cell, weights in enumerate(replaced.cells):
        for kind in _KINDS:
            value: torch.Tensor | None = getattr(weights, kind)
            if value is None:
                continue
            name = f"{at}.{cell}.{kind}"
            array = value.detach().to("cpu", torch.float32).contiguous().numpy()
            kept = array != 0
            parts = {f"{name}.kept": np.packbits(kept), f"{name}.values": array[kept]}
            negative = np.signbit(array[~kept])  # a mask times a negative weight is -0.0
            if negative.any():
                parts[f"{name}.negative"] = np.packbits(negative)
            small = sum(part.nbytes for part in parts.values()) < array.nbytes
            arrays |= parts if small else {name: array}
        if weights.live is not None:
            arrays[f"{at}.{cell}.live"] = np.packbits(weights.live.cpu().numpy())


def read_replaced(shape: StackShape, at: str, arrays: Arrays) -> tuple[CellTensors, ...]:
    """The weights of every cell of a stack of this shape, float32.

    Raises:
        ModelFileError: weights are missing, of another shape, or not finite.
    """
    gates, width = 4 * shape.hidden_size, shape.output_size
    out = []
    for cell in range(shape.num_cells):

        def tensor(kind: str, *size: int, cell: int = cell) -> torch.Tensor:
            array = _array(f"{at}.{cell}.{kind}", arrays, size)
            if not np.isfinite(array).all():
                raise ModelFileError(f"{at}.{cell}.{kind}: it holds NaN or infinity, expected finite weights")
            return torch.from_numpy(array)

        live = _live(f"{at}.{cell}.live", arrays, shape.hidden_size)
        out.append(
            CellTensors(
                w_ih=tensor("w_ih", gates, shape.input_width(cell)),
                w_hh=tensor("w_hh", gates, width),
                bias=tensor("bias", gates),
                w_hr=tensor("w_hr", shape.proj_size, shape.hidden_size) if shape.proj_size else None,
                live=live,
                constant=None if live is None else tensor("constant", shape.hidden_size),
            )
        )
    return tuple(out)


def _live(name: str, arrays: Arrays, units: int) -> torch.Tensor | None:
    if name not in arrays:
        return None
    bits = arrays.take(name, "uint8", -(-units // 8))
    return torch.from_numpy(np.unpackbits(bits, count=units).astype(np.bool_))


def _array(name: str, arrays: Arrays, size: tuple[int, ...]) -> np.ndarray:
    if f"{name}.kept" not in arrays:
        return arrays.take(name, "float32", *size)
    count = int(np.prod(size))
    bits = np.unpackbits(arrays.take(f"{name}.kept", "uint8", -(-count // 8)), count=count).astype(bool)
    array = np.zeros(count, np.float32)
    array[bits] = arrays.take(f"{name}.values", "float32", int(bits.sum()))
    if f"{name}.negative" in arrays:
        zeros = count - int(bits.sum())
        negative = np.unpackbits(arrays.take(f"{name}.negative", "uint8", -(-zeros // 8)), count=zeros)
        array[~bits] = np.where(negative, np.float32(-0.0), np.float32(0.0))
    return array.reshape(size)
