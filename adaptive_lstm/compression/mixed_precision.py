"""Mixed precision: which matrix gets how many bits, chosen by what the model's output feels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..analysis.sensitivity import Sensitivity
from ..errors import InputError
from ..weights.precision import PRECISIONS, Precision, Quantize
from ..weights.quantization import quantize_matrix


def mixed_precision(
    sensitivity: Sensitivity,
    *,
    size: float | None = None,
    error: float | None = None,
    base: Quantize | None = None,
) -> Quantize:
    """A precision for every matrix, so that the expected change of the output is small for its bytes.

    All matrices start in int8, those that read raw features in bfloat16, as they do in ``Quantize("int8")``; the one
    whose next precision lowers the expected squared change of the output most per byte goes first (greedy, as for a
    knapsack), until the budget is met. The expected squared change of a matrix is sum_r F_r d_r^T E[z z^T] d_r with the
    rounding errors d_r of its rows: the diagonal Gauss-Newton approximation of ``Sensitivity``, for weights only;
    rounding of activations is not in it.

    Args:
        sensitivity: of the stack, from ``measure_sensitivity``.
        size: bytes of all matrices with their scales, as a share of float32. Those of a projection stay in int8.
        error: expected root mean square change of the output by all matrices at one timestep, in units of the output.
            Give one of the two.
        base: other settings; its precisions are replaced.

    Raises:
        InputError: no budget or two, or one that cannot be met.
    """
    if (size is None) == (error is None):
        raise InputError("give one budget: size=0.3 (share of float32) or error=0.01 (change of the output)")
    if error is not None and not error >= 0:
        raise InputError(f"error: got {error}, expected a number of at least 0")
    options, sizes, shape = _options(sensitivity), _sizes(sensitivity), sensitivity.shape
    chosen = {name: min(errors, key=sizes[name].__getitem__) for name, errors in options.items()}
    projection = shape.num_cells * shape.proj_size * (shape.hidden_size + 4)  # int8 with a scale per row
    whole = sum(by["fp32"] for by in sizes.values()) + 4 * shape.num_cells * shape.proj_size * shape.hidden_size
    least = projection + sum(sizes[name][p] for name, p in chosen.items())
    if size is not None and not size * whole >= least:
        raise InputError(f"size: got {size}, expected at least {least / whole:.4f}: fewer bytes are not to be had")
    budget = np.inf if size is None else size * whole
    while error is None or sum(options[name][p] for name, p in chosen.items()) > error**2:
        spent = projection + sum(sizes[name][p] for name, p in chosen.items())
        steps = [
            ((options[name][chosen[name]] - options[name][p]) / extra, name, p)
            for name in chosen
            for p in options[name]
            if (extra := sizes[name][p] - sizes[name][chosen[name]]) > 0 and spent + extra <= budget
        ]
        if not steps or max(steps)[0] <= 0:
            break
        _, name, precision = max(steps)
        chosen[name] = precision
    return replace(base or Quantize(), precision="int8", matrices=chosen)


def _sizes(sensitivity: Sensitivity) -> dict[str, dict[Precision, int]]:
    """Bytes with scales, by matrix and precision."""
    found: dict[str, dict[Precision, int]] = {}
    for cell, weights in enumerate(sensitivity.weights):
        for kind, w in zip(("weight_ih", "weight_hh"), weights, strict=True):
            name = f"{kind}_{sensitivity.shape.name(cell)}"
            found[name] = {p: quantize_matrix(w, p, 0).nbytes for p in PRECISIONS}
    return found


def _options(sensitivity: Sensitivity) -> dict[str, dict[Precision, float]]:
    """Expected squared change of the output, by matrix and precision."""
    found: dict[str, dict[Precision, float]] = {}
    for cell, (w_ih, _) in enumerate(sensitivity.weights):
        width = w_ih.shape[1]
        for kind, part, w in zip(
            ("weight_ih", "weight_hh"), (slice(None, width), slice(width, None)), sensitivity.weights[cell], strict=True
        ):
            moments, rows = sensitivity.moments[cell][part, part], sensitivity.rows[cell]
            errors: dict[Precision, float] = {}
            raw = kind == "weight_ih" and cell < sensitivity.shape.directions
            for precision in (p for p in PRECISIONS if not (raw and p == "int8")):
                change = quantize_matrix(w, precision, 0).dequantized().astype(np.float64) - w
                errors[precision] = float(rows @ np.einsum("rc,rc->r", change @ moments, change))
            found[f"{kind}_{sensitivity.shape.name(cell)}"] = errors
    return found
