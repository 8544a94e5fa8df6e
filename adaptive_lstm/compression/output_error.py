"""How much a model's output changes: as measured, and as expected from a change of one weight matrix."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ..analysis.measure_sensitivity import Output
from ..analysis.sensitivity import Sensitivity
from ..model_io import call, first_tensor, picked
from .pruning.search import relative_error


@torch.no_grad()
def outputs(model: nn.Module, batches: Iterable[Any], output: Output = first_tensor) -> list[torch.Tensor]:
    """The model's output for every batch, in float64."""
    return [picked(output, call(model, item)).double() for item in batches]


def relative_change(old: Sequence[torch.Tensor], new: Sequence[torch.Tensor]) -> float:
    """Root mean square change of outputs, as a share of their deviation from their mean per feature."""
    return math.sqrt(relative_error(new, old))


def expected_squared_change(sensitivity: Sensitivity, cell: int, kind: str, change: npt.NDArray[np.float64]) -> float:
    """sum_r F_r d_r^T E[z z^T] d_r: expected squared change of the output at one timestep, in squared output units.

    The diagonal Gauss-Newton approximation of ``Sensitivity``.

    Args:
        sensitivity: of the stack: F_r of every gate row r, and the second moments of its operands z.
        cell: the layer and direction.
        kind: "weight_ih" or "weight_hh".
        change: [4H, C] the change d of the matrix, row by row.
    """
    width = sensitivity.shape.input_width(cell)
    columns = slice(None, width) if kind == "weight_ih" else slice(width, None)
    moments = sensitivity.moments[cell][columns, columns]
    return float(sensitivity.rows[cell] @ np.einsum("rc,rc->r", change @ moments, change))
