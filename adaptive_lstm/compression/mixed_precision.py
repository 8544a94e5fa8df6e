"""Mixed precision: a precision for every matrix, chosen by the sensitivity of the model's output to it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..analysis.sensitivity import Sensitivity
from ..codec import brief, is_number
from ..errors import InputError
from ..weights.precision import PRECISIONS, Precision, Quantize
from ..weights.quantization import quantize_matrix
from .output_error import expected_squared_change


def mixed_precision(
    sensitivity: Sensitivity,
    *,
    size: float | None = None,
    error: float | None = None,
    base: Quantize | None = None,
) -> Quantize:
    """A precision for every matrix that keeps the expected change of the output small for its bytes.

    Matrices start as in ``Quantize("int8")``: in int8, those of raw features in bfloat16. Then the matrix whose next
    precision lowers the expected squared change of the output most per byte is raised, until the budget is met (greedy,
    as for a knapsack). The expected squared change by a matrix is ``output_error.expected_squared_change`` of its
    rounding errors; rounding of activations is not included.

    Args:
        sensitivity: of the stack, from ``measure_sensitivity``.
        size: bytes of all matrices with their scales, as a share of float32. Projections stay in int8.
        error: expected root mean square change of the output by all matrices at one timestep, in units of the output.
            Give either ``size`` or ``error``.
        base: settings other than precisions.

    Raises:
        InputError: no budget, two budgets, or a size that is too small.
    """
    if (size is None) == (error is None):
        raise InputError("give one budget: size=0.3 (share of float32) or error=0.01 (change of the output)")
    if error is not None and not (is_number(error) and error >= 0):
        raise InputError(f"error: got {brief(error)}, expected a number of at least 0")
    if size is not None and not (is_number(size) and 0 <= size < np.inf):
        raise InputError(f"size: got {brief(size)}, expected a share of the bytes in float32")
    if not isinstance(sensitivity, Sensitivity):
        raise InputError(f"sensitivity: got {brief(sensitivity)}, expected what measure_sensitivity gives")
    if not isinstance(base, Quantize | None):
        raise InputError(f"base: got {brief(base)}, expected adaptive_lstm.Quantize, or None")
    options, shape = _options(sensitivity), sensitivity.shape
    chosen = {name: min(found.items(), key=lambda option: option[1][0])[0] for name, found in options.items()}
    projection = shape.num_cells * shape.proj_size * (shape.hidden_size + 4)  # int8 with a scale per row
    whole = sum(by["fp32"][0] for by in options.values()) + 4 * shape.num_cells * shape.proj_size * shape.hidden_size
    least = projection + sum(options[name][p][0] for name, p in chosen.items())
    if size is not None and float(size) * whole < least:
        raise InputError(f"size: got {size}, expected at least {least / whole:.4f}, the smallest possible size")
    budget = np.inf if size is None else float(size) * whole
    while error is None or sum(options[name][p][1] for name, p in chosen.items()) > float(error) * float(error):
        spent = projection + sum(options[name][p][0] for name, p in chosen.items())
        steps = []
        for name, now in chosen.items():
            bytes_now, change_now = options[name][now]
            for p, (nbytes, change) in options[name].items():
                if (extra := nbytes - bytes_now) > 0 and spent + extra <= budget:
                    steps.append(((change_now - change) / extra, name, p))
        if not steps or max(steps)[0] <= 0:
            break
        _, name, precision = max(steps)
        chosen[name] = precision
    return replace(base or Quantize(), precision="int8", matrices=chosen)


def _options(sensitivity: Sensitivity) -> dict[str, dict[Precision, tuple[int, float]]]:
    """Bytes with scales and expected squared change of the output, by matrix and precision."""
    found: dict[str, dict[Precision, tuple[int, float]]] = {}
    for cell, weights in enumerate(sensitivity.weights):
        for kind, w in zip(("weight_ih", "weight_hh"), weights, strict=True):
            raw = kind == "weight_ih" and cell < sensitivity.shape.directions
            options = found[f"{kind}_{sensitivity.shape.name(cell)}"] = {}
            for precision in (p for p in PRECISIONS if not (raw and p == "int8")):
                matrix = quantize_matrix(w, precision, 0)
                change = matrix.dequantized().astype(np.float64) - w
                options[precision] = matrix.nbytes, expected_squared_change(sensitivity, cell, kind, change)
    return found
