"""Exact second-order loss of every weight, for elimination in rounds: Optimal Brain Surgeon with the Hessian of z.

In the quadratic of a row (``refit.Quadratic``) with the columns P removed and the rest refitted, removing column j as
well costs w'_j^2 / [(H_KK)^-1]_jj, K the kept columns. One weight per round is the greedy elimination of Optimal Brain
Compression (arXiv 2208.11580); a few rounds with many weights each are nearly as good and take seconds. All rows share
H, as in SparseGPT (arXiv 2301.00774), but each has its own mask and its own order of elimination.
"""

from __future__ import annotations

import numpy as np
import torch

from ...types import DoubleArray
from .refit import Mask, Quadratic, systems


def losses(problem: Quadratic, keep: Mask) -> DoubleArray:
    """Loss of removing each weight [R, C] in the quadratic of its row; -1 for weights already removed."""
    columns = keep.shape[1]
    weights = problem.best.copy()
    variance = np.repeat(problem.inverse.diagonal()[None], len(keep), axis=0)
    inverse = np.concatenate([problem.inverse, np.zeros((1, columns))])
    for some in systems(problem, keep):
        across = torch.from_numpy(inverse[some.gone])  # H^-1_P: of every row [n, p, C]
        half = torch.linalg.solve_triangular(some.factor, across, upper=False)
        weights[some.rows] -= (half.mT @ some.solved)[..., 0].numpy()
        variance[some.rows] -= half.pow(2).sum(1).numpy()
    smallest = np.finfo(np.float64).tiny
    return np.where(keep, weights**2 / np.maximum(variance, smallest), -1.0)
