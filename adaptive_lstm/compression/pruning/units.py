"""Pruning of hidden units: the weights that belong to one, its score, and the units to remove."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...types import DoubleArray, StackShape
from ...weights.layout import GATES, rows_of_units
from .masks import CellData, Recipe, scores
from .patterns import cheapest
from .refit import Mask
from .settings import Prune


def consumers(shape: StackShape, cell: int) -> list[tuple[int, int]]:
    """Cells that read the units of a cell, with the first column of their [W_ih | W_hh]; none ahead of a projection."""
    if shape.proj_size:
        return []
    layer, direction = divmod(cell, shape.directions)
    above = range((layer + 1) * shape.directions, min((layer + 2) * shape.directions, shape.num_cells))
    return [(cell, shape.input_width(cell)), *((p, direction * shape.hidden_size) for p in above)]


def unit_scores(shape: StackShape, found: Sequence[DoubleArray]) -> list[DoubleArray]:
    """Scores [H] of the units of every cell: sums over their gate rows and over the columns that read them.

    found: scores of single weights [4H, C], one per cell.
    """
    out = []
    for cell in range(shape.num_cells):
        total = found[cell].sum(axis=1).reshape(len(GATES), -1).sum(axis=0)
        for consumer, start in consumers(shape, cell):
            total = total + found[consumer][:, start : start + shape.hidden_size].sum(axis=0)
        out.append(total)
    return out


def live_units(
    prune: Prune, recipe: Recipe, shapes: Sequence[StackShape], stacks: Sequence[Sequence[CellData]]
) -> list[list[Mask]]:
    """Masks of the live units [H], per LSTM and cell; every cell keeps at least one."""
    values = [
        unit_scores(shape, [scores(recipe, data) for data in stack])
        for shape, stack in zip(shapes, stacks, strict=True)
    ]
    flat = [value for stack in values for value in stack]
    sizes = [np.where(np.arange(len(v)) == v.argmax(), 0.0, 1.0) for v in flat]
    if prune.allocation == "global":
        share = prune.share * sum(len(v) for v in flat) / max(sum(float(s.sum()) for s in sizes), 1.0)
        keep = cheapest(flat, sizes, min(share, 1.0))
    else:
        keep = [
            cheapest([v], [s], min(prune.share * len(v) / max(float(s.sum()), 1.0), 1.0))[0]
            for v, s in zip(flat, sizes, strict=True)
        ]
    left = iter(keep)
    return [[next(left) for _ in stack] for stack in values]


def unit_masks(shape: StackShape, live: Sequence[Mask], cells: Sequence[CellData]) -> list[Mask]:
    """Keep-masks [4H, C] without the rows of pruned units and without the columns that read them."""
    keep = [np.ones(data.w.shape, dtype=bool) for data in cells]
    for cell, units in enumerate(live):
        keep[cell][~rows_of_units(units)] = False
        for consumer, start in consumers(shape, cell):
            keep[consumer][:, start : start + shape.hidden_size][:, ~units] = False
    return keep
