"""Keep-masks of all matrices of all LSTMs, from scores, a pattern, and one price for all or one sparsity for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...analysis.moments import Moments
from ...types import DoubleArray
from ...weights.layout import GATES
from .obs import losses
from .patterns import Groups, cheapest, groups, n_of_m
from .refit import Mask, quadratic
from .settings import Prune

OBS_ROUNDS = 4  # of an elimination
OUTPUT_AGNOSTIC = ("magnitude", "activation")  # scores that do not depend on the output


@dataclass(frozen=True)
class Recipe:
    """The settings of ``Prune`` with nothing left to choose.

    ``sweeps``: passes of a refit over every layer, from the bottom up, on what pruned layers give; 0: one fit of all
    layers on the operands of the dense run.
    """

    saliency: str
    gamma: float
    compensate: str
    ridge: float
    sweeps: int


@dataclass(frozen=True, eq=False)
class CellData:
    """Weights of one layer and direction in float64, and statistics of the dense run.

    ``w`` [4H, C]: [W_ih | W_hh].
    ``bias`` [4H].
    ``width``: columns of W_ih.
    ``prunable`` [C]: columns that may lose weights.
    ``moments``: of the operand z = [x ; h].
    ``rows`` [4H]: output sensitivity F_r.
    ``squares`` [4H, C]: mean squared gradients for the Taylor score, or None.
    """

    w: DoubleArray
    bias: DoubleArray
    width: int
    prunable: Mask
    moments: Moments
    rows: DoubleArray
    squares: DoubleArray | None

    @property
    def hidden(self) -> int:
        """H."""
        return len(self.w) // len(GATES)

    @property
    def matrices(self) -> tuple[slice, slice]:
        """Columns of W_ih and of W_hh."""
        return slice(0, self.width), slice(self.width, self.w.shape[1])


def scores(recipe: Recipe, data: CellData) -> DoubleArray:
    """The score of every single weight [4H, C]: the expected squared change of the output if it is set to zero.

    - "magnitude", order zero: w^2.
    - "taylor", first order: (w g)^2 with g^2 the mean squared gradient (``gradients.py``; Molchanov et al., CVPR 2019,
      with projections of the output in place of a loss).
    - "activation", first order: (|w| rms(z_j))^2, Wanda (arXiv 2306.11695).
    - second order: F_r^gamma w^2 E[z_j^2] (``analysis/sensitivity.py`` explains the damping gamma).

    Scores that ignore the output are relative to the layer's mean. Scores of a structure are sums over its weights.
    """
    magnitude, power = data.w**2, data.moments.power
    if recipe.saliency == "taylor":
        assert data.squares is not None, "taylor scores need gradients"
        return magnitude * data.squares
    if recipe.saliency in OUTPUT_AGNOSTIC:
        found = magnitude if recipe.saliency == "magnitude" else magnitude * power
        return np.asarray(found / (found.mean() or 1.0))
    return damped(data.rows, recipe.gamma)[:, None] * magnitude * power


def damped(rows: DoubleArray, gamma: float) -> DoubleArray:
    """F_r^gamma [R]; gamma = 0 ignores the output."""
    return np.asarray(rows**gamma) if gamma else np.ones(len(rows))


def weight_masks(prune: Prune, recipe: Recipe, cells: Sequence[CellData]) -> list[Mask]:
    """Keep-masks [4H, C] of an unstructured, N:M, block or column pattern, one per cell, over all LSTMs at once."""
    if recipe.saliency != "obs":
        return _kept(prune, [scores(recipe, data) for data in cells], cells, 1.0)
    problems = [quadratic(data.w, data.moments, recipe.ridge) for data in cells]
    keep = [np.ones(data.w.shape, dtype=bool) for data in cells]
    n_m = prune.n_of_m
    rounds = OBS_ROUNDS if n_m is None else n_m[1] - n_m[0]
    for done in range(1, rounds + 1):
        found = [
            np.where(mask, damped(data.rows, recipe.gamma)[:, None], 1.0) * losses(problem, mask)
            for problem, mask, data in zip(problems, keep, cells, strict=True)
        ]
        keep = _kept(prune, found, cells, done / rounds)
    return keep


def _kept(prune: Prune, found: Sequence[DoubleArray], cells: Sequence[CellData], part: float) -> list[Mask]:
    """Masks from scores; part: share (0 to 1) of the weights to be removed in the end that this round removes."""
    keep = [np.ones(data.w.shape, dtype=bool) for data in cells]
    grouped: list[tuple[int, slice, Groups, DoubleArray, DoubleArray]] = []
    for index, (score, data) in enumerate(zip(found, cells, strict=True)):
        for columns in data.matrices:
            may = data.prunable[columns]
            if prune.n_of_m is not None:
                n, m = prune.n_of_m
                keep[index][:, columns] = n_of_m(score[:, columns], m - round(part * (m - n)), m) | ~may
                continue
            group = groups(prune, data.hidden, len(may))
            sizes = group.sums(np.broadcast_to(may.astype(np.float64), score[:, columns].shape))
            grouped.append((index, columns, group, group.sums(score[:, columns]), sizes))
    together = [grouped] if prune.allocation == "global" else [[one] for one in grouped]
    for some in together:
        stay = cheapest([one[3] for one in some], [one[4] for one in some], part * prune.share) if some else []
        for (index, columns, group, _, _), one in zip(some, stay, strict=True):
            keep[index][:, columns] = group.per_weight(one)
    return keep
