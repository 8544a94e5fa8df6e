"""Compensation and elimination against brute force on small matrices."""

import itertools

import numpy as np
import pytest
import torch

from adaptive_lstm.analysis.moments import Moments, moments
from adaptive_lstm.compression.pruning.masks import CellData, Recipe, weight_masks
from adaptive_lstm.compression.pruning.obs import losses
from adaptive_lstm.compression.pruning.refit import quadratic, refit, shifted_bias
from adaptive_lstm.compression.pruning.settings import Prune

ROWS, COLUMNS = 8, 6


def material(seed: int = 0, drift: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray, Moments]:
    """Weights [8, 6], dense operands d and pruned ones z [n, 6], and their moments; scales from 0.01 to 10."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(COLUMNS, COLUMNS)) * np.logspace(-2, 1, COLUMNS)
    d = rng.normal(size=(400, COLUMNS)) @ mixing + rng.normal(size=COLUMNS)
    z = d + drift * rng.normal(size=d.shape)
    first, second = torch.from_numpy(d), torch.from_numpy(z)
    return rng.normal(size=(ROWS, COLUMNS)), d, z, moments([(first[:150], second[:150]), (first[150:], second[150:])])


def least_squares(w: np.ndarray, d: np.ndarray, z: np.ndarray, keep: np.ndarray, ridge: float) -> np.ndarray:
    """One row [C] at a time: the pull toward the original weights as additional equations, and a free bias."""
    out = np.zeros_like(w)
    pull = np.sqrt(ridge * (z**2).mean(0) * len(z))
    for r, kept in enumerate(keep):
        equations = np.vstack([(z - z.mean(0))[:, kept], np.diag(pull)[:, kept]])
        right = np.concatenate([(d - d.mean(0)) @ w[r], pull * np.where(kept, w[r], 0.0)])
        out[r, kept] = np.linalg.lstsq(equations, right, rcond=None)[0]
    return out


def masks(kind: str) -> np.ndarray:
    rng = np.random.default_rng(1)
    keep = rng.random((ROWS, COLUMNS)) > 0.4
    if kind == "shared":
        keep[:] = keep[0]
        keep[ROWS // 2 :, 0] ^= True
    keep[0] = True
    keep[1] = False
    return keep


@pytest.mark.parametrize("kind", ["own", "shared"])
@pytest.mark.parametrize("drift", [0.0, 0.3])
@pytest.mark.parametrize("ridge", [0.01, 1.0])
def test_refit_is_least_squares(kind: str, drift: float, ridge: float) -> None:
    w, d, z, seen = material(drift=drift)
    keep = masks(kind)
    found = refit(quadratic(w, seen, ridge), keep)
    assert not found[~keep].any()
    scale = np.sqrt(seen.power)
    np.testing.assert_allclose(found * scale, least_squares(w, d, z, keep, ridge) * scale, rtol=1e-3, atol=1e-5)


def test_nothing_pruned_nothing_changed() -> None:
    w, _, _, seen = material()
    np.testing.assert_allclose(refit(quadratic(w, seen, 0.1), np.ones(w.shape, dtype=bool)), w, rtol=1e-9)


def test_columns_that_never_move_do_no_harm() -> None:
    w, d, _, _ = material()
    d[:, 2] = 0.0
    d[:, 4] = 3.0
    seen = moments([(torch.from_numpy(d), torch.from_numpy(d))])
    keep = np.ones(w.shape, dtype=bool)
    keep[:, [2, 4]] = False
    after = refit(quadratic(w, seen, 0.0), keep)
    bias = shifted_bias(np.zeros(ROWS), w, after, seen)
    np.testing.assert_allclose(d @ after.T + bias, d @ w.T, atol=1e-3)


def test_bias_keeps_the_mean() -> None:
    w, d, z, seen = material(drift=0.5)
    after = np.where(masks("own"), w, 0.0)
    bias = shifted_bias(np.full(ROWS, 2.0), w, after, seen)
    np.testing.assert_allclose((z @ after.T + bias).mean(0), (d @ w.T + 2.0).mean(0), atol=1e-9)


def loss(w: np.ndarray, best: np.ndarray, hessian: np.ndarray) -> float:
    return float((w - best) @ hessian @ (w - best))


@pytest.mark.parametrize("gone", [0, 2])
def test_obs_loss_is_that_of_every_single_removal(gone: int) -> None:
    w, _, _, seen = material()
    problem = quadratic(w, seen, 0.05)
    hessian = np.linalg.inv(problem.inverse)
    keep = np.ones(w.shape, dtype=bool)
    keep[1:, :gone] = False
    found = losses(problem, keep)
    assert (found[~keep] == -1).all()
    for row, column in zip(*np.nonzero(keep), strict=True):
        without = keep.copy()
        without[row, column] = False
        before, after = (refit(problem, k)[row] * problem.scale for k in (keep, without))
        expected = loss(after, problem.best[row], hessian) - loss(before, problem.best[row], hessian)
        assert found[row, column] == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_one_removal_is_the_best_and_has_the_closed_form() -> None:
    w, _, _, seen = material()
    problem = quadratic(w, seen, 0.05)
    hessian, found = np.linalg.inv(problem.inverse), losses(problem, np.ones(w.shape, dtype=bool))
    for row in range(ROWS):
        worth = {}
        for column in range(COLUMNS):  # exhaustive: every mask with one weight removed
            keep = np.ones(w.shape, dtype=bool)
            keep[row, column] = False
            worth[column] = loss(refit(problem, keep)[row] * problem.scale, problem.best[row], hessian)
        q = int(found[row].argmin())
        assert q == min(worth, key=worth.__getitem__)
        step = problem.best[row, q] / problem.inverse[q, q] * problem.inverse[q]  # Hassibi et al., 1993
        keep = np.ones(w.shape, dtype=bool)
        keep[row, q] = False
        np.testing.assert_allclose(refit(problem, keep)[row] * problem.scale, problem.best[row] - step, atol=1e-9)


def test_elimination_is_nearly_the_best_of_all_masks() -> None:
    w, _, _, seen = material(seed=3)
    data = CellData(w, np.zeros(ROWS), 3, np.ones(COLUMNS, dtype=bool), seen, np.ones(ROWS), None)
    problem = quadratic(w, seen, 0.05)
    hessian = np.linalg.inv(problem.inverse)

    def total(keep: np.ndarray) -> float:
        return sum(
            loss(*pair, hessian) for pair in zip(refit(problem, keep) * problem.scale, problem.best, strict=True)
        )

    def best(row: int) -> float:
        rest = np.ones((ROWS, COLUMNS), dtype=bool)
        found = []
        for x, h in itertools.product(range(3), repeat=2):  # 2:3 in both matrices: one of three goes in each
            keep = rest.copy()
            keep[row, [x, 3 + h]] = False
            found.append(loss(refit(problem, keep)[row] * problem.scale, problem.best[row], hessian))
        return min(found)

    (obs,) = weight_masks(Prune("2:3", saliency="obs"), Recipe("obs", 0.0, "refit", 0.05, 0), [data])
    (diagonal,) = weight_masks(Prune("2:3"), Recipe("second-order", 0.0, "refit", 0.05, 0), [data])
    exhaustive = sum(best(row) for row in range(ROWS))
    assert exhaustive <= total(obs) * (1 + 1e-9)
    assert total(obs) <= 1.3 * exhaustive
    assert total(obs) < total(diagonal)
