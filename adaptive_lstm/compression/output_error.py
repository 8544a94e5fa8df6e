"""How much a model's output is expected to change by a change of one weight matrix."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..analysis.sensitivity import Sensitivity


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
