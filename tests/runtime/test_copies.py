"""A copy of an LSTM, or a setting that is set again, packs nothing that has been packed already."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import adaptive_lstm as al

from ..support.helpers import OnReference, adapted, assert_equal, infer, infer_natively, native_only, signal
from ..support.small_task import Classifier

X = signal(7, 2, 6)
HEAD = al.LinearHead(np.ones((3, 9), np.float32), np.ones(3, np.float32))
SETTINGS: dict[str, tuple[str, Callable[[], al.Policy]]] = {
    "fp32": ("fp32", al.Dense),
    "int8": ("int8", al.Dense),
    "delta": ("int8", lambda: al.Delta(h=0.1, x=(0.1, 0.2))),
    "exit": (
        "fp32",
        lambda: al.ExitInTime(al.LinearHead(np.ones((3, 9), np.float32), np.ones(3, np.float32)), threshold=0.9),
    ),
    "combined": ("bf16", lambda: al.Combined(al.Delta.uniform(0.1), al.HoldLayers(x_share=0.1))),
}


def made(setting: str) -> al.AdaptiveLSTM:
    """An LSTM that has run."""
    quantize, policy = SETTINGS[setting]
    lstm = adapted(6, 9, 2, quantize=quantize, policy=policy())
    infer(lstm, X)
    return lstm


@native_only
@pytest.mark.parametrize("setting", SETTINGS)
def test_a_deep_copy_uses_what_was_packed(setting: str) -> None:
    lstm = made(setting)
    packed, want, rounded = lstm.executor().native, infer(lstm, X), lstm.executor().tensors[1].w_hh.clone()
    other = copy.deepcopy(copy.deepcopy(lstm))
    with torch.no_grad():
        for parameter in lstm.parameters():
            parameter.mul_(0.5)
    assert_equal(infer(other, X), want)
    assert other.executor().native is packed
    assert torch.equal(other.executor().tensors[1].w_hh, rounded)  # of its own weights, not of the other's


@pytest.mark.parametrize("write", ["counted", "data", "replaced"])
def test_a_copy_that_was_written_to_is_packed_anew(write: str) -> None:
    lstm = made("int8")
    packed, want = lstm.executor().native, infer(lstm, X)
    other = copy.deepcopy(lstm)
    weight = dict(other.named_parameters())["weight_hh_l1"]
    with torch.no_grad():
        if write == "counted":
            weight[3, 4] += 0.5
        elif write == "data":
            weight.data[3, 4] += 0.5
        else:
            other.weight_hh_l1 = nn.Parameter(weight * 2)
    got = infer(other, X)
    assert other.executor().native is not packed
    fresh = al.AdaptiveLSTM.from_lstm(other)
    fresh.replan()
    assert_equal(got, infer(fresh, X))
    assert_equal(infer(lstm, X), want)


def test_a_copy_keeps_no_other_weights_alive() -> None:
    lstm = made("int8")
    other = copy.deepcopy(lstm)
    gone = weakref.ref(dict(lstm.named_parameters())["weight_hh_l0"])
    del lstm
    gc.collect()
    assert gone() is None
    assert infer(other, X)[0].isfinite().all()
    again = copy.deepcopy(copy.deepcopy(other))
    assert_equal(infer(again, X), infer(other, X))


def test_a_copy_with_a_head_in_python_has_its_own() -> None:
    class Head(nn.Module):
        """Sure of everything once its bias is large."""

        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(3))

        def forward(self, h: torch.Tensor) -> torch.Tensor:
            return h[:, :3] * 0 + self.bias

    lstm = adapted(6, 9, 1, policy=al.ExitInTime(Head().eval(), threshold=0.9, measure="max", check_every=1))
    infer(lstm, X)
    other = copy.deepcopy(lstm)
    with torch.no_grad():
        other.policy.head.bias[0] = 50.0  # type: ignore[attr-defined]
    infer(lstm, X), infer(other, X)
    assert lstm.last_run is not None
    assert other.last_run is not None
    assert (lstm.last_run.exits, other.last_run.exits) == (0, 2)


@native_only
@pytest.mark.parametrize("setting", SETTINGS)
def test_the_same_setting_once_more_keeps_what_was_packed(setting: str) -> None:
    lstm, (quantize, policy) = made(setting), SETTINGS[setting]
    packed, want = lstm.executor(), infer_natively(lstm, X)
    lstm.policy, lstm.quantize = policy(), al.Quantize(quantize)  # type: ignore[arg-type]
    lstm.plan = replace(lstm.plan, policy=copy.deepcopy(lstm.policy))
    assert lstm.executor() is packed
    assert_equal(infer_natively(lstm, X), want)


@pytest.mark.parametrize(
    "other",
    [
        al.Delta(h=0.1, x=(0.1, 0.25)),
        al.Delta(h=0.1, x=None),
        al.SkipTimesteps(x_share=0.1),
        al.ExitInTime(al.LinearHead(np.ones((3, 9), np.float32), np.zeros(3, np.float32)), threshold=0.9),
        OnReference(al.Delta(h=0.1, x=(0.1, 0.2))),
    ],
    ids=["other thresholds of x", "no thresholds of x", "another kind", "an exit", "on the reference"],
)
def test_another_policy_is_executed(other: Any) -> None:
    lstm = made("delta")
    infer(lstm, X)
    lstm.policy = other
    fresh = adapted(6, 9, 2, quantize="int8", policy=other)
    assert_equal(infer(lstm, X), infer(fresh, X))
    lstm.quantize = al.Quantize("int8", levels=100)
    fresh.quantize = al.Quantize("int8", levels=100)
    assert_equal(infer(lstm, X), infer(fresh, X))


def policy_class(factor: float) -> Any:
    """A policy of a user, as a notebook defines it once more after an edit."""

    @dataclass(frozen=True)
    class Mine:
        at: float

        def check(self, shape: Any) -> None:
            """It fits all."""

        def thresholded(self, site: al.Site) -> bool:
            return True

        def send(self, site: al.Site, value: torch.Tensor, sent: torch.Tensor) -> torch.Tensor:
            return (value - sent).abs() > self.at * factor

    return Mine


@pytest.mark.parametrize("wrap", [lambda p: p, lambda p: al.Combined(p, al.HoldLayers(x_share=0.0))])
def test_a_class_that_was_defined_again_is_another(wrap: Callable[[Any], Any]) -> None:
    before, after = wrap(policy_class(0.0)(0.1)), wrap(policy_class(1e6)(0.1))
    lstm = adapted(6, 9, 2, policy=before)
    infer(lstm, X)
    lstm.policy = after
    assert_equal(infer(lstm, X), infer(adapted(6, 9, 2, policy=after), X))
    assert not torch.equal(infer(lstm, X)[0], infer(adapted(6, 9, 2, policy=before), X)[0])


def test_copies_of_a_model_that_is_served_are_exact() -> None:
    fast = al.adapt(Classifier(2).eval())
    x = torch.randn(1, 8, 3, generator=torch.Generator().manual_seed(0))
    want = infer(fast, x)
    for _ in range(3):
        fast = copy.deepcopy(fast)
        assert_equal(infer(fast, x), want)
        assert_equal(infer(fast.train().eval(), x), want)
