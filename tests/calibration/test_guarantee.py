"""What a certificate promises: losses of both kinds, several at once, early leavers, and limits that hold."""

from __future__ import annotations

import copy
import gc
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

import adaptive_lstm as al
from adaptive_lstm.calibration import risk
from adaptive_lstm.calibration.risk import p_value
from adaptive_lstm.losses import Loss
from adaptive_lstm.policies import bucket, parts

from ..support.helpers import infer
from ..support.small_task import OPTIONS, adapted_classifier, drawn, flips, last_split, outputs


def test_several_losses_of_both_kinds() -> None:
    model, data = adapted_classifier(), drawn(300)
    distance = al.losses.clipped_error(20.0)
    asked = OPTIONS | {"loss": [al.losses.disagreement, distance], "max_loss": [0.15, 0.05]}
    result = al.calibrate(model, data, **asked, policies=[al.SkipTimesteps])
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
        steps: torch.Tensor = self.inner.head(self.inner.lstm(x)[0])[:, ::2]
        return steps


def test_a_loss_counts_as_binary_only_if_all_outputs_say_so() -> None:
    asked = OPTIONS | {"loss": [al.losses.disagreement, Loss("flip", lambda *_: 0.0, lambda _: True)]}
    result = al.calibrate(Sometimes(), drawn(300), **(asked | {"max_loss": [0.2, 0.2]}), policies=[al.SkipTimesteps])
    assert [one["test"] for one in result.certificate.losses] == ["wsr", "binomial"]


def _flagged(n: int, every: int) -> list[Any]:
    """Sequences of which every so many are lost, whatever is skipped."""
    return [(x, float(i % every == 0)) for i, (x, _) in enumerate(drawn(n))]


def test_how_many_sequences_would_have_done() -> None:
    """One in 20 is lost, one in 10 allowed: 40 cannot tell these apart, and as many as it says can."""
    asked = OPTIONS | {"loss": Loss("lost", lambda out, dense, target: target, lambda _: True), "max_loss": 0.1}

    def ask(n: int, every: int = 20) -> Any:
        part = _flagged(2 * n + n, every)
        splits = al.Splits(part[:n], part[n : 2 * n], part[2 * n :])
        return al.calibrate(adapted_classifier(), splits, **asked, policies=[al.SkipTimesteps])

    few = ask(40)
    assert not few.certified
    told = few.certificate.more
    assert told["losses"] == [0.05]
    assert told["test"] == risk.needed(0.1, 0.9, 0.05, binary=True)
    assert told["sequences"] == 3 * told["test"]
    text = str(few.certificate)
    assert f"give more sequences: {told['policy']} lost lost 0.0500 on 40 test sequences, too few to tell" in text
    assert f"about {told['test']} ({told['sequences']} in all) would do" in text
    enough = ask(20 * -(-told["test"] // 20))
    assert enough.certified
    assert enough.certificate.more is None
    hopeless = ask(40, every=8)  # nothing is tested: more of them would not help
    assert not hopeless.certified
    assert hopeless.certificate.more is None


def test_early_leavers() -> None:
    model, data = adapted_classifier(), drawn(400, noise=0.6)
    asked = OPTIONS | {"max_loss": 0.15}
    families = [al.Family(al.ExitInTime, head=model.head, check_every=1), al.Family(al.SkipTimesteps)]
    result = al.calibrate(model, data, **asked, policies=families, conditional=True)
    assert result.certificate.conditional
    assert result.certified
    test = last_split(data)
    checked = 0
    for point in result.frontier:
        exits = parts(point.settings["lstm"]).time_exit
        if point.p_value is None or not isinstance(exits, al.ExitInTime):
            continue
        losses, starts = flips(model, test, point.settings), exits.starts or (0,)
        opens = next(b for b, t in enumerate(exits.thresholds) if t < 1)
        served = copy.deepcopy(model)
        served.lstm.policy = point.settings["lstm"]
        exit_times = []
        for x, _ in test:  # where the outputs stop changing, the sequence has left
            y, _ = infer(served.lstm, x)
            infer(served, x)
            moved = (y[0, 1:] != y[0, :-1]).any(1).nonzero()
            left = served.lstm.last_run.exits > 0
            exit_times.append(bucket(starts, int(moved.max()) + 1 if len(moved) else 0) if left else len(starts) - 1)
        groups = [losses[np.array(exit_times) <= t] for t in range(opens, len(starts))]
        wanted = max(p_value(g, 0.15, binary=True) if len(g) else 1.0 for g in groups)
        assert point.p_value == pytest.approx(wanted, rel=1e-9)
        checked += 1
    assert checked


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
    asked = OPTIONS | {"loss": loss, "max_loss": limit, "confidence": confidence, "shares": (0.05, 0.2, 0.75)}
    x = torch.cat([x for x, _ in drawn(20_000, seed=99)])
    dense, served = infer(model, x), copy.deepcopy(model)
    true: dict[str, float] = {"dense": 0.0}
    false = certified = 0
    for seed in range(repeats):
        result = al.calibrate(model, drawn(110, seed=seed), **asked, policies=[al.SkipTimesteps], seed=seed)
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
