"""Float32 weights that round to a given matrix: the way back from int8, so that a file need not hold both."""

from __future__ import annotations

import numpy as np

from ..types import FloatArray
from .matrices import Matrix

_STEPS = 8  # neighbouring floats that are tried for the largest weight of a row


def on_grid(matrix: Matrix) -> FloatArray:
    """Float32 weights [rows, columns] from which ``quantize_matrix`` makes this matrix again.

    An int8 weight q is q * scale. ``quantize_matrix`` takes the scale of a row from its largest magnitude, divided by
    the integer that encodes it, which need not give back the same float: among the neighbours of that magnitude, in
    every column that has it, one is looked for that does. Where there is none, the scale that comes back is a neighbour
    too.
    """
    w = matrix.dequantized()
    if matrix.scale is None:
        return w
    codes = np.abs(matrix.values.astype(np.int32))
    levels = codes.max(axis=1, initial=0)
    rows = np.flatnonzero(levels)
    levels, scale = levels[rows], matrix.scale[rows]
    untried = codes[rows] == levels[:, None]
    columns = untried.argmax(axis=1)
    found = w[rows, columns]
    left = np.arange(len(rows))  # those whose scale has not come back
    while len(left):
        at = untried[left].argmax(axis=1)
        untried[left, at] = False
        for step in range(-_STEPS, _STEPS + 1):
            tried = _moved(w[rows[left], at], step)
            sent = tried if matrix.column_scale is None else tried * matrix.column_scale[at]
            fits = (np.abs(sent).astype(np.float64) / levels[left]).astype(np.float32) == scale[left]
            columns[left[fits]], found[left[fits]] = at[fits], tried[fits]
            left, at = left[~fits], at[~fits]
        left = left[untried[left].any(axis=1)]
    w[rows, columns] = found
    return _no_larger(w, rows, columns, matrix.column_scale)


def _moved(values: FloatArray, steps: int) -> FloatArray:
    """The floats that are so many steps further from zero."""
    return (values.view(np.int32) + np.int32(steps)).view(np.float32)


def _no_larger(w: FloatArray, rows: np.ndarray, columns: np.ndarray, column_scale: FloatArray | None) -> FloatArray:
    """The same with no magnitude, as it is rounded, above the one that was chosen for its row."""
    factor = np.float32(1) if column_scale is None else column_scale
    for _ in range(2 * _STEPS):
        sent = np.abs(w[rows] * factor)
        over = sent > np.take_along_axis(sent, columns[:, None], axis=1)
        if not over.any():
            break
        w[rows] = np.where(over, _moved(w[rows], -1), w[rows])
    return w
