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
import torch

from .errors import InputError
from .policies import Columns, Site
from .types import FloatArray, StackShape
from .weights import Matrix, PairMatrices, PairTensors

Precision = Literal["fp32", "bf16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "int8")
Range = Literal["static", "dynamic"]
RAW_LEVELS: dict[Range, int] = {"static": 8191, "dynamic": 127}

HEADROOM = 2.0  # how much further than what was measured a raw feature may reach; costs one of 13 bits
GRID_COLUMNS, GRID_ERROR = 16, 1e-3  # of a grid that is noticed: columns at least, and how exactly it is met in steps
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
        first = [self.of(shape, "weight_ih", pair) for pair in range(shape.directions)]
        return self.raw_range == "static" and self.raw_scale is None and "int8" in first

    def check_names(self, shape: StackShape) -> None:
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


def column_scale(largest: FloatArray, w: FloatArray) -> FloatArray:
    """Scales [I] for raw features: at least HEADROOM times the ``largest`` magnitudes seen [I].

    Columns that are small beside their weights get more room, so that their scaled weights do not coarsen whole rows:
    scale_j ~ sqrt(max |x_j| / max_r |w_rj|), the rule of SmoothQuant (arXiv 2211.10438) with its exponent of 1/2.
    Scales in proportion to the features alone gave turbofan engines (2 x 64) an error four times as large. A feature
    that was zero throughout is taken for a middling one.

    Args:
        largest: [I] largest ``|x_j|``.
        w: [rows, I] the input matrix, that of both directions one above the other.
    """
    seen = largest > 0
    x = np.where(seen, largest, np.median(largest[seen]) if seen.any() else 1.0).astype(np.float64)
    weight = np.abs(w).max(axis=0, initial=0.0).astype(np.float64)
    weight = np.maximum(weight, 1e-6 * weight.max(initial=0.0)) if weight.any() else np.ones_like(x)
    scale = np.sqrt(x / weight)
    scale *= HEADROOM * (x / scale).max(initial=0.0)
    return np.clip(scale, *SCALES).astype(np.float32)


def to_bf16(w: FloatArray) -> np.ndarray:
    """Bits of the nearest bfloat16 (ties to even), uint16."""
    bits = w.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def to_int8(w: FloatArray) -> tuple[np.ndarray, FloatArray]:
    """Symmetric int8 with one scale per row: values [rows, columns] in -127..127 and scale [rows].

    Weights that already lie on such a grid, as fake quantization in training leaves them, keep it.
    """
    scale = np.abs(w).max(axis=1, initial=0.0) / grid_levels(w)
    scale = np.where(scale > 0, scale, 1.0).astype(np.float32)
    return np.clip(np.rint(w / scale[:, None]), -127, 127).astype(np.int8), scale


def grid_levels(w: FloatArray) -> npt.NDArray[np.float64]:
    """The integer that the largest magnitude of every row stands for [rows]: 127, or less on a grid that is kept.

    A grid counts only if every row of the matrix lies on one: a few numbers do so by chance, thousands do not.
    """
    levels = np.full(len(w), 127.0)
    if w.shape[1] < GRID_COLUMNS:
        return levels
    candidates = np.arange(127, 0, -1)
    for row, values in enumerate(w.astype(np.float64)):
        largest = np.abs(values).max()
        if largest == 0:
            continue
        steps = candidates[:, None] * (values / largest)
        fits = (np.abs(steps - np.rint(steps)) < GRID_ERROR).all(axis=1)
        if not fits.any():
            return np.full(len(w), 127.0)
        levels[row] = candidates[fits.argmax()]
    return levels


def quantize_matrix(
    w: FloatArray, precision: Precision, levels: int, scale: FloatArray | None = None, *, dynamic: bool = False
) -> Matrix:
    """A weight matrix [rows, columns] in a precision; all but ``w`` count for int8 only.

    levels: of activations, 0: they stay floats. scale: [columns] their range; ``dynamic``: that of every row instead.
    """
    if precision == "fp32":
        return Matrix(w)
    if precision == "bf16":
        return Matrix(to_bf16(w))
    most = (2**31 - 1) // (255 * max(w.shape[1], 1))  # the sums are 32-bit integers
    if scale is not None:
        return Matrix(*to_int8(w * scale), levels=min(levels, most), column_scale=scale)
    if dynamic:
        return Matrix(*to_int8(w), levels=min(levels, most), dynamic=True)
    return Matrix(*to_int8(w), levels=levels if levels <= most else 0)  # beyond (H above 8,000) weights only


def _raw_matrix(w: FloatArray, settings: Quantize, x: Site, *, compared: bool) -> Matrix:
    """The input matrix of raw features x; compared: whether a policy compares these from timestep to timestep."""
    precision = settings.of(x.shape, "weight_ih", x.pair)
    assert settings.raw_levels is not None
    if settings.raw_range == "dynamic":
        return quantize_matrix(w, precision, 0 if compared else settings.raw_levels, dynamic=not compared)
    scale = None if settings.raw_scale is None else np.asarray(settings.raw_scale, dtype=np.float32)
    return quantize_matrix(w, precision, settings.raw_levels, scale)


def quantize_stack(
    tensors: tuple[PairTensors, ...], shape: StackShape, settings: Quantize, columns: Columns | None = None
) -> tuple[PairMatrices, ...]:
    """All weights of a stack in the precisions that ``settings`` gives them.

    Args:
        tensors: weights of every layer and direction.
        shape: sizes of the stack.
        settings: what was asked for.
        columns: the policy that may leave out columns. What it thresholds is compared from timestep to timestep, which
            integers of a dynamic range do not allow: raw features stay floats there.

    Raises:
        InputError: ``settings`` names a matrix that the stack does not have.
    """
    settings.check(shape)
    bounded = shape.proj_size == 0  # a projected h may leave -1..1
    out = []
    for pair, t in enumerate(tensors):
        x = Site(shape, pair, "x")

        def matrix(kind: str, w: torch.Tensor, levels: int, pair: int = pair) -> Matrix:
            return quantize_matrix(_array(w), settings.of(shape, kind, pair), levels)

        out.append(
            PairMatrices(
                w_ih=_raw_matrix(_array(t.w_ih), settings, x, compared=bool(columns and columns.thresholded(x)))
                if x.raw
                else matrix("weight_ih", t.w_ih, settings.input_levels if bounded else 0),
                w_hh=matrix("weight_hh", t.w_hh, settings.levels if bounded else 0),
                bias=_array(t.bias).copy(),
                w_hr=None if t.w_hr is None else matrix("weight_hr", t.w_hr, 0),
                fixed=None if t.fixed is None else _array(t.fixed).copy(),
            )
        )
    return tuple(out)


def _array(tensor: torch.Tensor) -> FloatArray:
    return np.ascontiguousarray(tensor.detach().to("cpu", dtype=torch.float32).numpy())
