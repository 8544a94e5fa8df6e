"""What policies refuse: impossible settings, stacks they do not fit, each other, and states of another policy."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import adaptive_lstm as al
from adaptive_lstm.policies import DepthTranslators, Map, TimeTranslators
from adaptive_lstm.types import StackShape

from ..support.helpers import adapted, assert_equal, infer, signal

I = 3  # noqa: E741 (the letter of the input size everywhere)
H, L = 6, 3


def zero_map(out: int, width: int) -> Map:
    return Map(np.zeros((out, width), np.float32), np.zeros(out, np.float32))


def depth_maps(layers: int = L, width: int = H) -> DepthTranslators:
    maps = tuple(zero_map(width, (k + 1) * width) for k in range(layers - 1))
    return DepthTranslators(maps, maps)


HEAD = al.LinearHead(np.eye(2, H, dtype=np.float32), np.zeros(2, np.float32))
BUCKETS = TimeTranslators((0, 8, 20), (zero_map(H, L * H),) * 3)
SKIP, LATE = al.SkipTimesteps(x_share=0.3), al.HoldLayers(x_share=(None, 0.3), mode="queue_input")
TIME, STEP = (
    al.ExitInTime(HEAD, threshold=0.9),
    al.ExitInDepth(translators=depth_maps(), head=HEAD, threshold=0.9, level="step"),
)


class Nothing:
    def check(self, shape: StackShape) -> None:
        """Fits every stack, and says nothing else."""


class Both(Nothing):
    send = should_hold = None


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (al.SkipTimesteps, {"x_share": -0.1}, "x_share: got -0.1"),
        (al.SkipTimesteps, {"x_share": 0.1, "h": math.nan}, "h: got nan"),
        (al.SkipTimesteps, {"x_share": None}, "both"),
        (al.SkipTimesteps, {"x_share": "0.1"}, "x_share: got '0.1'"),
        (al.SkipTimesteps, {"x_share": 0.1, "mode": "drop"}, "mode"),
        (al.SkipTimesteps, {"x_share": 0.1, "cap": 0}, "cap"),
        (al.SkipTimesteps, {"x_share": 0.1, "cap": 2.5}, "cap"),
        (
            al.SkipTimesteps,
            {"x_share": 0.1, "cap": 2**30 + 1},
            "cap: got 1073741825, expected .* from 1 to 1,073,741,824",
        ),
        (al.HoldLayers, {"x_share": -1.0}, "x_share: got -1.0"),
        (al.HoldLayers, {"x_share": (0.1, math.nan)}, "x_share: got nan"),
        (al.HoldLayers, {"x_share": None}, "x_share: got None"),
        (al.HoldLayers, {"x_share": 0.1, "h": -1.0}, "h: got -1.0"),
        (al.HoldLayers, {"x_share": 0.1, "cap": -1}, "cap"),
        (
            al.HoldLayers,
            {"x_share": (0.1,), "mode": "queue_input", "cap": 4097},
            "cap of a queue: got 4097, expected .* 4,096",
        ),
        (al.ExitInTime, {"head": HEAD, "threshold": -0.1}, "threshold"),
        (al.ExitInTime, {"head": HEAD, "threshold": math.nan}, "threshold"),
        (al.ExitInTime, {"head": HEAD, "threshold": (0.5, 0.5)}, "2 values for 1 time bucket"),
        (al.ExitInTime, {"threshold": (0.5, 0.5), "translators": BUCKETS}, "2 values for 3 time bucket"),
        (al.ExitInTime, {"head": HEAD, "starts": (1, 5)}, "buckets"),
        (al.ExitInTime, {"head": HEAD, "starts": (0, 5, 5)}, "buckets"),
        (al.ExitInTime, {"head": HEAD, "measure": "mean"}, "measure"),
        (al.ExitInTime, {"head": HEAD, "starts": (0, 2**31)}, "buckets"),
        (al.ExitInTime, {"head": HEAD, "starts": 3}, "starts: got 3, expected whole numbers"),
        (al.ExitInTime, {"head": HEAD, "starts": "05"}, "starts: got"),
        (al.ExitInTime, {"head": HEAD, "starts": (0, None)}, "starts: got"),
        (al.ExitInTime, {"head": HEAD, "starts": (0, 5.5)}, "starts: got"),
        (al.ExitInTime, {"head": HEAD, "starts": ()}, "starts: got"),
        (al.ExitInTime, {"head": HEAD, "check_every": 0}, "every"),
        (al.ExitInTime, {"head": HEAD, "check_every": 2**40}, "every: got .* to 1,073,741,824"),
        (al.ExitInTime, {"head": HEAD, "patience": 1.5}, "patience"),
        (al.ExitInTime, {"window": 0}, "window"),
        (al.ExitInTime, {"window": 4097}, "window: got 4097"),
        (al.ExitInTime, {"head": "head"}, "head: got str"),
        (al.ExitInTime, {"translators": zero_map(H, H)}, "translators: got Map"),
        (al.ExitInDepth, {"translators": zero_map(H, H)}, "translators: got Map"),
        (al.ExitInDepth, {"translators": depth_maps(), "threshold": -0.1}, "threshold"),
        (al.ExitInDepth, {"translators": depth_maps(), "threshold": math.nan}, "threshold"),
        (al.ExitInDepth, {"translators": depth_maps(), "threshold": (0.5,) * 3}, "3 values for 2 layers"),
        (al.ExitInDepth, {"translators": depth_maps(), "measure": "mean"}, "measure"),
        (al.ExitInDepth, {"translators": depth_maps(), "level": "layer"}, "level"),
        (al.ExitInDepth, {"translators": depth_maps(), "head": 3}, "head: got int"),
    ],
)
def test_impossible_settings(make: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(al.errors.PolicyError, match=message):
        make(**settings)


@pytest.mark.usefixtures("float64_on_reference")
@pytest.mark.parametrize(
    "policy",
    [
        al.Combined(al.SkipTimesteps(x_share=0.3, cap=2**30), al.HoldLayers(x_share=(None, 0.3), cap=2**30)),
        al.HoldLayers(x_share=(None, 0.3), mode="queue_input", cap=4096),
        al.ExitInTime(HEAD, threshold=(0.5, 0.9), starts=(0, 2**30), check_every=2**30, patience=2**30),
        al.ExitInTime(None, threshold=0.1, window=4096),
    ],
)
def test_the_largest_settings_run(policy: al.Policy) -> None:
    infer(adapted(I, H, L, policy=policy), signal(9, 2, I))
    infer(adapted(I, H, L, policy=policy).double(), signal(9, 2, I).double())


@pytest.mark.parametrize(
    ("policies", "error", "message"),
    [
        ((al.Delta.uniform(0.1), al.Delta.uniform(0.2)), "PolicyError", "2 column policies"),
        ((TIME, al.ExitInTime()), "PolicyError", "2 time policies"),
        ((STEP, STEP), "PolicyError", "2 depth policies"),
        ((SKIP, 3), "PolicyError", "got int"),
        ((Nothing(),), "PolicyError", "Nothing makes 0 kinds"),
        ((Both(),), "PolicyError", "Both makes 2 kinds"),
        ((TIME, replace(STEP, level="sequence")), "UnsupportedError", "level='step'"),
        ((LATE, STEP), "UnsupportedError", "queue_input"),
        ((LATE, SKIP), "UnsupportedError", "queue_input"),
    ],
)
def test_what_cannot_go_together(policies: tuple[Any, ...], error: str, message: str) -> None:
    with pytest.raises(getattr(al.errors, error), match=message):
        al.Combined(*policies)


@pytest.mark.parametrize(
    ("options", "policy", "error", "message"),
    [
        ({"num_layers": 1}, al.HoldLayers(x_share=0.1), "PolicyError", "one layer"),
        ({}, al.HoldLayers(x_share=(0.1,)), "PolicyError", "1 limits, expected 2"),
        ({"bidirectional": True}, LATE, "UnsupportedError", "one direction"),
        ({}, al.HoldLayers(x_share=0.1, mode="queue_input"), "UnsupportedError", "several deciding layers"),
        ({"bidirectional": True}, al.ExitInTime(HEAD, threshold=0.9), "UnsupportedError", "backward direction"),
        ({"bidirectional": True}, al.Combined(SKIP, TIME), "UnsupportedError", "backward direction"),
        ({}, replace(TIME, translators=TimeTranslators((0,), (zero_map(H, H),))), "PolicyError", "a map of shape"),
        ({}, al.ExitInTime(nn.Linear(H - 1, 2)), "PolicyError", f"width {H - 1}, expected {H}"),
        (
            {"num_layers": 1},
            al.ExitInDepth(translators=DepthTranslators((), ()), head=HEAD, threshold=0.5),
            "UnsupportedError",
            "one layer",
        ),
        ({}, al.ExitInDepth(translators=None, head=HEAD, threshold=0.5), "PolicyError", "translators: got None"),
        (
            {},
            al.ExitInDepth(translators=depth_maps(2), head=HEAD, threshold=0.5),
            "PolicyError",
            "1 layers, expected 2",
        ),
        ({}, al.ExitInDepth(translators=depth_maps(width=2 * H)), "PolicyError", "a map of shape"),
        (
            {},
            al.ExitInDepth(translators=depth_maps(), head=nn.Linear(H + 1, 2)),
            "PolicyError",
            f"width {H + 1}, expected {H}",
        ),
        ({}, al.Combined(SKIP, SKIP), "PolicyError", "layer 0: SkipTimesteps and SkipTimesteps decide on it"),
        ({}, al.Combined(*[SKIP] * 1000), "PolicyError", "SkipTimesteps and SkipTimesteps and 998 more decide on it"),
        (
            {},
            al.Combined(al.HoldLayers(x_share=0.1), al.HoldLayers(x_share=(None, 0.1))),
            "PolicyError",
            "layer 2: HoldLayers and",
        ),
        ({}, Nothing(), "PolicyError", "Nothing makes 0 kinds"),
    ],
)
def test_policies_that_do_not_fit(options: dict[str, Any], policy: al.Policy, error: str, message: str) -> None:
    lstm, x = adapted(I, H, policy=al.Delta.uniform(0.1), **({"num_layers": L} | options)), signal(9, 2, I)
    before = infer(lstm, x)
    with pytest.raises(getattr(al.errors, error), match=message):
        lstm.policy = policy
    assert lstm.policy == al.Delta.uniform(0.1)
    assert_equal(infer(lstm, x), before)


def test_whole_sequences_cannot_leave_in_a_stream() -> None:
    with pytest.raises(al.errors.UnsupportedError, match="level='step'"):
        al.stream(adapted(I, H, L, policy=replace(STEP, level="sequence")))


# ------------------------------------------------------------------------------------------------------ stream states


def streaming(policy: al.Policy, layers: int = L) -> al.Stream:
    s = al.stream(adapted(I, H, layers, policy=policy), batch_size=2)
    s.run(signal(9, 2, I))
    return s


def parts(value: Any) -> list[torch.Tensor]:
    """All tensors of a state."""
    if isinstance(value, torch.Tensor):
        return [value]
    inner = value if isinstance(value, tuple) else vars(value).values() if hasattr(value, "__dict__") else ()
    return [tensor for part in inner for tensor in parts(part)]


def changed(state: al.StreamState, **values: Any) -> al.StreamState:
    """With other values in what the top layer remembers (``held``), or else in what the exit in time does."""
    if state.hold:
        return replace(state, hold=(*state.hold[:-1], replace(state.hold[-1], **values)))
    assert state.exit is not None
    return replace(state, exit=replace(state.exit, **values))


def test_states_of_another_policy_are_refused() -> None:
    dense, delta, skip, late = (streaming(p) for p in (al.Dense(), al.Delta.uniform(0.1), SKIP, LATE))
    top, longer = streaming(replace(LATE, mode="hold_state")), streaming(replace(LATE, cap=9))
    head, settled = streaming(TIME), streaming(al.ExitInTime(None, threshold=0.01))
    more = streaming(al.ExitInTime(None, threshold=0.01, window=3))
    two = torch.ones(2)
    cases: list[tuple[al.Stream, Any, str]] = [
        (dense, skip.state, "holds layers"),
        (delta, skip.state, "holds layers"),
        (skip, delta.state, "sent"),
        (skip, top.state, "x_used"),
        (top, skip.state, "x_used"),
        (top, late.state, "queue"),
        (late, top.state, "queue"),
        (late, longer.state, "queue"),
        (skip, streaming(SKIP, layers=2).state, "layers"),
        (skip, replace(skip.state, hold=skip.state.hold[:1]), "layers"),
        (skip, changed(skip.state, run=two), "run: got torch.float32"),
        (skip, changed(skip.state, run=torch.tensor([0, -2])), "run: got -2"),
        (skip, changed(skip.state, run=None), "run: got shape None"),
        (skip, changed(skip.state, gates=torch.full((2, 4 * H), math.nan)), "NaN"),
        (late, changed(late.state, queued=None), "queued"),
        (late, changed(late.state, queued=torch.tensor([1, 9])), "queued: got 9"),
        (late, changed(late.state, queued=torch.tensor([1, -1])), "queued: got -1"),
        (late, changed(late.state, run=torch.tensor([0, 0]), queued=torch.tensor([1, 0])), "more inputs than"),
        (dense, head.state, "exit in time"),
        (head, skip.state, "holds layers"),
        (head, settled.state, "past"),
        (settled, more.state, "past"),
        (head, changed(head.state, exited=two), "exited: got torch.float32"),
        (head, changed(head.state, exited=torch.zeros(1, dtype=torch.bool)), "exited: got shape"),
        (head, changed(head.state, translation=torch.full((2, H), math.inf)), "translation: holds"),
        (head, changed(head.state, streak=torch.tensor([0, -1])), "streak: got -1"),
        (head, changed(head.state, time=torch.tensor([0, -1])), "time: got -1"),
    ]
    for stream, state, message in cases:
        before, stats = parts(stream.state), stream.stats
        with pytest.raises(al.errors.StateError, match=message):
            stream.state = state
        torch.testing.assert_close(parts(stream.state), before, rtol=0, atol=0, equal_nan=True)
        assert stream.stats == stats


@pytest.mark.parametrize("policy", [SKIP, LATE, TIME, al.Combined(SKIP, STEP, TIME)])
def test_plain_states_fit_every_policy(policy: al.Policy) -> None:
    x, state = signal(9, 2, I), streaming(al.Dense()).state
    with al.stream(adapted(I, H, L, policy=policy), batch_size=2) as s:
        s.state = state
        assert not s.exited.any()
        assert_equal(infer(adapted(I, H, L, policy=policy), x, (state.h, state.c))[0][:3], s.run(x)[:3])


@pytest.mark.parametrize("policy", [SKIP, LATE, TIME, al.Combined(SKIP, STEP, TIME)])
def test_inputs_that_are_not_finite_change_nothing(policy: al.Policy) -> None:
    s, x = streaming(policy), signal(4, 2, I)
    before, stats = parts(s.state), s.stats
    x[2, 1] = math.nan
    with pytest.raises(al.errors.NonFiniteError):
        s.run(x)
    with pytest.raises(al.errors.NonFiniteError):
        s.step(x[2])
    torch.testing.assert_close(parts(s.state), before, rtol=0, atol=0, equal_nan=True)
    assert s.stats == stats
    with pytest.raises(al.errors.NonFiniteError):
        infer(adapted(I, H, L, policy=policy), x)
