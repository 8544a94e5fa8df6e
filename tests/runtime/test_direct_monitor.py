"""What direct calls tell a monitor: the same as decided calls."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import adaptive_lstm as al
from adaptive_lstm.runtime.monitor import Range
from adaptive_lstm.types import StackShape

from ..support.helpers import adapted, infer, signal
from ..support.policy_cases import depth_translators, head
from . import test_direct_calls
from .test_direct_calls import LSTMS, undecided

pytestmark = test_direct_calls.pytestmark

RATES = ("activity", "ran", "exits")


def watched(lstm: al.AdaptiveLSTM) -> al.AdaptiveLSTM:
    lstm.plan = dataclasses.replace(lstm.plan, expected_rates={name: Range(0.5, 0.5, 9) for name in RATES})
    return lstm


@pytest.mark.parametrize("name", ["hold", "delta", "exit in depth", "exit in time"])
def test_a_monitor_is_told_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the same calls, the monitor of direct ones and that of decided ones have seen the same rates."""
    torch.manual_seed(0)
    maps = depth_translators(StackShape(6, 9, 2))
    exits: dict[str, al.Policy] = {
        "exit in depth": al.ExitInDepth(translators=maps, head=head(9, gain=9.0), threshold=0.5),
        "exit in time": al.ExitInTime(head(9, gain=9.0), threshold=0.1, check_every=2),
    }
    make = LSTMS[name] if name in LSTMS else lambda: adapted(6, 9, 2, policy=exits[name])
    calls = [signal(t, b, 6, seed=t + b) for t in (1, 7, 30) for b in (1, 3)]
    decided, direct = watched(make()), watched(make())
    with decided.watched_by(lambda call: None):
        for x in calls:
            infer(decided, x)
    infer(direct, calls[0])
    undecided(monkeypatch)
    for x in calls[1:]:
        infer(direct, x)
    assert decided.monitor is not None
    assert direct.monitor is not None
    assert direct.monitor.status == decided.monitor.status
    assert direct.monitor._recent == decided.monitor._recent
    assert len(set(direct.monitor._recent)) > 1


def test_a_monitor_warns_in_a_direct_call(monkeypatch: pytest.MonkeyPatch) -> None:
    lstm = LSTMS["hold"]()
    lstm.plan = dataclasses.replace(lstm.plan, expected_rates={"exits": Range(1.0, 0.0, 10**6)})
    x = signal(3, 1, 6)
    infer(lstm, x)
    undecided(monkeypatch)
    with pytest.warns(al.DriftWarning, match="exits 0.000"):
        assert [infer(lstm, x) for _ in range(100)]


def test_another_monitor_is_seen() -> None:
    lstm, x = watched(LSTMS["hold"]()), signal(3, 1, 6)
    for _ in range(3):
        infer(lstm, x)
    first = lstm.monitor
    watched(lstm)
    for _ in range(2):
        infer(lstm, x)
    assert first is not None
    assert lstm.monitor is not None
    assert (first.status.seen, lstm.monitor.status.seen) == (3, 2)
    lstm.policy = al.HoldLayers(x_share=0.2)
    infer(lstm, x)
    infer(lstm, x)
    assert lstm.monitor is None
