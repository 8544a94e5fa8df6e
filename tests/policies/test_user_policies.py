"""Policies that a user writes in Python: the example of the README, and one of every kind against the package's own."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

import adaptive_lstm as al
from adaptive_lstm.policies import (
    Change,
    DepthExitPolicy,
    DepthTranslators,
    HoldPolicy,
    Map,
    TimeExitPolicy,
    TimeTranslators,
)
from adaptive_lstm.types import StackShape

from ..support.helpers import OnReference, adapted, assert_close, assert_equal, infer, signal

pytestmark = pytest.mark.usefixtures("float64_on_reference")

I = 5  # noqa: E741 (the letter of the input size everywhere)
H, L, C, T = 8, 3, 4, 24


class HoldSilence:
    """Leave all layers as they are while the input is silent."""

    action: Final = "hold_gates"  # gates stay as they are, c and h still move
    cap: Final = 50

    def __init__(self, level: float):
        self.level = level

    def check(self, shape: StackShape) -> None:
        """Fits every stack."""

    def decides(self, shape: StackShape, layer: int) -> bool:
        return layer == 0  # and all above follow

    def should_hold(self, shape: StackShape, cell: int, change: Change) -> torch.Tensor:
        return (change.x.abs().amax(1) < self.level) & (change.x_used.abs().amax(1) < self.level)


def test_a_policy_as_in_the_readme() -> None:
    x = signal(60, 2, I)
    x[20:50, 0] = 0  # one of the two rows falls silent
    fast = adapted(I, H, L)
    dense = infer(fast, x)[0]
    fast.policy = al.Combined(HoldSilence(level=1e-3), al.Delta.uniform(0.0))
    y = infer(fast, x)[0]
    stats = fast.last_run
    assert stats is not None
    assert stats.route == al.types.Route("reference", "policy HoldSilence is written in Python")
    assert [c.ran for c in stats.columns] == [120 - 29] * L
    assert_close((y[:21], y[:, 1]), (dense[:21], dense[:, 1]), "fp32")
    assert float((y[:, 0] - dense[:, 0]).abs().max()) < 0.1
    with al.stream(fast, batch_size=2) as s:
        assert_close(torch.stack([s.step(step) for step in x]), y, "fp32")


class MyHolding:
    def __init__(self, policy: HoldPolicy):
        self.action, self.cap = policy.action, policy.cap
        self.decides, self.should_hold, self.check = policy.decides, policy.should_hold, policy.check


class MyTime:
    def __init__(self, policy: TimeExitPolicy):
        self.check_every, self.patience, self.window = policy.check_every, policy.patience, policy.window
        self.translate, self.should_exit, self.check = policy.translate, policy.should_exit, policy.check


class MyDepth:
    def __init__(self, policy: DepthExitPolicy):
        self.level, self.checks_after, self.check = policy.level, policy.checks_after, policy.check
        self.translate, self.should_exit = policy.translate, policy.should_exit


def drawn(*shape: int, seed: int, scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def stacked(policy: al.Policy) -> al.AdaptiveLSTM:
    lstm = adapted(I, H, L, policy=policy).double()
    with torch.no_grad():
        for parameter in lstm.parameters():  # states that move more than those of fresh weights
            parameter.mul_(3)
    return lstm


HEAD = al.LinearHead(drawn(C, H, seed=7), drawn(C, seed=8))
BELOW = tuple(Map(drawn(H, (k + 1) * H, seed=k, scale=0.5), drawn(H, seed=k)) for k in range(L - 1))
STEP = al.ExitInDepth(translators=DepthTranslators(BELOW, BELOW), head=HEAD, threshold=0.7, measure="max", level="step")
SEQUENCE = replace(STEP, level="sequence")
TO_THE_END = TimeTranslators((0,), (Map(drawn(H, L * H, seed=3), drawn(H, seed=4)),))
TIME = al.ExitInTime(HEAD, threshold=0.75, measure="max", translators=TO_THE_END, check_every=3)
SETTLED = al.ExitInTime(None, threshold=0.2, check_every=2, window=2, patience=2)
SKIP, HOLD = al.SkipTimesteps(x_share=0.4, cap=3), al.HoldLayers(x_share=(None, 0.3), cap=4)
LATE = al.HoldLayers(x_share=(None, 0.5), mode="queue_input")


@pytest.mark.parametrize(
    ("mine", "policy"),
    [
        (OnReference(al.Delta.uniform(0.05)), al.Delta.uniform(0.05)),
        (MyHolding(SKIP), SKIP),
        (MyHolding(LATE), LATE),
        (MyTime(TIME), TIME),
        (MyTime(SETTLED), SETTLED),
        (MyDepth(STEP), STEP),
        (MyDepth(SEQUENCE), SEQUENCE),
        (al.Combined(MyHolding(SKIP), HOLD, MyTime(TIME)), al.Combined(SKIP, HOLD, TIME)),
    ],
)
def test_a_policy_in_python_does_the_same(mine: al.Policy, policy: al.Policy) -> None:
    x, lengths = signal(T, 3, I, step=0.3).double(), torch.tensor([9, T, 17])
    ours, theirs = stacked(policy), stacked(mine)
    packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
    assert_equal(infer(theirs, packed), infer(ours, packed))
    assert ours.last_run is not None
    assert theirs.last_run is not None
    want = replace(ours.last_run, macs=ours.last_run.macs - ours.last_run.policy_macs, policy_macs=0)
    assert replace(theirs.last_run, macs=theirs.last_run.macs - theirs.last_run.policy_macs, policy_macs=0) == want
    assert want.macs < want.macs_possible
    if policy is SEQUENCE:
        return
    with al.stream(ours, batch_size=3) as a, al.stream(theirs, batch_size=3) as b:
        assert_equal(b.run(x), a.run(x))
        b.state = a.state
        assert torch.equal(a.exited, b.exited)
    with al.stream(theirs.float(), batch_size=3) as s:
        assert s.stats.route.by != "native"
        assert "written in Python" in s.stats.route.reason
