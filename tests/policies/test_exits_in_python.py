"""Exits in time that Python decides on: their cost, and heads that fail on the way."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import torch

import adaptive_lstm as al
from adaptive_lstm.errors import StateError
from adaptive_lstm.execution.native_stack import NativeStack

from ..support.helpers import adapted, assert_equal, infer, signal

I, H, B = 5, 9, 4  # noqa: E741 (the letter of the input size everywhere)
WEIGHT = torch.randn(3, H, generator=torch.Generator().manual_seed(0)) * 3


def odd_head(state: torch.Tensor) -> torch.Tensor:
    return state.tanh() @ WEIGHT.to(state).T


def exits(head: Callable[[torch.Tensor], Any] = odd_head, **options: Any) -> al.ExitInTime:
    return al.ExitInTime(head, **{"threshold": 0.9, "check_every": 1} | options)


def calls_of(function: Callable[[], object]) -> int:
    """How many functions, of Python and of C, are called inside."""
    count = 0

    def seen(frame: Any, event: str, arg: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(seen)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("threshold", [0.3, 1.0], ids=["rows exit", "none exits"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["native chunks", "reference"])
@pytest.mark.parametrize("packed", [False, True])
def test_the_work_grows_as_the_length_does(packed: bool, dtype: torch.dtype, threshold: float) -> None:
    lstm = adapted(I, H, 2, policy=exits(threshold=threshold, patience=3)).to(dtype)

    def of(steps: int) -> int:
        x: Any = signal(steps, B, I).to(dtype)
        if packed:
            x = torch.nn.utils.rnn.pack_sequence([x[: steps - i, i] for i in range(B)])
        return calls_of(lambda: infer(lstm, x))

    of(40)
    short, long = of(100), of(400)
    assert long < 4.2 * short


def test_a_state_stays_in_place_between_checks() -> None:
    lstm = adapted(I, H, 2, policy=al.Combined(exits(), al.Delta.uniform(0.05)))
    with (
        mock.patch.object(NativeStack, "read", autospec=True, side_effect=NativeStack.read) as reads,
        mock.patch.object(NativeStack, "write", autospec=True, side_effect=NativeStack.write) as writes,
    ):
        infer(lstm, signal(50, B, I))
    assert (reads.call_count, writes.call_count) == (1, 1)


def test_python_decides_as_the_native_core_does() -> None:
    x = signal(60, B, I, step=0.3)
    linear = al.LinearHead(WEIGHT.numpy(), torch.zeros(3).numpy())
    for other in (al.Dense(), al.Delta.uniform(0.05), al.SkipTimesteps(x_share=0.5)):
        native = adapted(I, H, 2, policy=al.Combined(exits(linear, threshold=0.5), other))
        python = adapted(I, H, 2, policy=al.Combined(exits(lambda s: s @ WEIGHT.T, threshold=0.5), other))
        assert_equal(infer(python, x), infer(native, x))
        assert python.last_run is not None
        assert native.last_run is not None
        assert (python.last_run.route.by, native.last_run.route.by) == ("mixed", "native")
        assert python.last_run.exits == native.last_run.exits > 0
        assert python.last_run.columns == native.last_run.columns


class Fails:
    """A head that raises at one of its calls."""

    def __init__(self) -> None:
        self.left = 10**9

    def __call__(self, state: torch.Tensor) -> torch.Tensor:
        self.left -= 1
        if self.left < 0:
            raise KeyError("a fault of the user's own")
        return odd_head(state)


@pytest.mark.parametrize("other", [al.Dense(), al.Delta.uniform(1e-9)], ids=["dense", "delta"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["native chunks", "reference"])
def test_a_head_that_fails_leaves_a_stream_as_it_was(dtype: torch.dtype, other: al.Policy) -> None:
    head, x = Fails(), signal(40, B, I).to(dtype)
    lstm = adapted(I, H, 2, policy=al.Combined(exits(head, threshold=0.5, patience=2), other)).to(dtype)
    with al.stream(lstm, batch_size=B) as s, al.stream(lstm, batch_size=B) as undisturbed:
        s.run(x[:7])
        before, stats = s.state, s.stats
        for steps in (1, 9):
            head.left = steps - 1
            with pytest.raises(KeyError):
                s.run(x[7 : 7 + steps])
            head.left = 10**9
            assert_equal(s.state, before)
            assert s.stats == stats
            assert s.state.exit is not None
            assert before.exit is not None
            assert s.state.exit.time.tolist() == before.exit.time.tolist() == [7] * B
        got = torch.cat([s.run(x[7:20]), torch.stack([s.step(row) for row in x[20:]])])
        want = undisturbed.run(x)[7:]
        torch.testing.assert_close(got, want, rtol=0, atol=1e-6)
        assert s.stats == undisturbed.stats


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (lambda s: s.tolist(), "returned list, expected a float tensor"),
        (lambda s: s.argmax(1, keepdim=True), "returned torch.int64, expected a float tensor"),
        (lambda s: s.sum(1), r"returned shape \(4,\) for 4 states"),
        (lambda s: s[:, :0], r"returned shape \(4, 0\) for 4 states"),
    ],
)
def test_what_a_head_must_return(head: Any, message: str) -> None:
    lstm = adapted(I, H, 2, policy=exits(head))
    with pytest.raises(al.errors.PolicyError, match=message):
        infer(lstm, signal(9, B, I))


@pytest.mark.parametrize("time", [-1, 2**62 + 1, 2**63, 1.5])
def test_a_state_counts_no_further_than_in_the_native_core(time: Any) -> None:
    with al.stream(adapted(I, H, policy=exits())) as stream:
        stream.step(torch.zeros(1, I))
        state = stream.state
        assert state.exit is not None
        with pytest.raises(StateError, match="time: got"):
            stream.state = replace(state, exit=replace(state.exit, time=time))
        assert_equal(stream.state, state)
