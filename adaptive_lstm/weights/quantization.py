"""From float32 weights to int8 per row or bfloat16: pure functions of arrays, and of whole stacks."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..errors import NonFiniteError
from ..types import DoubleArray, FloatArray, Site, StackShape
from .layout import CellTensors, float32
from .matrices import CellMatrices, Matrix
from .precision import SCALES, Precision, Quantize

if TYPE_CHECKING:
    import torch

HEADROOM = 2.0  # a raw feature may reach this multiple of the largest value measured; costs one of 13 bits
GRID_COLUMNS = 16  # narrower matrices lie on a grid by chance
GRID_ERROR = 1e-3  # largest distance of a weight from its grid point, in steps


def column_scale(largest: FloatArray, w: FloatArray) -> FloatArray:
    """Scales [I] for raw features: at least HEADROOM times the ``largest`` magnitudes seen [I].

    Columns that are small beside their weights get more room, so that their scaled weights do not coarsen whole rows:
    scale_j ~ sqrt(max |x_j| / max_r |w_rj|), the rule of SmoothQuant (arXiv 2211.10438) with its exponent of 1/2.
    A feature that was zero throughout counts as a median one.

    Args:
        largest: [I] largest ``|x_j|``.
        w: [rows, I] the input matrix; of both directions, one below the other, if there are two.
    """
    seen = largest > 0
    x = np.where(seen, largest, np.median(largest[seen]) if seen.any() else 1.0).astype(np.float64)
    weight = np.abs(w).max(axis=0, initial=0.0).astype(np.float64)
    weight = np.maximum(weight, 1e-6 * weight.max(initial=0.0)) if weight.any() else np.ones_like(x)
    scale = np.sqrt(x / weight)
    scale *= HEADROOM * (x / scale).max(initial=0.0)
    return np.clip(scale, *SCALES).astype(np.float32)


def to_bf16(w: FloatArray) -> np.ndarray:
    """The bits, uint16, of the nearest bfloat16 (ties to even)."""
    bits = w.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def to_int8(w: FloatArray) -> tuple[np.ndarray, FloatArray]:
    """Symmetric int8 with one scale per row: values [rows, columns] in -127..127 and scale [rows].

    Weights that already lie on such a grid, as after fake quantization in training, keep it.
    """
    scale = np.abs(w).max(axis=1, initial=0.0) / grid_levels(w)
    scale = np.where(scale > 0, scale, 1.0).astype(np.float32)
    return np.clip(np.rint(w / scale[:, None]), -127, 127).astype(np.int8), scale


def grid_levels(w: FloatArray) -> npt.NDArray[np.float64]:
    """The integer that encodes the largest magnitude of every row [rows]: 127, or fewer to keep a grid.

    A grid is kept only if every row of the matrix lies on one: a few numbers do so by chance, thousands do not.
    """
    levels = np.full(len(w), 127.0)
    if w.shape[1] < GRID_COLUMNS:
        return levels
    candidates = np.arange(126, 0, -1)
    values = w.astype(np.float64)
    largest = np.abs(values).max(axis=1, initial=0.0)
    values /= np.where(largest > 0, largest, 1.0)[:, None]
    for row in np.flatnonzero(~_on_grid(127 * values)):
        fits = _on_grid(candidates[:, None] * values[row])
        if not fits.any():
            return np.full(len(w), 127.0)
        levels[row] = candidates[fits.argmax()]
    return levels


def _on_grid(steps: DoubleArray) -> npt.NDArray[np.bool_]:
    """Whether all values of a row are whole numbers [rows]."""
    return np.asarray((np.abs(steps - np.rint(steps)) < GRID_ERROR).all(axis=1))


def quantize_matrix(
    w: FloatArray, precision: Precision, levels: int, scale: FloatArray | None = None, *, dynamic: bool = False
) -> Matrix:
    """A weight matrix in a precision.

    Args:
        w: [rows, columns].
        precision: of the weights. What follows applies to int8 only.
        levels: of activations; 0: activations stay floats.
        scale: [columns] static range of the activations, or None: 1.
        dynamic: the range of the activations is that of every row instead.

    Raises:
        NonFiniteError: NaN or infinity in another precision than float32.
    """
    if precision == "fp32":
        return Matrix(w)
    if not np.isfinite(w).all():
        raise NonFiniteError(
            f"a weight matrix holds NaN or infinity, which {precision} cannot say; expected finite weights (a training "
            "that diverged?), or float32"
        )
    if precision == "bf16":
        return Matrix(to_bf16(w))
    return int8_matrix(*to_int8(w if scale is None else w * scale), levels, scale, dynamic)


def int8_matrix(
    values: np.ndarray, scale: FloatArray, levels: int, column_scale: FloatArray | None, dynamic: bool
) -> Matrix:
    """int8 weights, and how their activations are sent (``sent_to``)."""
    most = (2**31 - 1) // (255 * max(values.shape[1], 1))  # the sums are 32-bit integers
    if column_scale is None and not dynamic and levels > most:
        return Matrix(values, scale)  # H above 8,000: weights only
    return Matrix(values, scale, min(levels, most), column_scale, dynamic)


def sent_to(
    kind: str, cell: int, shape: StackShape, settings: Quantize, thresholded: Collection[Site] = ()
) -> tuple[int, FloatArray | None, bool]:
    """How activations are sent to an int8 matrix: levels, ranges of the columns, and whether ranges are of every row.

    Args:
        kind: "weight_ih", "weight_hh" or "weight_hr".
        cell: whose matrix it is.
        shape, settings, thresholded: as for ``quantize_stack``.
    """
    x = Site(shape, cell, "x")
    if kind == "weight_ih" and x.raw:
        assert settings.raw_levels is not None
        if settings.raw_range == "dynamic":
            return (0, None, False) if x in thresholded else (settings.raw_levels, None, True)
        scale = None if settings.raw_scale is None else np.asarray(settings.raw_scale, dtype=np.float32)
        return settings.raw_levels, scale, False
    bounded = shape.proj_size == 0  # |h| <= 1, which does not hold for a projected h
    levels = {"weight_ih": settings.input_levels, "weight_hh": settings.levels, "weight_hr": 0}[kind]
    return levels if bounded else 0, None, False


def quantize_stack(
    tensors: tuple[CellTensors, ...], shape: StackShape, settings: Quantize, thresholded: Collection[Site] = ()
) -> tuple[CellMatrices, ...]:
    """All weights of a stack in the precisions that ``settings`` gives them.

    Args:
        tensors: weights of every layer and direction.
        shape: sizes of the stack.
        settings: the precisions.
        thresholded: operands whose columns a policy may leave out. It compares them from timestep to timestep, which
            integers of a dynamic range do not allow: such raw features stay floats.

    Raises:
        InputError: ``settings`` names a matrix that the stack does not have.
        NonFiniteError: NaN or infinity in a matrix that is not float32.
    """
    settings.check(shape)
    out = []
    for cell, t in enumerate(tensors):

        def matrix(kind: str, w: torch.Tensor, cell: int = cell) -> Matrix:
            levels, scale, dynamic = sent_to(kind, cell, shape, settings, thresholded)
            return quantize_matrix(float32(w), settings.of(shape, kind, cell), levels, scale, dynamic=dynamic)

        out.append(
            CellMatrices(
                w_ih=matrix("weight_ih", t.w_ih),
                w_hh=matrix("weight_hh", t.w_hh),
                bias=float32(t.bias).copy(),
                w_hr=None if t.w_hr is None else matrix("weight_hr", t.w_hr),
                live=None if t.live is None else t.live.cpu().numpy().copy(),
                constant=None if t.constant is None else float32(t.constant).copy(),
            )
        )
    return tuple(out)
