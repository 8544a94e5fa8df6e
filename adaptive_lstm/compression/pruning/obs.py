"""Elimination in rounds by the exact second-order loss of every weight: Optimal Brain Surgeon with the Hessian of z.

In the quadratic of a row (``compensate.Quadratic``) with the columns P removed and the rest refitted, removing column j
as well costs w'_j^2 / [(H_KK)^-1]_jj, K the kept columns. One weight a round is the greedy elimination of Optimal Brain
Compression (arXiv 2208.11580); a few rounds with many weights each are nearly as good and take seconds. All rows share
H, as in SparseGPT (arXiv 2301.00774), but each keeps a mask and an order of its own, and no column has to go first.
"""

from __future__ import annotations

import numpy as np
import torch

from ...analysis.moments import Doubles
from .refit import Mask, Quadratic, systems


def losses(problem: Quadratic, keep: Mask) -> Doubles:
    """What removing one more weight costs in the quadratic of its row [R, C]; -1 for what is gone already."""
    columns = keep.shape[1]
    weights = problem.best.copy()
    spread = np.repeat(problem.inverse.diagonal()[None], len(keep), axis=0)
    inverse = np.concatenate([problem.inverse, np.zeros((1, columns))])
    for some in systems(problem, keep):
        across = torch.from_numpy(inverse[some.gone])  # H^-1_P: of every row [n, p, C]
        half = torch.linalg.solve_triangular(some.factor, across, upper=False)
        weights[some.rows] -= (half.mT @ some.solved)[..., 0].numpy()
        spread[some.rows] -= half.pow(2).sum(1).numpy()
    smallest = np.finfo(np.float64).tiny
    return np.where(keep, weights**2 / np.maximum(spread, smallest), -1.0)
