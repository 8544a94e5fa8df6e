"""What ``calibrate`` finds: certificates that can be recomputed, honest refusals to certify, and limits that hold."""

from __future__ import annotations

import copy
import hashlib
import json
from typing import Any

import pytest
import torch
from scipy import stats
from torch import nn

import adaptive_lstm as al
from adaptive_lstm.calibration.input_digest import fingerprint
from adaptive_lstm.calibration.risk import needed
from adaptive_lstm.calibration.splits import split
from adaptive_lstm.losses import Loss

from ..support.helpers import infer, torch_lstm
from ..support.small_task import (
    OPTIONS,
    SHARES,
    I,
    Pair,
    adapted_classifier,
    drawn,
    flips,
    last_split,
    outputs,
    unchanged,
)

Found = tuple[Any, list[Pair], al.Calibration]


@pytest.fixture(scope="module")
def found() -> Found:
    """An int8 model calibrated with all families that apply and its head."""
    model, data = adapted_classifier(2), drawn(240)
    al.compress(model, quantize=al.Quantize("int8"))
    families: list[al.Family] = [
        al.Family(al.Delta),
        al.Family(al.SkipTimesteps),
        al.Family(al.HoldLayers),
        al.Family(al.ExitInTime, head=model.head, check_every=2),
    ]
    model.lstm.policy = al.Delta.uniform(0.01)
    with unchanged(model):
        result = al.calibrate(model, data, **OPTIONS, policies=families)
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
        assert point.test_risks is not None
        assert point.test_risks[0] == pytest.approx(losses.mean())
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
    assert some.search_risks[0] == pytest.approx(flips(model, searched, some.settings).mean())


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
    served: Any = copy.deepcopy(model)
    same = result.apply(served, force=True) is served
    assert same
    assert served.lstm.policy is result.policy
    assert served.lstm.monitor.status.ok
    test = last_split(data)
    got = torch.cat([infer(served, x) for x, _ in test])
    assert torch.equal(got, outputs(model, test, dict(result.settings)))
    assert served.lstm.monitor.status.ok
    with unchanged(served):  # calibrated anew, a monitored model keeps what its monitor has seen
        al.calibrate(served, drawn(120), **OPTIONS, policies=[al.SkipTimesteps])


def test_apply_refuses_other_models(found: Found) -> None:
    model, _, result = found
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.lstm.weight_hh_l1[0, 0] += 1e-6
    exact = copy.deepcopy(model)
    exact.lstm.quantize = al.Quantize()
    coarse = copy.deepcopy(model)
    coarse.lstm.quantize = al.Quantize("int8", levels=1)
    renamed = al.adapt(nn.Sequential(torch_lstm(I, 6, 2)).eval())
    reheaded = copy.deepcopy(model)
    with torch.no_grad():
        reheaded.head.weight.mul_(-5)
    for wrong, message in (
        (other, "other weights"),
        (exact, "precision"),
        (coarse, "precision"),
        (renamed, r"the LSTMs \['0'\]"),
        (reheaded, "other weights around its LSTMs"),
    ):
        lstm = next(m for m in wrong.modules() if isinstance(m, al.AdaptiveLSTM))
        policy = lstm.policy
        with pytest.raises(al.errors.InputError, match=message):
            result.apply(wrong)
        assert lstm.policy is policy


def test_the_same_seed_finds_the_same() -> None:
    model, data = adapted_classifier(), drawn(120)
    families = [al.Family(al.SkipTimesteps), al.Family(al.ExitInTime, head=model.head, check_every=2)]
    results = [al.calibrate(model, data, **OPTIONS, policies=families, seed=seed) for seed in (3, 3, 4)]
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
    result = al.calibrate(model, drawn(200), **(OPTIONS | {"loss": always}), policies=[al.SkipTimesteps])
    assert not result.certified
    assert isinstance(result.policy, al.Dense)
    assert not any(p.certified for p in result.frontier)
    told = json.loads(result.certificate.to_json())
    assert (told["certified"], told["policy"], told["p_value"]) == (False, "dense", None)
    assert "not certified" in str(result.certificate)
    x = drawn(1, seed=5)[0][0]
    before = infer(model, x)
    result.apply(model, force=True)
    assert torch.equal(infer(model, x), before)
    assert model.lstm.last_run.macs == model.lstm.last_run.macs_possible
    assert model.lstm.monitor is None


def test_given_splits_and_several_lstms() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = torch_lstm(I, 5, batch_first=True), torch_lstm(5, 4, batch_first=True, seed=1)
            self.eval()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.b(self.a(x)[0])[1][0][-1]
            return out

    model: Any = al.adapt(Two())
    data = [x for x, _ in drawn(150)]
    splits = al.Splits(data[:20], data[20:50], data[50:])
    asked = OPTIONS | {"loss": al.losses.cosine_distance, "policies": [al.Delta]}
    result = al.calibrate(model, splits, **asked)
    assert [s["count"] for s in result.certificate.sequences.values()] == [20, 30, 100]
    with pytest.raises(al.errors.InputError, match=r"use \.settings"):
        _ = result.policy
    assert result.certified
    result.apply(model, force=True)
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
    assert al.calibrate(model, splits, **OPTIONS, policies=[al.SkipTimesteps]).certificate is not None
    short = al.Splits(splits.fit, splits.search, splits.test[1:])
    with pytest.raises(al.errors.CalibrationError, match=f"needs at least {least}"):
        al.calibrate(model, short, **OPTIONS, policies=[al.SkipTimesteps])
