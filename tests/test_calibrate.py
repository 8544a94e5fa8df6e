"""What ``calibrate`` finds: certificates that can be recomputed, honest refusals to certify, and limits that hold."""

from __future__ import annotations

import copy
import gc
import hashlib
import json
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

import adaptive_lstm as al
from adaptive_lstm.losses import Loss
from adaptive_lstm.policies import bucket, parts
from adaptive_lstm.risk import needed, p_value
from adaptive_lstm.sequences import fingerprint, split

from .helpers import infer, torch_lstm
from .small_task import I, Pair, adapted_classifier, drawn, unchanged

ASKED: dict[str, Any] = {
    "loss": al.losses.disagreement,
    "max_loss": 0.1,
    "confidence": 0.9,
    "objective": "macs",
    "progress": False,
}
SHARES = (0.25, 0.25, 0.5)
Found = tuple[Any, list[Pair], al.Calibration]


def last_split(data: list[Any]) -> list[Any]:
    """The test split, in the order drawn."""
    return [data[i] for i in split(len(data), SHARES, seed=0).test]


def outputs(model: nn.Module, data: list[Pair], settings: dict[str, al.Policy] | None = None) -> torch.Tensor:
    """Logits [n, C] of a copy, in float32 with nothing skipped, or with some policies."""
    served = copy.deepcopy(model)
    for name, m in served.named_modules():
        if isinstance(m, al.AdaptiveLSTM):
            m.policy = settings[name] if settings else al.Dense()
            m.quantize = m.quantize if settings else al.Quantize()
    return torch.cat([infer(served, x) for x, _ in data])


def flips(model: nn.Module, data: list[Pair], settings: Any) -> np.ndarray:
    """0/1 losses [n] of the decisions."""
    different = outputs(model, data, settings).argmax(1) != outputs(model, data).argmax(1)
    return different.numpy().astype(np.float64)


@pytest.fixture(scope="module")
def found() -> Found:
    """An int8 model calibrated with all families that apply and its head."""
    model, data = adapted_classifier(2), drawn(240)
    al.compress(model, quantize=al.Quantize("int8"))
    families = [al.Delta(), al.SkipTimesteps(), al.HoldLayers(), al.ExitInTime(head=model.head, every=2)]
    model.lstm.policy = al.Delta(0.01)
    with unchanged(model):
        result = al.calibrate(model, data, **ASKED, policies=families)
    return model, data, result


def test_the_certificate_can_be_recomputed(found: Found) -> None:
    model, data, result = found
    assert result.certified
    test = last_split(data)
    losses = flips(model, test, result.settings)
    (told,) = result.certificate.losses
    assert told["mean"] == pytest.approx(losses.mean(), abs=1e-12)
    assert told["test"] == "binomial"
    p = stats.binom.cdf(losses.sum(), len(losses), 0.1)
    assert result.certificate.p_value == pytest.approx(p, rel=1e-9)
    assert p <= 0.1
    assert told["bound"] <= 0.1
    tested = [point for point in result.frontier if point.p_value is not None]
    for point in tested[:4]:
        losses = flips(model, test, point.settings)
        assert point.test_risks == (pytest.approx(losses.mean()),)
        assert point.p_value == pytest.approx(stats.binom.cdf(losses.sum(), len(losses), 0.1), rel=1e-9)


