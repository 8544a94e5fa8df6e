"""Operand statistics against plain loops over values from torch's own LSTM, and the thresholds that a price chooses."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import adaptive_lstm as al
from adaptive_lstm.analysis import delta_curves as curves
from adaptive_lstm.types import DoubleArray

from ..support.helpers import adapted, infer_natively, signal

I = 3  # noqa: E741 (the letter of the input size everywhere)
H, B, T = 5, 3, 14
X = signal(T, B, I, step=0.3)
X[4:7] = X[4]  # exact repeats cost nothing at any threshold
LENGTHS = torch.tensor([9, T, 1])


def operands(lstm: nn.LSTM, x: torch.Tensor, h0: torch.Tensor, c0: torch.Tensor) -> list[DoubleArray]:
    """z = [x ; h] [T, C] of every layer and direction for one sequence [T, I], in the order of the direction's time.

    Every layer and direction runs as an ``nn.LSTM`` of its own, independent of the package.
    """
    found = []
    directions = 2 if lstm.bidirectional else 1
    for layer in range(lstm.num_layers):
        outputs = []
        for d in range(directions):
            cell = layer * directions + d
            one = nn.LSTM(x.shape[1], lstm.hidden_size, proj_size=lstm.proj_size).double()
            for mine, weight in zip(one.parameters(), lstm.all_weights[cell], strict=True):
                mine.data = weight.data
            given = x.flip(0) if d else x
            y, _ = one(given, (h0[cell : cell + 1], c0[cell : cell + 1]))
            found.append(torch.cat([given, torch.cat([h0[cell : cell + 1], y[:-1]])], dim=1).detach().numpy())
            outputs.append(y.flip(0) if d else y)
        x = torch.cat(outputs, dim=1).detach()
    return found


def played(sequences: list[DoubleArray], thresholds: npt.NDArray[np.float32]) -> tuple[DoubleArray, DoubleArray]:
    """Activity and residual [K, C] of the delta rule, one column, one threshold and one sequence at a time."""
    sent, squares = np.zeros(thresholds.shape), np.zeros(thresholds.shape)
    for k, row in enumerate(thresholds):
        for j, threshold in enumerate(row):
            for values in sequences:
                last = 0.0
                for t, value in enumerate(values[:, j]):
                    if value != last and (t == 0 or abs(value - last) > threshold):
                        last = value
                        sent[k, j] += 1
                    squares[k, j] += (value - last) ** 2
    steps = sum(len(values) for values in sequences)
    return sent / steps, squares / steps


@pytest.mark.parametrize("kind", ["padded", "packed", "carried"])
@pytest.mark.parametrize(
    "options", [{}, {"bidirectional": True}, {"proj_size": 2}], ids=["forward", "both ways", "projection"]
)
def test_statistics_by_hand(options: dict[str, Any], kind: str) -> None:
    fast = adapted(I, H, 2, **options)
    fast.double()
    x, shape = X.double(), fast.stack_shape
    h0 = torch.zeros(shape.num_cells, B, shape.output_size, dtype=torch.float64)
    c0 = torch.zeros(shape.num_cells, B, H, dtype=torch.float64)
    item: Any = x
    if kind == "packed":
        item = pack_padded_sequence(x, LENGTHS, enforce_sorted=False)
    elif kind == "carried":
        h0, c0 = torch.rand_like(h0), torch.rand_like(c0)
        item = (x, (h0, c0))
    got = al.measure_sensitivity(fast, [item], probes=1)
    lengths = LENGTHS.tolist() if kind == "packed" else [T] * B
    assert got.steps == sum(lengths)
    each = [operands(fast, x[:n, b], h0[:, b], c0[:, b]) for b, n in enumerate(lengths)]
    for cell in range(shape.num_cells):
        sequences = [z[cell] for z in each]
        z = np.concatenate(sequences)
        np.testing.assert_allclose(got.moments[cell], z.T @ z / len(z), rtol=1e-10, atol=1e-15)
        np.testing.assert_allclose(got.means[cell], z.mean(axis=0), rtol=1e-10, atol=1e-15)
        measured = got.curves[cell]
        activity, residual = played(sequences, measured.thresholds)
        np.testing.assert_allclose(measured.activity, activity, rtol=1e-12)
        np.testing.assert_allclose(measured.residual, residual, rtol=1e-10, atol=1e-15)
        assert (measured.activity[0] > measured.activity[-1]).all()  # the grid reaches far enough to matter


def test_the_grid_follows_the_weights() -> None:
    lstm = adapted(I, H)
    w_ih, w_hh = lstm.all_weights[0][:2]
    with torch.no_grad():
        w_ih[:, 1] = 0  # a dead column
    (measured,) = al.measure_sensitivity(lstm, X, probes=1).curves
    weight = torch.cat([w_ih, w_hh], dim=1).detach().double()
    moved = measured.thresholds * weight.pow(2).mean(0).sqrt().numpy()
    live = np.arange(I + H) != 1
    assert not measured.thresholds[0].any()
    assert (np.diff(measured.thresholds, axis=0) > 0).all()
    np.testing.assert_allclose(moved[:, live], np.repeat(curves.GRID[:, None], I + H - 1, axis=1), rtol=1e-6)
    assert np.isfinite(measured.thresholds).all()
    assert (measured.thresholds[1:, 1] > measured.thresholds[1:, live].max(axis=1)).all()


def test_batches_and_blocks_do_not_matter() -> None:
    fast = adapted(I, H, 2, bidirectional=True)
    fast.double()
    x = X.double()
    together = al.measure_sensitivity(fast, [x], probes=1)
    apart = al.measure_sensitivity(fast, [x[:, :1], x[:, 1:]], probes=1)
    with mock.patch.object(curves, "_BLOCK", 1):
        narrow = al.measure_sensitivity(fast, [x], probes=1)
    for cell in range(4):
        for other in (apart, narrow):
            np.testing.assert_allclose(other.moments[cell], together.moments[cell], rtol=1e-12, atol=1e-15)
            np.testing.assert_allclose(other.curves[cell].activity, together.curves[cell].activity, rtol=1e-12)
            np.testing.assert_allclose(other.curves[cell].residual, together.curves[cell].residual, rtol=1e-12)


# ------------------------------------------------------------------------------------------------- expected activity


def test_expected_activity_of_raw_columns_is_that_of_a_run() -> None:
    # Skipping leaves the raw features as they are, so here the estimate from the dense run is exact.
    lstm = adapted(I, H)
    measured = al.measure_sensitivity(lstm, X, probes=1)
    for k in (1, 12, 16, 20, 24):
        policy = al.Delta(h=None, x=(measured.curves[0].thresholds[k, :I],))  # type: ignore[arg-type]
        lstm.policy = policy
        infer_natively(lstm, X)
        assert lstm.last_run is not None
        assert measured.activity(policy) == pytest.approx(lstm.last_run.activity, rel=1e-12)


def test_expected_activity_of_any_policy() -> None:
    lstm = adapted(I, H, 2)
    measured = al.measure_sensitivity(lstm, X, probes=1)
    assert measured.activity(al.Delta.uniform(0.0)) == 1.0
    grid = [measured.activity(al.Delta.uniform(threshold)) for threshold in np.geomspace(1e-6, 1e6, 60)]
    assert max(grid) < 1.0  # zeros and repeats
    assert grid == sorted(grid, reverse=True)
    assert grid[-1] == grid[-2] > I / (I + 3 * H)  # beyond the grid; raw features are always sent
    with pytest.raises(al.AdaptiveLSTMError, match="expected 2"):
        measured.activity(al.Delta(h=(0.1, 0.1, 0.1)))


# ------------------------------------------------------------------------------------------------------------ prices


@pytest.mark.parametrize(("gamma", "raw"), [(0.5, False), (0.5, True), (0.0, False), (1.0, True)])
def test_priced_thresholds_by_the_formula(gamma: float, raw: bool) -> None:
    lstm = adapted(I, H, 2)
    measured, price = al.measure_sensitivity(lstm, X), 300.0
    policy = al.Delta.priced(measured, price, gamma=gamma, raw=raw)
    priced = {}
    for cell in range(2):
        w = torch.cat(tuple(lstm.all_weights[cell][:2]), dim=1).detach().double().numpy()
        squares = (measured.rows[cell] ** gamma) @ w**2
        width = I if cell == 0 else H
        priced[cell, "x"], priced[cell, "h"] = squares[:width], squares[width:]
    mean = np.concatenate([s for where, s in priced.items() if where != (0, "x")]).mean()
    chosen = []
    for cell in range(2):
        width = I if cell == 0 else H
        for operand, columns in (("x", range(width)), ("h", range(width, width + H))):
            got = policy.threshold(al.Site(lstm.stack_shape, cell, operand))  # type: ignore[arg-type]
            if (cell, operand) == (0, "x") and not raw:
                assert got is None
                continue
            assert got is not None
            for threshold, square, j in zip(got, priced[cell, operand], columns, strict=True):
                c = measured.curves[cell]
                cost = c.activity[:, j] + price * square / mean * c.residual[:, j]
                assert cost[list(c.thresholds[:, j]).index(threshold)] == pytest.approx(cost.min(), rel=1e-9)
                chosen.append(threshold)
    assert len(set(chosen)) > 3


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0])
def test_work_never_grows_as_the_price_falls(gamma: float, raw: bool) -> None:
    lstm = adapted(I, H, 2, bidirectional=True)
    measured = al.measure_sensitivity(lstm, X)
    prices = [1e30, *np.geomspace(1e8, 1e-3, 60), 0.0]
    work = [measured.activity(al.Delta.priced(measured, price, gamma=gamma, raw=raw)) for price in prices]
    assert work[0] == 1.0  # dense
    assert work == sorted(work, reverse=True)
    assert len(set(work)) > 10
    lstm.policy = al.Delta.priced(measured, 1.0, gamma=gamma, raw=raw)
    infer_natively(lstm, X)
    assert lstm.last_run is not None
    assert lstm.last_run.activity < 0.9


def test_refused_prices() -> None:
    measured = al.measure_sensitivity(adapted(I, H), X, probes=1)
    for price, gamma in ((-1.0, 0.5), (np.nan, 0.5), (np.inf, 0.5), (1.0, np.nan)):
        with pytest.raises(al.AdaptiveLSTMError, match="expected a finite number"):
            al.Delta.priced(measured, price, gamma=gamma)
