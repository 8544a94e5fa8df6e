"""From ``nn.LSTM`` to the weights that a backend executes: the only place that knows torch's names and bias pairs."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from .types import FloatArray, StackShape


@dataclass(frozen=True)
class PairTensors:
    """Weights of one layer and direction as tensors, gates in torch order.

    ``w_ih`` [4H, width], ``w_hh`` [4H, P], ``bias`` [4H] (both biases added), ``w_hr`` [P, H] or None. ``x_levels``,
    ``h_levels``: the operand is rounded to multiples of 1/levels before it is multiplied; 0: it is used as it is.
    ``x_scale`` [width], float32, or None: x_j is rounded to multiples of x_scale_j / levels and ends at x_scale_j.
    ``x_dynamic``: every row of x is rounded to multiples of its own largest magnitude / levels instead.
    ``fixed`` [H] or None: units that were pruned have c = 0 and, ahead of a projection, stand at this value for ever;
    NaN: the unit lives.
    """

    w_ih: torch.Tensor
    w_hh: torch.Tensor
    bias: torch.Tensor
    w_hr: torch.Tensor | None
    x_levels: int = 0
    h_levels: int = 0
    x_scale: torch.Tensor | None = None
    x_dynamic: bool = False
    fixed: torch.Tensor | None = None

    @functools.cached_property
    def useful(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Which columns of w_ih [width] and w_hh [P] are not all zero, bool; the others need never be sent."""
        return self.w_ih.detach().ne(0).any(dim=0), self.w_hh.detach().ne(0).any(dim=0)


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
class PairMatrices:
    """Weights of one layer and direction as a backend executes them; ``bias`` [4H] stays in float32.

    ``fixed`` [H] as in ``PairTensors``. Rows of pruned units and columns that read them hold zeros.
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

    def tensors(self, dtype: torch.dtype, device: torch.device) -> PairTensors:
        """The same numbers as tensors, for the reference executor."""

        def tensor(array: FloatArray) -> torch.Tensor:
            return torch.from_numpy(array).to(device=device, dtype=dtype)

        return PairTensors(
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


def living(shape: StackShape, weights: Sequence[PairTensors | PairMatrices]) -> tuple[int, ...]:
    """Units that are not pruned, for every layer and direction; empty where none is pruned anywhere."""
    fixed = [w.fixed for w in weights]
    if all(f is None for f in fixed):
        return ()
    return tuple(shape.hidden_size if f is None else sum(map(math.isnan, f.tolist())) for f in fixed)


def shape_of(lstm: nn.LSTM) -> StackShape:
    """Sizes of an ``nn.LSTM``."""
    return StackShape(lstm.input_size, lstm.hidden_size, lstm.num_layers, lstm.proj_size, lstm.bidirectional)


def named_weights(lstm: nn.LSTM) -> dict[str, torch.Tensor]:
    """The current weights of an ``nn.LSTM`` by torch's names."""
    # _flat_weights is what nn.LSTM.forward itself reads: it follows pruning hooks and replaced parameters.
    pairs = zip(lstm._flat_weights_names, lstm._flat_weights, strict=True)
    return {name: weight for name, weight in pairs if weight is not None}


def tensors_of(lstm: nn.LSTM) -> tuple[PairTensors, ...]:
    """The current weights of an ``nn.LSTM``, one entry per layer and direction; gradients flow back to them."""
    named, shape = named_weights(lstm), shape_of(lstm)

    def get(kind: str, pair: int) -> torch.Tensor | None:
        return named.get(f"{kind}_{shape.name(pair)}")

    def need(kind: str, pair: int) -> torch.Tensor:
        found = get(kind, pair)
        assert found is not None, f"nn.LSTM without {kind}_{shape.name(pair)}"
        return found

    out = []
    for pair in range(shape.pairs):
        w_ih = need("weight_ih", pair)
        bias = need("bias_ih", pair) + need("bias_hh", pair) if lstm.bias else w_ih.new_zeros(4 * shape.hidden_size)
        out.append(PairTensors(w_ih, need("weight_hh", pair), bias, get("weight_hr", pair)))
    return tuple(out)


def _version(tensor: torch.Tensor) -> int:
    """How often torch has counted a write to the tensor; those made under inference_mode have no counter."""
    return -1 if tensor.is_inference() else tensor._version


class Fingerprint:
    """Notices when a weight of an ``nn.LSTM`` was replaced, moved or written to in place.

    Writes through ``.data`` or numpy leave no trace in torch, so they go unnoticed. The weights seen are kept alive:
    otherwise a new one could be placed where an old one was, and look the same.
    """

    def __init__(self, lstm: nn.LSTM):
        found = [(name, getattr(lstm, name, None)) for name in lstm._flat_weights_names]
        self._seen = [(name, w, w.data_ptr(), _version(w), w.detach()) for name, w in found if w is not None]

    def still(self, lstm: nn.LSTM) -> bool:
        """Whether nothing has changed since."""
        parameters = lstm._parameters
        for name, old, address, version, _ in self._seen:  # as short as it can be: this runs before every call
            w = parameters.get(name)
            if w is None:
                w = getattr(lstm, name, None)
            if w is not old or w.data_ptr() != address or (version >= 0 and w._version != version):
                return False
        return True
