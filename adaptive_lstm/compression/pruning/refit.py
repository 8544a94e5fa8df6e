"""Compensation for pruned weights: none, fold their mean into the bias, or refit the rest by least squares.

A refit of one row minimises E[(w.d + b - w'.z - b')^2] + ridge * sum_j E[z_j^2] (w'_j - w_j)^2 over the kept weights w'
and the bias b'; d is the operand of the dense run, z the operand of the pruned one. Without the ridge toward the
original weights, the recurrence amplifies the errors that a fit of single timesteps leaves. With
H = cov(z) + ridge * diag(E[z^2]) the minimum with nothing pruned is w* = w + w cov(d - z, z) H^-1, and the rest is one
step of Optimal Brain Surgeon (Hassibi et al., 1993): w' = w* - w*_P (H^-1_PP)^-1 H^-1_P: for the row's removed
columns P.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ...analysis.moments import Moments
from ...types import DoubleArray

Mask = npt.NDArray[np.bool_]

_FLOOR, _DEAD = 1e-6, 1e-12  # of E[z_j^2], and of its mean: columns that never move would make H singular
DIRECT_COLUMNS = 256  # above, single weights are refitted by conjugate gradients
ITERATIONS, RESIDUAL = 200, 1e-3
_TINY = 1e-30
_BATCH = 1 << 24  # numbers in one batch of systems, 128 MiB


@dataclass(frozen=True, eq=False)
class Quadratic:
    """The losses of rows w' around their minima: (w' - w*)^T H (w' - w*), in columns that are scaled so that H_jj = 1.

    ``best`` [R, C]: w* times ``scale`` [C]; ``hessian`` [C, C]: H; ``inverse``: H^-1. Raw features may span ten
    decades.
    """

    best: DoubleArray
    hessian: DoubleArray
    inverse: DoubleArray
    scale: DoubleArray


def quadratic(w: DoubleArray, moments: Moments, ridge: float) -> Quadratic:
    """The refit problem of all rows of w [R, C], with nothing pruned yet."""
    diagonal = (ridge + _FLOOR) * moments.power + _DEAD * (moments.power.mean() or 1.0)
    hessian = moments.covariance + np.diag(diagonal)
    scale = np.sqrt(hessian.diagonal())
    hessian = hessian / np.outer(scale, scale)
    inverse = np.linalg.inv(hessian)
    best = w * scale
    drift = moments.cross - moments.covariance
    if np.any(drift):
        best = best + (w @ (drift / scale)) @ inverse
    return Quadratic(best, hessian, (inverse + inverse.T) / 2, scale)


def refit(problem: Quadratic, keep: Mask) -> DoubleArray:
    """The best weights [R, C] that are zero outside ``keep`` [R, C]."""
    out = problem.best.copy()
    masks, mask_of = np.unique(np.packbits(keep, axis=1), axis=0, return_inverse=True)
    if 4 * len(masks) <= len(keep):  # blocks, columns, units: one factorisation for all rows that share a mask
        for index in range(len(masks)):
            rows = np.flatnonzero(mask_of.ravel() == index)
            gone = np.flatnonzero(~keep[rows[0]])
            if len(gone):
                solved = np.linalg.solve(problem.inverse[np.ix_(gone, gone)], problem.best[np.ix_(rows, gone)].T)
                out[rows] -= solved.T @ problem.inverse[gone]
    elif keep.shape[1] > DIRECT_COLUMNS:
        out = conjugate_gradients(problem, keep)
    else:
        for system in systems(problem, keep):
            solved = torch.linalg.solve_triangular(system.factor.mT, system.solved, upper=True)
            step = np.zeros((len(system.rows), keep.shape[1] + 1))
            np.put_along_axis(step, system.gone, solved[..., 0].numpy(), axis=1)
            out[system.rows] -= step[:, :-1] @ problem.inverse
    return np.where(keep, out / problem.scale, 0.0)


def conjugate_gradients(problem: Quadratic, keep: Mask) -> DoubleArray:
    """As ``refit``, in scaled columns, for all rows at once: one matrix product per iteration.

    A factorisation per row would cost the cube of the columns. It ends where every residual is RESIDUAL of its start,
    or after ITERATIONS; float32 is enough for that.
    """
    hessian = torch.from_numpy(problem.hessian).float()
    best, mask = torch.from_numpy(problem.best).float(), torch.from_numpy(keep).float()
    x = best * mask
    residual = ((best - x) @ hessian) * mask
    direction = residual
    norm = residual.square().sum(1, keepdim=True)
    enough = RESIDUAL**2 * norm
    for _ in range(ITERATIONS):
        if bool((norm <= enough).all()):
            break
        product = (direction @ hessian) * mask
        step = norm / (direction * product).sum(1, keepdim=True).clamp_min(_TINY)
        x = x + step * direction
        residual = residual - step * product
        before, norm = norm, residual.square().sum(1, keepdim=True)
        direction = residual + norm / before.clamp_min(_TINY) * direction
    return np.asarray(x.double().numpy())


@dataclass(frozen=True, eq=False)
class Systems:
    """Some rows with masks of their own, whose p removed columns are padded with column C.

    ``rows`` [n]: their numbers.
    ``gone`` [n, p]: removed columns.
    ``factor`` [n, p, p]: Cholesky factor L of H^-1_PP.
    ``solved`` [n, p, 1]: L^-1 w*_P.
    """

    rows: npt.NDArray[np.int64]
    gone: npt.NDArray[np.int64]
    factor: torch.Tensor
    solved: torch.Tensor


def systems(problem: Quadratic, keep: Mask) -> Iterator[Systems]:
    """All rows with removed columns, similar counts together, in batches that fit in memory."""
    columns = keep.shape[1]
    padded = np.pad(problem.inverse, (0, 1))
    best = np.concatenate([problem.best, np.zeros((len(keep), 1))], axis=1)
    counts = (~keep).sum(axis=1)
    rows = np.argsort(counts, kind="stable")
    rows = rows[counts[rows] > 0]
    while len(rows):
        few = rows[-max(1, _BATCH // int(counts[rows[-1]]) ** 2) :]
        rows = rows[: len(rows) - len(few)]
        most = int(counts[few[-1]])
        gone = np.argsort(keep[few], axis=1, kind="stable")[:, :most]
        gone = np.where(np.arange(most) < counts[few][:, None], gone, columns)
        matrices = padded[gone[:, :, None], gone[:, None, :]]
        matrices[:, range(most), range(most)] += gone == columns  # the padding adds equations of the form 1 * 0 = 0
        factor = torch.linalg.cholesky(torch.from_numpy(matrices))
        right = torch.from_numpy(np.take_along_axis(best[few], gone, axis=1))[..., None]
        yield Systems(few, gone, factor, torch.linalg.solve_triangular(factor, right, upper=False))


def shifted_bias(bias: DoubleArray, before: DoubleArray, after: DoubleArray, moments: Moments) -> DoubleArray:
    """The bias [R] that keeps the mean of every row when weights [R, C] change from ``before`` to ``after``."""
    return np.asarray(bias + before @ moments.dense_mean - after @ moments.mean)