def test_the_frontier(found: Found) -> None:
    model, data, result = found
    points = result.frontier
    assert [p.cost for p in points] == sorted(p.cost for p in points)
    assert all(p.cost == p.macs for p in points)
    tested = [p for p in points if p.p_value is not None]
    passed = [p for p in tested if p.certified]
    assert not [p for p in points if p.certified and p.p_value is None]
    assert len(tested) - len(passed) <= 1  # testing ends with the first failure
    order = sorted(tested, key=lambda p: (p.search_risks[0], -p.cost))
    assert all(p.certified for p in order[: len(passed)])
    assert min(passed, key=lambda p: p.cost).name == result.certificate.policy
    assert result.certificate.candidates == {"searched": len(points), "tested": len(tested)}
    searched = [data[i] for i in split(len(data), SHARES, 0).search]
    some = points[len(points) // 2]
    assert some.search_risks == (pytest.approx(flips(model, searched, some.settings).mean()),)


def test_the_certificate_as_json(found: Found) -> None:
    _, data, result = found
    told = json.loads(result.certificate.to_json())
    prints = sorted(fingerprint(x) for x, _ in last_split(data))
    assert told["sequences"]["test"] == {"count": 120, "sha256": hashlib.sha256("".join(prints).encode()).hexdigest()}
    assert [told["sequences"][name]["count"] for name in ("fit", "search")] == [60, 60]
    assert told["losses"][0]["name"] == "disagreement"
    assert (told["losses"][0]["limit"], told["confidence"]) == (0.1, 0.9)
    assert told["p_value"] == result.certificate.p_value
    assert 0 < told["savings"]["macs"] < 1
    assert told["savings"]["time"] > 0
    low, high = told["savings"]["time_quartiles"]
    assert low <= told["savings"]["time"] <= high
    assert told["backend"]["name"] == al.backend_info().backend
    assert told["versions"]["torch"] == torch.__version__
    assert told["versions"]["adaptive-lstm"] == al.__version__
    assert told["precision"] == {"lstm": "int8"}
    assert told["assumption"].endswith(".")
    assert len(told["weights"]) == 64
    assert "certified at confidence 0.9" in str(result.certificate)


def test_apply(found: Found) -> None:
    model, data, result = found
    served = copy.deepcopy(model)
    assert result.apply(served) is served
    assert served.lstm.policy is result.policy
    assert served.lstm.monitor.status.ok
    test = last_split(data)
    got = torch.cat([infer(served, x) for x, _ in test])
    assert torch.equal(got, outputs(model, test, dict(result.settings)))
    assert served.lstm.monitor.status.ok
    with unchanged(served):  # calibrated anew, a monitored model keeps what its monitor has seen
        al.calibrate(served, drawn(120), **ASKED, policies=[al.SkipTimesteps()])


def test_apply_refuses_other_models(found: Found) -> None:
    model, _, result = found
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.lstm.weight_hh_l1[0, 0] += 1e-6
    exact = copy.deepcopy(model)
    exact.lstm.quantize = al.Quantize()
    renamed = al.adapt(nn.Sequential(torch_lstm(I, 6, 2)).eval())
    for wrong, message in ((other, "other weights"), (exact, "precision"), (renamed, r"holds the LSTMs \['0'\]")):
        lstm = next(m for m in wrong.modules() if isinstance(m, al.AdaptiveLSTM))
        policy = lstm.policy
        with pytest.raises(al.errors.InputError, match=message):
            result.apply(wrong)
        assert lstm.policy is policy


def test_the_same_seed_finds_the_same() -> None:
    model, data = adapted_classifier(), drawn(120)
    families = [al.SkipTimesteps(), al.ExitInTime(head=model.head, every=2)]
    results = [al.calibrate(model, data, **ASKED, policies=families, seed=seed) for seed in (3, 3, 4)]
    told = []
    for result in results:
        points = [(p.name, p.cost, p.search_risks, p.test_risks, p.p_value) for p in result.frontier]
        record = json.loads(result.certificate.to_json())
        told.append((points, {k: v for k, v in record.items() if k not in ("made", "seconds", "savings")}))
    assert told[0] == told[1]
    assert told[0] != told[2]


@pytest.mark.parametrize("constant", [1.0, 0.5])
def test_nothing_passes(constant: float) -> None:
    model = adapted_classifier()
    model.lstm.quantize = al.Quantize("int8")
    always = Loss("always", lambda out, dense, target: constant)
    result = al.calibrate(model, drawn(200), **(ASKED | {"loss": always}), policies=[al.SkipTimesteps()])
    assert not result.certified
    assert isinstance(result.policy, al.Dense)
    assert not any(p.certified for p in result.frontier)
    told = json.loads(result.certificate.to_json())
    assert (told["certified"], told["policy"], told["p_value"]) == (False, "dense", None)
    assert "not certified" in str(result.certificate)
    x = drawn(1, seed=5)[0][0]
    before = infer(model, x)
    result.apply(model)
    assert torch.equal(infer(model, x), before)
    assert model.lstm.last_run.macs == model.lstm.last_run.macs_possible
    assert model.lstm.monitor is None


def test_several_losses_of_both_kinds() -> None:
    model, data = adapted_classifier(), drawn(300)
    distance = al.losses.clipped_error(20.0)
    asked = ASKED | {"loss": [al.losses.disagreement, distance], "max_loss": [0.15, 0.05]}
    result = al.calibrate(model, data, **asked, policies=[al.SkipTimesteps()])
    assert [one["test"] for one in result.certificate.losses] == ["binomial", "wsr"]
    assert result.certified
    test = last_split(data)
    errors = (outputs(model, test, dict(result.settings)) - outputs(model, test)).abs().double().mean(1) / 20
    p = max(
        p_value(flips(model, test, result.settings), 0.15, binary=True),
        p_value(errors.numpy(), 0.05, binary=False),
    )
    assert result.certificate.p_value == pytest.approx(p, rel=1e-6)


class Sometimes(nn.Module):
    """A classifier that decides once, but for some sequences at every other timestep."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = adapted_classifier()
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [1, C] or [1, 4, C]."""
        if float(x[0, 0, 0]) < 2.5:
            out: torch.Tensor = self.inner(x)
            return out
        return self.inner.head(self.inner.lstm(x)[0])[:, ::2]


def test_a_loss_counts_as_binary_only_if_all_outputs_say_so() -> None:
    asked = ASKED | {"loss": [al.losses.disagreement, Loss("flip", lambda *_: 0.0, lambda _: True)]}
    result = al.calibrate(Sometimes(), drawn(300), **(asked | {"max_loss": [0.2, 0.2]}), policies=[al.SkipTimesteps()])
    assert [one["test"] for one in result.certificate.losses] == ["wsr", "binomial"]


def test_early_leavers() -> None:
    model, data = adapted_classifier(), drawn(400, noise=0.6)
    asked = ASKED | {"max_loss": 0.15}
    families = [al.ExitInTime(head=model.head, every=1), al.SkipTimesteps()]
    result = al.calibrate(model, data, **asked, policies=families, conditional=True)
    assert result.certificate.conditional
    assert result.certified
    test = last_split(data)
    checked = 0
    for point in result.frontier:
        exits = parts(point.settings["lstm"]).time
        if point.p_value is None or not isinstance(exits, al.ExitInTime):
            continue
        losses, starts = flips(model, test, point.settings), exits.starts or (0,)
        opens = next(b for b, t in enumerate(exits.thresholds) if t < 1)
        served = copy.deepcopy(model)
        served.lstm.policy = point.settings["lstm"]
        halts = []
        for x, _ in test:  # where the outputs stop changing, the sequence has left
            y, _ = infer(served.lstm, x)
            infer(served, x)
            moved = (y[0, 1:] != y[0, :-1]).any(1).nonzero()
            left = served.lstm.last_run.exits > 0
            halts.append(bucket(starts, int(moved.max()) + 1 if len(moved) else 0) if left else len(starts) - 1)
        groups = [losses[np.array(halts) <= t] for t in range(opens, len(starts))]
        wanted = max(p_value(g, 0.15, binary=True) if len(g) else 1.0 for g in groups)
        assert point.p_value == pytest.approx(wanted, rel=1e-9)
        checked += 1
    assert checked


def test_given_splits_and_several_lstms() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = torch_lstm(I, 5, batch_first=True), torch_lstm(5, 4, batch_first=True, seed=1)
            self.eval()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.b(self.a(x)[0])[1][0][-1]
            return out

    model, data = al.adapt(Two()), [x for x, _ in drawn(150)]
    splits = al.Splits(data[:20], data[20:50], data[50:])
    asked = ASKED | {"loss": al.losses.cosine_distance, "policies": [al.Delta(), al.HoldLayers()][:1]}
    result = al.calibrate(model, splits, **asked)
    assert [s["count"] for s in result.certificate.sequences.values()] == [20, 30, 100]
    with pytest.raises(al.errors.InputError, match=r"use \.settings"):
        _ = result.policy
    assert result.certified
    result.apply(model)
    for x in data[50:]:
        infer(model, x)
    assert model.a.monitor.status.ok
    assert model.b.monitor.status.ok
    assert model.a.monitor.expected["activity"] != model.b.monitor.expected["activity"]


def test_needs_what_it_says() -> None:
    limit, confidence = 0.1, 0.9
    least = needed(limit, confidence, binary=True)
    data = drawn(3 * least)
    splits = al.Splits(data[:5], data[5:20], data[20 : 20 + least])
    model = adapted_classifier()
    assert al.calibrate(model, splits, **ASKED, policies=[al.SkipTimesteps()]).certificate is not None
    short = al.Splits(splits.fit, splits.search, splits.test[1:])
    with pytest.raises(al.errors.CalibrationError, match=f"needs at least {least}"):
        al.calibrate(model, short, **ASKED, policies=[al.SkipTimesteps()])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["binary", "bounded"])
