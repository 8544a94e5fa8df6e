"""``Quantize``: the precision of every weight matrix, and of the activations that it multiplies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..codec import brief, is_one_of, is_whole, plain_numbers, short_repr
from ..errors import InputError
from ..types import FloatArray, StackShape

Precision = Literal["fp32", "bf16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "int8")
RawRange = Literal["static", "dynamic"]
MAX_LEVELS = 8191  # of integer activations: the native core's 32-bit sums stay exact
RAW_LEVELS: dict[RawRange, int] = {"static": MAX_LEVELS, "dynamic": 127}
SCALES = (1e-20, 1e20)  # of columns; outside, products with ordinary weights could overflow float32


@short_repr
@dataclass(frozen=True)
class Quantize:
    """The precision of every weight matrix, and of the activations that it multiplies.

    - "fp32": float32 weights and activations.
    - "bf16": bfloat16 weights, widened to float32 when they are read; float32 activations.
    - "int8": symmetric int8 weights with one scale per row. Activations become integers too, so that sums are exact,
      where their range is known: h of an LSTM without projection lies in -1..1; raw features have a range that is
      measured (static) or that every timestep brings along (dynamic). With ``levels=0``, and for projected states,
      whose range is unknown, activations stay float32: weight-only int8.

    Args:
        precision: of all matrices but the first layer's input matrix.
        raw: precision of the first layer's input matrix; default: float32 if ``precision`` is, else bfloat16. int8
            makes wide inputs faster. Features that fill their range tolerate it, features that span decades do not:
            measure it on your model.
        levels: activation levels of the recurrent int8 matrices: h is sent as round(h * levels). 1 to 8191; 1016 (11
            bits) are about as good as float activations; 127 fit a byte, the fastest where the processor has dot
            products of bytes; without them, as with AVX2 alone, 64 are; most models tolerate either; 0: weight-only
            int8. Where h of a batch row exceeds 1, because it was given or an exit in depth put it
            there, that row is sent as round(h * levels / max|h|) in that timestep.
        input_levels: the same for the input matrices of the layers above the first.
        raw_levels: feature x_j is sent to an int8 matrix as round(x_j / range_j * raw_levels); fewer levels where the
            input is so wide (8191: above 1,028 columns) that the sums would overflow. Default: 8191 for a static range,
            127 (a byte) for a dynamic one.
        raw_scale: [I] positive numbers, the static range_j: larger ``|x_j|`` are clipped. Weights are multiplied by it
            before they are rounded. None: ``compress(model, inputs, ...)`` measures it for every LSTM. Kept as a tuple.
        matrices: exceptions by torch's parameter name, for example ``{"weight_hh_l1": "bf16"}``.
        raw_range: "static": ``raw_scale``. "dynamic": the largest ``|x_j|`` of each timestep and batch row is the range
            of all its features; no data is needed and nothing is clipped. Integers of two timesteps cannot be compared
            then: under a policy that thresholds raw features (``Delta(x=...)``), the matrix is weight-only int8.

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
    raw_range: RawRange = "static"

    def __post_init__(self) -> None:
        raw = self.raw if self.raw is not None else "fp32" if is_one_of(self.precision, ("fp32",)) else "bf16"
        if not isinstance(self.matrices, Mapping):
            raise InputError(f"matrices: got {brief(self.matrices)}, expected precisions by the names of parameters")
        for name, value in {"precision": self.precision, "raw": raw, **self.matrices}.items():
            if not is_one_of(value, PRECISIONS):
                raise InputError(f"{name}: got {brief(value)}, expected one of {', '.join(PRECISIONS)}")
        if not is_one_of(self.raw_range, RAW_LEVELS):
            raise InputError(f"raw_range: got {brief(self.raw_range)}, expected one of {', '.join(RAW_LEVELS)}")
        if self.raw_range == "dynamic" and self.raw_scale is not None:
            raise InputError(
                "raw_scale: got values, expected None: with raw_range='dynamic' every timestep brings its own range; "
                "leave raw_scale out, or say raw_range='static'"
            )
        if self.raw_levels is None:
            object.__setattr__(self, "raw_levels", RAW_LEVELS[self.raw_range])
        plain_numbers(self, "levels", "input_levels", "raw_levels")
        for name, least in (("levels", 0), ("input_levels", 0), ("raw_levels", 1)):
            levels = getattr(self, name)
            if not (is_whole(levels) and least <= levels <= MAX_LEVELS):
                raise InputError(f"{name}: got {brief(levels)}, expected a whole number from {least} to {MAX_LEVELS}")
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
        with np.errstate(over="ignore"):  # beyond float32: infinity, which is refused below
            array = np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError):
        raise InputError(f"raw_scale: got {brief(values)}, expected one positive number per feature") from None
    if array.ndim != 1:
        raise InputError(f"raw_scale: got shape {array.shape}, expected one positive number per feature")
    if not np.all((array >= SCALES[0]) & (array <= SCALES[1])):  # also catches NaN
        worst = array[~((array >= SCALES[0]) & (array <= SCALES[1]))][0]
        raise InputError(f"raw_scale: got {worst}, expected values from {SCALES[0]} to {SCALES[1]}")
    return tuple(array.tolist())
