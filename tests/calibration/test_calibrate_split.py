"""Calibration of ``SplitTime``: certified where a model forgets, refused where it does not, by a virtual clock."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import adaptive_lstm as al
from adaptive_lstm.analysis.measure_forgetting import WARM_UPS, measure_forgetting
from adaptive_lstm.calibration.families import default_families
from adaptive_lstm.errors import InputError, UnsupportedError
from adaptive_lstm.policies.combined import acts
from adaptive_lstm.policies.sweep import FitData
from adaptive_lstm.types import StackShape
from eval import zoo as models

from ..support.helpers import infer, torch_lstm
from ..support.virtual_clock import VirtualClock

I, H, T = 3, 12, 100  # noqa: E741 (the letter of the input size everywhere)
OPTIONS: dict[str, Any] = {
    "loss": al.losses.disagreement,
    "max_loss": 0.1,
    "confidence": 0.9,
    "progress": False,
    "policies": [al.SplitTime],
}


class Tagger(nn.Module):
    """Logits [1, T, 3] of x [1, T, I]."""

    def __init__(self, forget: float) -> None:
        super().__init__()
        self.lstm = torch_lstm(I, H, 2, batch_first=True)
        self.head = nn.Linear(H, 3)
        with torch.no_grad():
            for k in range(2):
                getattr(self.lstm, f"bias_ih_l{k}")[H : 2 * H] = forget

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.lstm(x)[0])
        return logits


def tagger(forget: float) -> Any:
    return al.adapt(Tagger(forget).eval())


def sequences(n: int = 120, length: int = T) -> list[torch.Tensor]:
    """Noise after a first timestep that a model which never forgets goes on to tell of."""
    x = 0.3 * torch.randn(n, 1, length, I, generator=torch.Generator().manual_seed(0))
    x[:, :, 0] *= 30
    return list(x)


def calibrated(monkeypatch: pytest.MonkeyPatch, model: Any, data: Any = None, **options: Any) -> al.Calibration:
    with monkeypatch.context() as patch:
        VirtualClock(patch, lambda policy: 0.5 if policy.split else 1.0)
        return al.calibrate(model, data or sequences(), **OPTIONS | options)


@pytest.mark.slow
def test_certified_where_the_model_forgets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = tagger(0.0)
    al.compress(model, quantize=al.Quantize("int8"))
    result = calibrated(monkeypatch, model)
    assert result.certified
    policy = result.policy
    assert isinstance(policy, al.SplitTime)
    assert policy.chunk == 64
    assert policy.warm_up in range(8, 33)
    assert isinstance(policy.tolerance, tuple)
    assert all(0 < t < 0.5 for t in policy.tolerance)
    assert result.certificate.savings["macs"] > 1
    assert result.certificate.savings["time"] == pytest.approx(0.5)
    fast: Any = result.apply(model)
    infer(fast, sequences(1)[0])
    assert fast.lstm.last_run.seams.number == 2
    assert 0 < fast.lstm.monitor.expected["strain"].mean < 1
    al.save(fast, tmp_path / "model", certificate=result.certificate)
    loaded: Any = al.load(tmp_path / "model", model)
    assert loaded.lstm.policy.tolerance == policy.tolerance


@pytest.mark.slow
def test_refused_where_the_model_remembers(monkeypatch: pytest.MonkeyPatch) -> None:
    result = calibrated(monkeypatch, tagger(12.0))
    assert not acts(result.policy)
    assert len(result.frontier) > 1
    assert all(point.search_risks[0] > 0.1 for point in result.frontier if point.name != "dense")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "max_loss", "tested", "certified"), [("charrnn-darwin", 0.05, 60, True), ("resemblyzer", 0.01, 236, False)]
)
def test_real_models(
    name: str, max_loss: float, tested: int, certified: bool, zoo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader of characters forgets, and the speaker encoder is known to remember all of its window."""
    model = models.load(name, zoo)
    material = model.prepared().thinned(2, 6, tested, 0, max_loss)
    fast: Any = al.adapt(model.model)
    al.compress(fast, quantize=al.Quantize("int8"))
    result = calibrated(monkeypatch, fast, material.splits, loss=material.loss, max_loss=material.max_loss)
    assert [acts(policy) for policy in result.settings.values()] == [certified] * len(result.settings)
    assert len(result.frontier) > 1
    if not certified:
        assert all(point.search_risks[0] > max_loss for point in result.frontier if point.name != "dense")


def test_short_sequences_leave_nothing_to_search(monkeypatch: pytest.MonkeyPatch) -> None:
    result = calibrated(monkeypatch, tagger(0.0), sequences(length=40))
    assert [point.name for point in result.frontier] == ["dense"]


def test_by_default_it_is_searched_where_it_can_save_time() -> None:
    def names(**options: bool) -> list[str]:
        return [family.name for family in default_families({"lstm": StackShape(I, H, 2)}, **options)]

    assert names(split=True) == [*names(), "SplitTime"]


def test_where_it_cannot_save_anything_it_is_refused() -> None:
    for options, message in (
        ({"use": "stream"}, "SplitTime: splits long sequences, and a stream"),
        ({"objective": "macs"}, "SplitTime: saves time and no multiply-accumulates"),
    ):
        with pytest.raises(UnsupportedError, match=message):
            al.calibrate(tagger(0.0), sequences(), **OPTIONS | options)
    with pytest.raises(al.errors.PolicyError, match="chunk: the search chooses it"):
        al.Family(al.SplitTime, chunk=8)
    with pytest.raises(InputError, match="a policy with fixed settings"):
        al.calibrate(tagger(0.0), sequences(), **OPTIONS | {"policies": [al.SplitTime(chunk=8)]})


def test_zeros_and_mean_states_are_searched_with_what_was_seen_after_them() -> None:
    seen = measure_forgetting(tagger(0.0), sequences(6))
    fit = FitData({"lstm": StackShape(I, H, 2)}, {}, {}, seen)
    sweeps = al.SplitTime.kind.sweeps
    assert sweeps is not None
    zeros, mean = sweeps(al.Family(al.SplitTime), fit)
    assert (zeros.levels, mean.levels) == ((32.0, 16.0, 8.0), (32.0, 16.0, 8.0))
    assert mean.name == "split(chunks of 64, from the mean state)"
    for sweep, start, residuals in (
        (zeros, None, seen["lstm"].from_zeros),
        (mean, seen["lstm"].mean, seen["lstm"].from_mean),
    ):
        policy: Any = sweep.make(16.0)["lstm"]
        assert (policy.chunk, policy.warm_up, policy.start, policy.tolerance) == (64, 16, start, residuals[16])


def test_how_soon_it_forgets_is_measured() -> None:
    forgetful, other = (measure_forgetting(tagger(forget), sequences(6)) for forget in (0.0, 12.0))
    seen = forgetful["lstm"]
    assert seen.longest == T
    assert list(seen.from_zeros) == list(seen.from_mean) == [w for w in WARM_UPS if 2 * w < T]
    for warm_ups in (seen.from_zeros, seen.from_mean):
        residuals = list(warm_ups.values())
        for earlier, later in itertools.pairwise(residuals):
            assert all(b < a for a, b in zip(earlier, later, strict=True))
    assert max(seen.tolerance(32, mean=False)) < 1e-2 < min(other["lstm"].tolerance(32, mean=False))
    assert seen.tolerance(50, mean=True) == seen.tolerance(32, mean=True) != seen.tolerance(16, mean=True)
    assert measure_forgetting(tagger(0.0), sequences(2, length=24)) == {}