def test_the_promise_holds(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh draws, calibrated again and again: a certificate is false in at most 1 - confidence of them.

    The bar is what a binomial with 1 - confidence exceeds in 1 % of all such tests.
    """
    monkeypatch.setattr(gc, "collect", lambda: 0)  # slow, and only there for the timing of the winner
    repeats, confidence = 40, 0.8
    model = adapted_classifier()
    loss, limit = (al.losses.disagreement, 0.08) if kind == "binary" else (al.losses.clipped_error(10.0), 0.03)
    asked = ASKED | {"loss": loss, "max_loss": limit, "confidence": confidence, "shares": (0.05, 0.2, 0.75)}
    x = torch.cat([x for x, _ in drawn(20_000, seed=99)])
    dense, served = infer(model, x), copy.deepcopy(model)
    true: dict[str, float] = {"dense": 0.0}
    false = certified = 0
    for seed in range(repeats):
        result = al.calibrate(model, drawn(110, seed=seed), **asked, policies=[al.SkipTimesteps()], seed=seed)
        name = result.certificate.policy
        if name not in true:
            served.lstm.policy = result.policy
            out = infer(served, x)
            true[name] = float(
                (out.argmax(1) != dense.argmax(1)).double().mean()
                if kind == "binary"
                else ((out - dense).abs().double().mean(1) / 10).clamp(max=1).mean()
            )
        certified += result.certified
        false += true[name] > limit
    assert certified > repeats / 2
    assert max(true.values()) > limit / 3  # certificates are not handed out for next to nothing
    assert false <= stats.binom.ppf(0.99, repeats, 1 - confidence)
