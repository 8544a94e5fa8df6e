"""Post-training quantization of weights: int8 per row, bfloat16, or float32 as it is; pure functions of arrays.

Activations of an int8 matrix become integers where their range is known without calibration: h of an LSTM without
projection lies in -1..1, so round(h * levels) needs no scale. 1016 levels (11 bits), the default, are as good as float
activations, and the kernels read each weight once for them, but multiply it twice. 127 levels fit a byte: whole
sequences are 1.04 to 1.4 times as fast, outputs move further (a speaker encoder, 3 x 256, keeps a cosine of 0.9963 with
float32 instead of 0.9991), and the task figures of 18 of 19 real models stay as they are; that of a load forecaster
(2 x 256) whose h is small gets worse by a third. Raw features and projected states have no known range. For the raw
features of the first layer a range per column can be measured (``column_scale``): then they become integers too. Or
every timestep brings its own range, which takes no data and cuts nothing off (``raw_range="dynamic"``). One byte of it
is 2.8 times as near to float32 as one of a static range, and costs 1.7 times what int8 weights alone cost (geometric
means over 15 real models). To make columns alike by their weights first, dividing features by max |w_rj| to the power
of 1/2 or 1, or by what ``column_scale`` measures, brings nothing on average (1.02 to 1.05 times as far). For
projected states int8 applies to the weights only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..types import FloatArray, StackShape

Precision = Literal["fp32", "bf16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "int8")
Range = Literal["static", "dynamic"]
RAW_LEVELS: dict[Range, int] = {"static": 8191, "dynamic": 127}
SCALES = (1e-20, 1e20)  # a column scale outside could overflow float32 beside ordinary weights


@dataclass(frozen=True)
class Quantize:
    """Which precision every weight matrix gets.

    Args:
        precision: of all matrices but the first layer's input matrix.
        raw: precision of the first layer's input matrix; the default is float32 if the rest is float32, else bfloat16.
            int8 makes wide inputs faster. Features that fill their range bear it; those that span decades do not (power
            spectra of a speaker encoder: cosine 0.93, against 0.999 with bfloat16). Measure it on your model.
        levels: h is sent to its own recurrent int8 matrix as round(h * levels), 1 to 8191; 0: as it is (weights only).
            127 here and in ``input_levels`` fit a byte, the fastest; most models bear it (see above).
        input_levels: the same for the next layer's input matrix, 0 likewise.
        raw_levels: feature x_j is sent to an int8 matrix as round(x_j / range_j * raw_levels); fewer levels where the
            input is so wide (8191: above 1,028 columns) that the sums would overflow. The default is 8191 for a static
            range and 127, which fit a byte, for a dynamic one.
        raw_scale: [I] positive numbers, the static range_j: the largest ``|x_j|`` that can be sent; values beyond are
            cut off there. Weights are multiplied by it before they are rounded. ``compress(model, inputs, ...)``
            measures it for every LSTM if it is None. Kept as a tuple.
        matrices: exceptions by torch's parameter name, for example ``{"weight_hh_l1": "bf16"}``.
        raw_range: "static": ``raw_scale``. "dynamic": the largest ``|x_j|`` of each timestep and batch row is the range
            of all its features; no data is needed and nothing is cut off. Integers of two timesteps cannot be compared
            then: under a policy that thresholds raw features (``Delta(x=...)``), int8 applies to the weights only.

    Raises:
        InputError: an unknown precision, or levels or scales out of range.
    """

    precision: Precision = "fp32"
    raw: Precision | None = None
    levels: int = 1016
    input_levels: int = 1016
    raw_levels: int | None = None
    raw_scale: Sequence[float] | FloatArray | None = None
    matrices: Mapping[str, Precision] = field(default_factory=dict, hash=False)
    raw_range: Range = "static"

    def __post_init__(self) -> None:
        raw = self.raw if self.raw is not None else "fp32" if self.precision == "fp32" else "bf16"
        for name, value in {"precision": self.precision, "raw": raw, **self.matrices}.items():
            if value not in PRECISIONS:
                raise InputError(f"{name}: got {value!r}, expected one of {', '.join(PRECISIONS)}")
        if self.raw_range not in RAW_LEVELS:
            raise InputError(f"raw_range: got {self.raw_range!r}, expected one of {', '.join(RAW_LEVELS)}")
        if self.raw_range == "dynamic" and self.raw_scale is not None:
            raise InputError(
                "raw_scale: got values, expected None: with raw_range='dynamic' every timestep brings its own range; "
                "leave raw_scale out, or say raw_range='static'"
            )
        if self.raw_levels is None:
            object.__setattr__(self, "raw_levels", RAW_LEVELS[self.raw_range])
        for name, least in (("levels", 0), ("input_levels", 0), ("raw_levels", 1)):
            if not least <= getattr(self, name) <= 8191:
                raise InputError(f"{name}: got {getattr(self, name)}, expected {least} to 8191")
        object.__setattr__(self, "raw", raw)
        object.__setattr__(self, "raw_scale", _scales(self.raw_scale))
        object.__setattr__(self, "matrices", dict(self.matrices))

    @property
    def exact(self) -> bool:
        """Whether every matrix stays in float32."""
        return all(p == "fp32" for p in (self.precision, self.raw, *self.matrices.values()))

    def check(self, shape: StackShape) -> None:
        """Raise ``InputError`` if ``matrices`` or ``raw_scale`` do not fit the stack, or a scale is missing."""
        self.check_names(shape)
        if self.lacks_scale(shape):
            raise InputError(
                "the first layer's input matrix in int8 needs the range of every input column: "
                "compress(model, inputs, quantize=...) measures it on inputs, or give Quantize(raw_scale=[...]), or "
                "let every timestep bring its own: Quantize(raw_range='dynamic')"
            )
        if self.raw_scale is not None and len(self.raw_scale) != shape.input_size:
            raise InputError(
                f"raw_scale: got {len(self.raw_scale)} values, expected {shape.input_size} (one per feature)"
            )

    def lacks_scale(self, shape: StackShape) -> bool:
        """Whether an input matrix of the first layer is int8 and the scales of its columns are needed and unknown."""
        first = [self.of(shape, "weight_ih", cell) for cell in range(shape.directions)]
        return self.raw_range == "static" and self.raw_scale is None and "int8" in first

    def check_names(self, shape: StackShape) -> None:
        """Raise ``InputError`` if ``matrices`` names a parameter that the stack does not have."""
        kinds = ["weight_ih", "weight_hh"] + (["weight_hr"] if shape.proj_size else [])
        known = [f"{kind}_{shape.name(cell)}" for cell in range(shape.num_cells) for kind in kinds]
        unknown = sorted(set(self.matrices) - set(known))
        if unknown:
            raise InputError(f"matrices: got {', '.join(unknown)}, but this stack has {', '.join(known)}")

    def of(self, shape: StackShape, kind: str, cell: int) -> Precision:
        """Precision of ``weight_ih``, ``weight_hh`` or ``weight_hr`` of a cell."""
        raw = kind == "weight_ih" and cell < shape.directions
        default = self.raw if raw and self.raw is not None else self.precision
        return self.matrices.get(f"{kind}_{shape.name(cell)}", default)


def _scales(values: npt.ArrayLike | None) -> tuple[float, ...] | None:
    if values is None:
        return None
    try:
        array = np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError):
        raise InputError(f"raw_scale: got {values!r}, expected one positive number per feature") from None
    if array.ndim != 1:
        raise InputError(f"raw_scale: got shape {array.shape}, expected one positive number per feature")
    if not np.all((array >= SCALES[0]) & (array <= SCALES[1])):  # also catches NaN
        worst = array[~((array >= SCALES[0]) & (array <= SCALES[1]))][0]
        raise InputError(f"raw_scale: got {worst}, expected values from {SCALES[0]} to {SCALES[1]}")
    return tuple(array.tolist())
