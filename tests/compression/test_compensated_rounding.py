"""Compensated rounding: against brute force on small matrices, and as ``compress`` does it to a model."""

import copy
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import adaptive_lstm as al
from adaptive_lstm.compression.compensated_rounding import grid, rounded
from adaptive_lstm.compression.compress import ROUNDINGS
from adaptive_lstm.compression.output_error import outputs, relative_change
from adaptive_lstm.compression.pruning.refit import Quadratic
from adaptive_lstm.execution.batch import Batch
from adaptive_lstm.execution.reference_runner import ReferenceRunner
from adaptive_lstm.execution.runner import PackedRunner
from adaptive_lstm.weights.layout import shape_of
from adaptive_lstm.weights.quantization import quantize_stack

from ..support.helpers import adapted, assert_equal, infer, infer_natively, only_lstm, refused, signal

STEP = 0.5


def problem(rows: int, columns: int, seed: int) -> tuple[Quadratic, np.ndarray]:
    """Weights within two steps of zero, and the Hessian of columns that go together."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(60, columns)) @ rng.normal(size=(columns, columns)) + 2 * rng.normal(size=(60, 1))
    hessian = z.T @ z / len(z) + 0.01 * np.eye(columns)
    w = rng.uniform(-2 * STEP, 2 * STEP, size=(rows, columns))
    return Quadratic(w, hessian, np.linalg.inv(hessian).astype(np.float64), np.ones(columns)), hessian


def loss(w: np.ndarray, best: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    return np.asarray(np.einsum("rc,cd,rd->r", w - best, hessian, w - best))


def plain(w: np.ndarray) -> np.ndarray:
    return np.rint(w / STEP) * STEP


@pytest.mark.parametrize("seed", range(20))
def test_the_last_of_two_columns_is_the_best_one_there_is(seed: int) -> None:
    given, hessian = problem(5, 2, seed)
    got = rounded(given, np.full((5, 2), STEP), np.ones((5, 2), dtype=bool))
    for row, best in zip(got, given.best, strict=True):
        assert row[0] == plain(best)[0]  # nobody's error to make up for
        every = [np.array([row[0], k * STEP]) for k in range(-60, 61)]
        losses = [float(loss(one[None], best[None], hessian)[0]) for one in every]
        np.testing.assert_allclose(row, every[int(np.argmin(losses))])


def test_columns_without_a_grid_take_up_the_error_exactly() -> None:
    given, hessian = problem(4, 5, seed=3)
    steps = np.full((4, 5), STEP) * np.array([0, 1, 0, 1, 0])
    got = rounded(given, steps, np.ones((4, 5), dtype=bool))
    np.testing.assert_allclose(got[:, [1, 3]], plain(got[:, [1, 3]]))
    free, fixed = [0, 2, 4], [1, 3]
    error = (got - given.best)[:, fixed]
    moved = -np.linalg.solve(hessian[np.ix_(free, free)], hessian[np.ix_(free, fixed)] @ error.T).T
    np.testing.assert_allclose(got[:, free], given.best[:, free] + moved, rtol=1e-6, atol=1e-9)


def test_it_beats_rounding_to_nearest_and_is_near_the_best_of_all() -> None:
    ours, nearest, least = [], [], []
    for seed in range(40):
        given, hessian = problem(1, 4, seed)
        got = rounded(given, np.full((1, 4), STEP), np.ones((1, 4), dtype=bool))
        ours.append(loss(got, given.best, hessian)[0])
        nearest.append(loss(plain(given.best), given.best, hessian)[0])
        floor = np.floor(given.best[0] / STEP)
        near = np.array(list(itertools.product((-1, 0, 1, 2), repeat=4))) + floor
        least.append(loss(near * STEP, np.repeat(given.best, len(near), 0), hessian).min())
    assert np.mean(least) - 1e-12 <= np.mean(ours) < 0.7 * np.mean(nearest)
    assert np.median(np.array(ours) / np.array(least)) < 2.5


def test_many_columns_go_in_blocks_without_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    given, _ = problem(6, 30, seed=1)
    steps, keep = np.full((6, 30), STEP), np.random.default_rng(0).random((6, 30)) > 0.3
    whole = rounded(given, steps, keep)
    monkeypatch.setattr("adaptive_lstm.compression.compensated_rounding.LAZY_COLUMNS", 7)
    np.testing.assert_allclose(rounded(given, steps, keep), whole, atol=1e-9)
    assert not whole[~keep].any()
    assert np.abs(whole / STEP).max() <= 127


def test_no_weight_leaves_the_grid_of_its_row() -> None:
    given, _ = problem(3, 4, seed=0)
    tiny = np.full((3, 4), 0.001)
    got = rounded(given, tiny, np.ones((3, 4), dtype=bool))
    assert np.abs(np.rint(got / tiny)).max() == 127


# ----------------------------------------------------------------------------------------------- a model as a whole


class Reader(nn.Module):
    """[B, T, 20] -> [B, T, 5]."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(20, 32, 2, batch_first=True, **options)
        self.fc = nn.Linear(32 * (1 + self.lstm.bidirectional), 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.fc(self.lstm(x)[0])
        return y


def inputs(seed: int = 0) -> list[torch.Tensor]:
    """Eight batches of four sequences; columns go together, as real ones do."""
    mixing = torch.randn(3, 20, generator=torch.Generator().manual_seed(9))
    return list((signal(32, 40, 3, seed=seed) @ mixing).split(4))


INT8 = al.Quantize("int8", levels=8191, input_levels=8191)
GRIDS = {
    "int8": INT8,
    "raw too": al.Quantize("int8", raw="int8", levels=8191, input_levels=8191),
    "dynamic": al.Quantize("int8", raw="int8", raw_range="dynamic", raw_levels=8191, levels=8191, input_levels=8191),
    "weights only": al.Quantize("int8", levels=0, input_levels=0),
    "one matrix": al.Quantize("fp32", matrices={"weight_hh_l1": "int8"}),
}


@pytest.mark.parametrize("bidirectional", [False, True], ids=["one way", "both ways"])
@pytest.mark.parametrize("quantize", GRIDS.values(), ids=GRIDS)
def test_the_output_changes_less_on_other_inputs(quantize: al.Quantize, bidirectional: bool) -> None:
    model = Reader(bidirectional=bidirectional).eval()
    other = inputs(seed=5)
    found = {}
    for rounding in ROUNDINGS:
        fast = al.adapt(model)
        al.compress(fast, inputs(), quantize=quantize, rounding=rounding)
        found[rounding] = relative_change(outputs(model, other), outputs(fast, other))
    assert 0 < found["compensated"] < 0.8 * found["nearest"]


@pytest.mark.parametrize("quantize", GRIDS.values(), ids=GRIDS)
def test_what_is_executed_are_the_rounded_weights(quantize: al.Quantize) -> None:
    fast = al.adapt(Reader().eval())
    al.compress(fast, inputs(), quantize=quantize, rounding="compensated")
    lstm = only_lstm(fast)
    shape = shape_of(lstm)
    original = quantize_stack(al.AdaptiveLSTM.from_lstm(lstm).executed(), shape, lstm.quantize)
    for want, packed, before in zip(
        lstm.executed(), quantize_stack(lstm.executed(), shape, lstm.quantize), original, strict=True
    ):
        for w, matrix, old in ((want.w_ih, packed.w_ih, before.w_ih), (want.w_hh, packed.w_hh, before.w_hh)):
            if matrix.precision == "int8":
                np.testing.assert_allclose(matrix.dequantized(), w.numpy(), rtol=1e-5, atol=1e-7)
                assert grid(old).any()


def test_native_equals_reference_and_the_original_comes_back() -> None:
    lstm = adapted(20, 33, 2)
    kept, exact = copy.deepcopy(lstm.state_dict()), infer(lstm, inputs()[0].transpose(0, 1))
    al.compress(lstm, [x.transpose(0, 1) for x in inputs()], quantize=INT8, rounding="compensated")
    x = inputs(seed=3)[0].transpose(0, 1).contiguous()
    y = infer_natively(lstm, x)[0]
    executor = lstm.executor()
    on_reference = PackedRunner(ReferenceRunner(executor.tensors, executor.shape, executor.policy))
    want = on_reference.run(Batch.of(x, None, executor.shape, False)).y
    torch.testing.assert_close(y, want, rtol=0, atol=2e-4)
    assert_equal(list(lstm.state_dict().values()), list(kept.values()))
    al.restore(lstm)
    assert_equal(infer(lstm, inputs()[0].transpose(0, 1)), exact)


def test_zeros_stay_zeros() -> None:
    prune = al.Prune("unstructured", 0.5, saliency="second-order", gamma=0.5, compensate="refit", ridge=0.1)
    zeros = {}
    for rounding in ROUNDINGS:
        fast = al.adapt(Reader().eval())
        al.compress(fast, inputs(), prune=prune, quantize=INT8, rounding=rounding)
        pruned = only_lstm(fast).replaced
        assert pruned is not None
        zeros[rounding] = [p.w_hh == 0 for p in pruned.cells]
    for exact, made in zip(zeros["nearest"], zeros["compensated"], strict=True):
        assert bool(exact.any())
        assert bool(made[exact].all())


def test_weights_that_lie_on_a_grid_keep_it() -> None:
    fast = al.adapt(Reader().eval())
    al.compress(fast, inputs(), quantize=al.Quantize("int8", raw="fp32"), rounding="compensated")
    with torch.no_grad():
        for layer, made in zip(only_lstm(fast).all_weights, only_lstm(fast).executed(), strict=True):
            layer[1].copy_(made.w_hh)
    before = [layer[1].clone() for layer in only_lstm(fast).all_weights]
    only = al.Quantize(matrices={"weight_hh_l0": "int8", "weight_hh_l1": "int8"})
    al.compress(fast, inputs(), quantize=only, rounding="compensated")
    for w, old in zip(only_lstm(fast).executed(), before, strict=True):
        torch.testing.assert_close(w.w_hh, old, rtol=1e-5, atol=1e-7)


def test_it_is_saved_and_loaded(tmp_path: Path) -> None:
    model = Reader().eval()
    fast = al.adapt(model)
    al.compress(fast, inputs(), quantize=INT8, rounding="compensated")
    al.save(fast, tmp_path / "model.alstm")
    x = inputs(seed=4)[0]
    assert_equal(infer(al.load(tmp_path / "model.alstm", model), x), infer(fast, x))


def test_what_cannot_be_is_refused_and_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    lstm = adapted(20, 8)
    with pytest.raises(al.errors.InputError, match="compensated rounding needs inputs"):
        al.compress(lstm, quantize=INT8, rounding="compensated")
    with pytest.raises(al.errors.InputError, match="rounding: got 'up', expected one of nearest, compensated"):
        al.compress(lstm, inputs(), quantize=INT8, rounding="up")  # type: ignore[arg-type]
    assert lstm.replaced is None
    assert lstm.quantize.exact
    assert "invalid choice: 'up'" in refused(capsys, "compress", "--rounding", "up")
