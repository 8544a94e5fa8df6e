"""Post-training quantization of weights: int8 per row, bfloat16, or float32 as it is; pure functions of arrays.

Activations of an int8 matrix become integers where their range is known without calibration: h of an LSTM without
projection lies in -1..1, so round(h * levels) needs no scale. 1016 levels (11 bits) are nearly free: the kernels read
each weight once and multiply it twice. 8 bits are not enough on real models: on a speaker encoder (3 x 256) 127 levels
keep a cosine of 0.9963 with float32, 1016 keep 0.9991, as much as int8 weights with float activations; on a load
forecaster (2 x 256) whose h is small 127 levels raise the error by a third. Raw features and projected states have no
known range: there int8 applies to the weights only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from .errors import InputError
from .types import FloatArray, StackShape
from .weights import Matrix, PairMatrices, PairTensors

Precision = Literal["fp32", "bf16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "int8")


@dataclass(frozen=True)
class Quantize:
    """Which precision every weight matrix gets.

    Args:
        precision: of all matrices but the first layer's input matrix.
        raw: precision of the first layer's input matrix. Raw features are unscaled, and int8 there breaks real models;
            the default is float32 if the rest is float32, else bfloat16.
        levels: h is sent to its own recurrent int8 matrix as round(h * levels), 1 to 8191.
        input_levels: the same for the next layer's input matrix. 127 fits a byte and makes whole sequences a tenth
            faster; some models bear it (the speaker encoder: 0.9990), others do not (the load forecaster).
        matrices: exceptions by torch's parameter name, for example ``{"weight_hh_l1": "bf16"}``.

    Raises:
        InputError: an unknown precision, or levels out of range.
    """

    precision: Precision = "fp32"
    raw: Precision | None = None
    levels: int = 1016
    input_levels: int = 1016
    matrices: Mapping[str, Precision] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        raw = self.raw if self.raw is not None else "fp32" if self.precision == "fp32" else "bf16"
        for name, value in {"precision": self.precision, "raw": raw, **self.matrices}.items():
            if value not in PRECISIONS:
                raise InputError(f"{name}: got {value!r}, expected one of {', '.join(PRECISIONS)}")
        for name, levels in (("levels", self.levels), ("input_levels", self.input_levels)):
            if not 1 <= levels <= 8191:
                raise InputError(f"{name}: got {levels}, expected 1 to 8191")
        object.__setattr__(self, "raw", raw)
        object.__setattr__(self, "matrices", dict(self.matrices))

    @property
    def exact(self) -> bool:
        """Whether every matrix stays in float32."""
        return all(p == "fp32" for p in (self.precision, self.raw, *self.matrices.values()))

    def check(self, shape: StackShape) -> None:
        """Raise ``InputError`` if ``matrices`` names a parameter that the stack does not have."""
        kinds = ["weight_ih", "weight_hh"] + (["weight_hr"] if shape.proj_size else [])
        known = [f"{kind}_{shape.name(pair)}" for pair in range(shape.pairs) for kind in kinds]
        unknown = sorted(set(self.matrices) - set(known))
        if unknown:
            raise InputError(f"matrices: got {', '.join(unknown)}, but this stack has {', '.join(known)}")

    def of(self, shape: StackShape, kind: str, pair: int) -> Precision:
        """Precision of ``weight_ih``, ``weight_hh`` or ``weight_hr`` of a pair."""
        raw = kind == "weight_ih" and pair < shape.directions
        default = self.raw if raw and self.raw is not None else self.precision
        return self.matrices.get(f"{kind}_{shape.name(pair)}", default)


def to_bf16(w: FloatArray) -> np.ndarray:
    """Bits of the nearest bfloat16 (ties to even), uint16."""
    bits = w.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def to_int8(w: FloatArray) -> tuple[np.ndarray, FloatArray]:
    """Symmetric int8 with one scale per row: values [rows, columns] in -127..127 and scale [rows]."""
    scale = np.abs(w).max(axis=1, initial=0.0) / 127
    scale = np.where(scale > 0, scale, 1.0).astype(np.float32)
    return np.clip(np.rint(w / scale[:, None]), -127, 127).astype(np.int8), scale


def quantize_matrix(w: FloatArray, precision: Precision, levels: int) -> Matrix:
    """A weight matrix [rows, columns] in a precision; ``levels`` counts for int8 only."""
    if precision == "fp32":
        return Matrix(w)
    if precision == "bf16":
        return Matrix(to_bf16(w))
    fits = levels * 255 * w.shape[1] < 2**31  # the sums are 32-bit integers; beyond (H above 8,000) weights only
    return Matrix(*to_int8(w), levels=levels if fits else 0)


def quantize_stack(tensors: tuple[PairTensors, ...], shape: StackShape, settings: Quantize) -> tuple[PairMatrices, ...]:
    """All weights of a stack in the precisions that ``settings`` gives them.

    Raises:
        InputError: ``settings`` names a matrix that the stack does not have.
    """
    settings.check(shape)
    out = []
    for pair, t in enumerate(tensors):

        def matrix(kind: str, levels: int, pair: int = pair, t: PairTensors = t) -> Matrix:
            tensor = {"weight_ih": t.w_ih, "weight_hh": t.w_hh, "weight_hr": t.w_hr}[kind]
            assert tensor is not None
            array = np.ascontiguousarray(tensor.detach().to("cpu", dtype=torch.float32).numpy())
            return quantize_matrix(array, settings.of(shape, kind, pair), levels)

        bounded = shape.proj_size == 0  # a projected h may leave -1..1
        out.append(
            PairMatrices(
                w_ih=matrix("weight_ih", settings.input_levels if bounded and pair >= shape.directions else 0),
                w_hh=matrix("weight_hh", settings.levels if bounded else 0),
                bias=t.bias.detach().to("cpu", dtype=torch.float32).numpy().copy(),
                w_hr=matrix("weight_hr", 0) if t.w_hr is not None else None,
            )
        )
    return tuple(out)
