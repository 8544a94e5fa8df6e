"""Compensated rounding of int8 weights: later columns compensate for the rounding error of each. GPTQ on an LSTM.

The values of a layer's operand z = [x ; h] are correlated, so small changes of other columns can undo the error of a
column. One by one, columns are rounded to their grid, and the resulting quadratic loss of the layer's pre-activations
is minimised over the columns still to come (Frantar et al., GPTQ, arXiv 2210.17323: Optimal Brain Surgeon with a grid
in place of zero). Pruned weights stay zero (as in SparseGPT, arXiv 2301.00774). Weights that are not int8 come last
and absorb the remaining error.

All layers are rounded at once, on operands of the unrounded model: operands of a model with rounded layers below made
results worse.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from ..analysis.moments import Moments
from ..runtime.adapt import adapted_lstms
from ..runtime.lstm import AdaptiveLSTM
from ..types import DoubleArray, StackShape
from ..weights.fingerprint import weights_digest
from ..weights.layout import CellTensors
from ..weights.matrices import Matrix
from ..weights.precision import Quantize
from ..weights.quantization import GRID_COLUMNS, quantize_stack
from ..weights.replaced import ReplacedWeights
from .pruning.model_runs import ModelRuns, Weights, originals
from .pruning.refit import Mask, Quadratic, quadratic, shifted_bias
from .pruning.stack import DenseRun, dense_moments, dense_run, with_weights

ROUNDING_RIDGE = 0.1  # toward the weights before rounding; GPTQ calls it damping
LAZY_COLUMNS = 64  # columns whose errors are passed on to the columns behind them together


def round_model(
    model: nn.Module,
    batches: Sequence[Any],
    settings: Mapping[str, Quantize],
    pruned: Mapping[str, ReplacedWeights],
) -> dict[str, ReplacedWeights]:
    """Weights on the int8 grids of ``settings`` for the LSTMs of a model, by name; the model is not changed.

    LSTMs that have no int8 matrix in ``settings`` keep their weights from ``pruned``.

    Args:
        model: an adapted model in eval mode, or one ``AdaptiveLSTM``.
        batches: inputs to fit on, each as the model takes it.
        settings: the precision of every matrix, by LSTM; with ``raw_scale`` where it is needed.
        pruned: weights to round instead of the parameters, by LSTM.

    Raises:
        InputError: an LSTM that the inputs do not reach.
        NonFiniteError: an LSTM is given NaN or infinity.
    """
    lstms = adapted_lstms(model)
    runs = ModelRuns(model, lstms)
    weights = weights_of(lstms, pruned)
    if not any(map(len, grids_of(runs.shapes, weights, settings).values())):
        return dict(pruned)
    calls = runs.calls(weights if pruned else None, batches)
    dense = {name: dense_run(shape, weights[name], calls[name]) for name, shape in runs.shapes.items()}
    return dict(pruned) | round_runs(dense, settings, lstms)


def weights_of(lstms: Mapping[str, AdaptiveLSTM], replaced: Mapping[str, ReplacedWeights]) -> Weights:
    """The replaced weights of every LSTM, or else its parameters."""
    return originals(lstms) | {name: one.cells for name, one in replaced.items()}


def grids_of(
    shapes: Mapping[str, StackShape], weights: Weights, settings: Mapping[str, Quantize]
) -> dict[str, list[DoubleArray]]:
    """``grid`` of [W_ih | W_hh] of every cell, by LSTM; empty for those without a matrix on one."""
    grids: dict[str, list[DoubleArray]] = {}
    for name, shape in shapes.items():
        nearest = quantize_stack(weights[name], shape, settings[name])
        found = [np.concatenate([grid(m.w_ih), grid(m.w_hh)], axis=1) for m in nearest]
        grids[name] = found if any(one.any() for one in found) else []
    return grids


def round_runs(
    dense: Mapping[str, DenseRun],
    settings: Mapping[str, Quantize],
    lstms: Mapping[str, AdaptiveLSTM],
    *,
    seen: Mapping[str, Sequence[Moments]] | None = None,
    tick: Callable[[], object] = lambda: None,
) -> dict[str, ReplacedWeights]:
    """The rounded weights of the LSTMs that have matrices on a grid, by name.

    Args:
        dense: the weights to round, and their recorded operands, by LSTM.
        settings: the precision of every matrix, by LSTM.
        lstms: whose parameters are replaced.
        seen: moments of the operands of every cell, by LSTM, where they are known.
        tick: called before every cell.
    """
    shapes, weights = {name: run.shape for name, run in dense.items()}, {n: run.weights for n, run in dense.items()}
    return {
        name: ReplacedWeights(
            round_stack(dense[name], steps, (seen or {}).get(name), tick), weights_digest(lstms[name])
        )
        for name, steps in grids_of(shapes, weights, settings).items()
        if steps
    }


def grid(matrix: Matrix) -> DoubleArray:
    """The step of the grid of every weight [rows, columns]; 0: the weight may take any value.

    Weights on a grid are quantized again, without a change, when they are packed (``grid_levels``). That does not hold
    for narrow matrices, so they get no grid.
    """
    if matrix.precision != "int8" or matrix.scale is None or matrix.values.shape[1] < GRID_COLUMNS:
        return np.zeros(matrix.values.shape)
    step = np.repeat(matrix.scale[:, None].astype(np.float64), matrix.values.shape[1], axis=1)
    return step if matrix.column_scale is None else step / matrix.column_scale


def round_stack(
    run: DenseRun,
    grids: Sequence[DoubleArray],
    seen: Sequence[Moments] | None = None,
    tick: Callable[[], object] = lambda: None,
) -> tuple[CellTensors, ...]:
    """The weights of a stack, rounded.

    Args:
        run: the weights to round, and their recorded operands.
        grids: [4H, C] per cell, the step of the grid of every weight of [W_ih | W_hh]; 0: none.
        seen: moments of the operands of every cell; None: of the run.
        tick: called before every cell.
    """
    out = []
    for cell, old in enumerate(run.weights):
        tick()
        moments = seen[cell] if seen else dense_moments(run, cell)
        w = torch.cat([old.w_ih, old.w_hh], dim=1).double().numpy()
        pruned = (w == 0).any()
        keep = w != 0 if pruned else np.ones(w.shape, dtype=bool)
        new = rounded(quadratic(w, moments, ROUNDING_RIDGE), grids[cell], keep)
        out.append(with_weights(old, new, shifted_bias(old.bias.double().numpy(), w, new, moments)))
    return tuple(out)


def rounded(problem: Quadratic, grid: DoubleArray, keep: Mask) -> DoubleArray:
    """Weights [R, C] that lie on ``grid`` [R, C] (0: anywhere), at most 127 steps from zero, zero outside ``keep``."""
    order = np.argsort(~(grid > 0).any(axis=0), kind="stable")
    inverse = problem.inverse[np.ix_(order, order)]
    factor = np.linalg.cholesky(inverse).T  # H^-1 = U^T U: row j: how the columns behind j compensate for an error
    w, grid, keep = problem.best[:, order], (grid * problem.scale)[:, order], keep[:, order]  # copies
    columns = w.shape[1]
    for first in range(0, columns, LAZY_COLUMNS):
        last = min(first + LAZY_COLUMNS, columns)
        errors = np.empty((len(w), last - first))
        for j in range(first, last):
            value = _nearest(w[:, j], grid[:, j], keep[:, j])
            error = errors[:, j - first] = (w[:, j] - value) / factor[j, j]
            w[:, j] = value
            w[:, j + 1 : last] -= np.outer(error, factor[j, j + 1 : last])
        w[:, last:] -= errors @ factor[first:last, last:]
    out = np.empty_like(w)
    out[:, order] = w
    return np.asarray(out / problem.scale)


def _nearest(w: DoubleArray, grid: DoubleArray, keep: Mask) -> DoubleArray:
    step = np.where(grid > 0, grid, 1.0)
    on_grid = np.clip(np.rint(w / step), -127, 127) * step
    return np.where(keep, np.where(grid > 0, on_grid, w), 0.0)
