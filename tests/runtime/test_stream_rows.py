"""Rows of a stream that advance, end and start by themselves: each is a stream of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import adaptive_lstm as al
from adaptive_lstm.errors import InputError, NonFiniteError, StateError
from adaptive_lstm.policies import Map, TimeTranslators
from adaptive_lstm.types import StackShape

from ..support.artifact_cases import prune
from ..support.helpers import adapted, assert_equal, signal
from ..support.policy_cases import DELTA, FAMILIES

B, T = 7, 25
STREAMING = [case for case in FAMILIES if case.values[2]]
IN_PYTHON = al.ExitInTime(lambda s: s[:, :3], threshold=0.5, check_every=2, patience=2)
SETTLES = al.ExitInTime(None, threshold=0.05, check_every=3, window=2)


def of(
    shape: StackShape, policy: al.Policy, quantize: str = "fp32", dtype: torch.dtype = torch.float32
) -> al.AdaptiveLSTM:
    sizes = shape.input_size, shape.hidden_size, shape.num_layers
    return adapted(*sizes, proj_size=shape.proj_size, policy=policy, quantize=quantize).to(dtype)


def compare(lstm: al.AdaptiveLSTM, *, exactly: bool, seed: int = 0) -> None:
    """Random rows advance and start anew, also after work ahead, against streams of one row each."""
    x = signal(T, B, lstm.input_size).to(next(lstm.parameters()).dtype)
    lone, many = [al.stream(lstm) for _ in range(B)], al.stream(lstm, B)
    draw = torch.Generator().manual_seed(seed)
    for t in range(T):
        goes, done = (torch.rand(B, generator=draw) < share for share in (0.6, 0.1))
        if t % 3 == 1:
            many.ahead()
        many.reset(rows=done)
        if t % 3 == 2:
            many.ahead()
        for b in done.nonzero()[:, 0].tolist():
            lone[b].reset()
        if t % 9 == 8:
            goes[:] = True
            y = many.step(x[t])
        else:
            order = goes.nonzero()[:, 0].flip(0)
            y = many.step(x[t][order], rows=order).flip(0)
        alone = [lone[b].step(x[t, b : b + 1]) for b in goes.nonzero()[:, 0].tolist()]
        want = torch.cat([y[:0], *alone])
        torch.testing.assert_close(y, want, rtol=0, atol=0 if exactly else 1e-6)
        assert torch.equal(many.exited, torch.cat([s.exited for s in lone]))
        if t % 7 == 6:
            many.state = many.state


@pytest.mark.parametrize("quantize", ["fp32", "int8"])
@pytest.mark.parametrize(("shape", "policy", "_"), STREAMING[::3])
def test_rows_are_streams_of_their_own(shape: StackShape, policy: al.Policy, _: bool, quantize: str) -> None:
    # The raw input of an int8 stack is fp32: under Delta its sums are rounded in another order.
    lstm = of(shape, policy, quantize)
    compare(lstm, exactly="Delta" not in repr(policy) and not shape.proj_size)


@pytest.mark.parametrize("policy", [al.Dense(), al.Delta.uniform(0.05), al.SkipTimesteps(x_share=0.2)], ids=str)
def test_integers_give_the_bits_of_a_lone_stream(policy: al.Policy) -> None:
    for inputs, hidden in ((16, 33), (40, 130)):
        lstm = adapted(inputs, hidden, 2)
        lstm.quantize = al.Quantize("int8", raw="int8", raw_scale=[4.0] * inputs)
        lstm.policy = policy
        compare(lstm, exactly=True)


@pytest.mark.parametrize(
    ("policy", "dtype"),
    [
        (IN_PYTHON, torch.float32),
        (al.Combined(IN_PYTHON, DELTA), torch.float64),
        (al.Combined(SETTLES, al.SkipTimesteps(x_share=0.2)), torch.float64),
        (al.HoldLayers(x_share=(0.2, None), mode="queue_input"), torch.float64),
        (al.Combined(SETTLES, DELTA), torch.bfloat16),
    ],
    ids=["native chunks", "exit and delta", "exit and hold", "queue", "bfloat16"],
)
def test_rows_on_other_executors(policy: al.Policy, dtype: torch.dtype) -> None:
    lstm = of(StackShape(5, 9, 3), policy, dtype=dtype)
    compare(lstm, exactly=dtype is torch.bfloat16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["native", "reference"])
@pytest.mark.parametrize("policy", [DELTA, al.SkipTimesteps(x_share=0.2), SETTLES], ids=["delta", "hold", "exit"])
def test_select_expand_and_merge(policy: al.Policy, dtype: torch.dtype) -> None:
    lstm, x = of(StackShape(5, 9, 2), policy, dtype=dtype), signal(20, 3, 5).to(dtype)
    with al.stream(lstm, 3) as s, al.stream(lstm, 4) as four, al.stream(lstm, 6) as six:
        s.run(x[:8])
        state = s.state
        want = s.run(x[8:])
        fresh = al.stream(lstm, 1)
        four.state = al.StreamState.merge(state.select([2, 0]), fresh.state, state.select(torch.tensor([1])))
        rows = [x[8:, 2], x[8:, 0], x[8:, 0], x[8:, 1]]
        y = four.run(torch.stack(rows, dim=1))
        alone = fresh.run(x[8:, :1])[:, 0]
        torch.testing.assert_close(
            y, torch.stack([want[:, 2], want[:, 0], alone, want[:, 1]], dim=1), rtol=0, atol=1e-6
        )
        six.state = state.expand(2)
        torch.testing.assert_close(
            six.run(x[8:].repeat_interleave(2, dim=1)), want.repeat_interleave(2, dim=1), rtol=0, atol=1e-6
        )
        mask = state.select(torch.tensor([False, True, True]))
        assert mask.batch_size == 2
        assert torch.equal(mask.h, state.h[:, 1:])


def test_statistics_count_the_rows_that_advance() -> None:
    for policy in (al.Dense(), IN_PYTHON):
        lstm = of(StackShape(5, 9, 2), policy)
        with al.stream(lstm, 4) as s:
            s.step(torch.randn(4, 5))
            s.step(torch.randn(2, 5), rows=[3, 1])
            s.reset(rows=[0])
            s.step(torch.randn(0, 5), rows=[])
            assert s.stats.timesteps == 6
            assert s.stats.columns[0].x_possible == 30


@pytest.mark.parametrize("default", [torch.bfloat16, torch.float16, torch.float64])
def test_no_rows_whatever_the_default_dtype_is(default: torch.dtype) -> None:
    lstm = of(StackShape(5, 9, 2), DELTA)
    x = torch.randn(2, 5)
    with al.stream(lstm, 2) as s:
        s.step(x)
        before = s.state
        torch.set_default_dtype(default)
        try:
            assert s.step(x[:0], rows=[]).shape == (0, 9)
            s.reset(rows=[])
            assert before.select([]).batch_size == 0
            assert s.state.h.equal(before.h)
            s.run(torch.zeros(1, 2, 5, dtype=torch.float32), done=[[False, True]])
        finally:
            torch.set_default_dtype(torch.float32)


WRONG_ROWS: list[tuple[Any, str]] = [
    ([0, 4], "rows: got 4, expected 0 to 3"),
    ([-1], "rows: got -1"),
    (torch.ones(3, dtype=torch.bool), "mask of shape"),
    ([0.5], "whole numbers"),
    ([[0]], "whole numbers"),
    ("all", "whole numbers"),
    ([[0], [1, 2]], "expected numbers of rows"),
    (2, "whole numbers"),
    (torch.tensor([1, 0, 0, 0], dtype=torch.bool).to_sparse(), "expected numbers of rows"),
    (torch._to_functional_tensor(torch.tensor([0])), "expected numbers of rows"),
    (torch.zeros(1, dtype=torch.int64, device="meta"), "expected numbers of rows"),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["native", "reference"])
def test_wrong_rows_change_nothing(dtype: torch.dtype) -> None:
    lstm = of(StackShape(5, 9, 2), DELTA, dtype=dtype)
    x = torch.randn(4, 5, dtype=dtype)
    with al.stream(lstm, 4) as s:
        s.step(x)
        state, stats = s.state, s.stats
        for rows, message in WRONG_ROWS:
            with pytest.raises(InputError, match=message):
                s.step(x[:1], rows=rows)
            with pytest.raises(InputError, match=message):
                s.reset(rows=rows)
            with pytest.raises(InputError, match=message):
                state.select(rows)
        for wrong, rows, message in (
            (x[:2], [1], "shape"),
            (x[:2], [1, 1], "once"),
            (x[:1].half(), [1], "float16"),
            (x[:1] * float("nan"), [1], "NaN"),
        ):
            with pytest.raises(NonFiniteError if message == "NaN" else InputError, match=message):
                s.step(wrong, rows=rows)
        assert_equal(s.state, state)
        assert s.stats == stats
        for n in (0, 1.5, True):
            with pytest.raises(InputError, match="whole number"):
                state.expand(n)  # type: ignore[arg-type]
        with pytest.raises(StateError, match="expected one StreamState"):
            al.StreamState.merge()
        for other in (of(StackShape(5, 8, 2), DELTA), of(StackShape(5, 9, 3), DELTA)):
            with pytest.raises(StateError, match="different models"):
                al.StreamState.merge(state, al.stream(other).state)


@pytest.mark.filterwarnings("ignore:.*nested tensors:UserWarning")  # torch's own
def test_nested_tensors_are_no_rows() -> None:
    rows = torch.nested.nested_tensor([torch.zeros(1)])
    with al.stream(of(StackShape(5, 9, 2), DELTA), 2) as s:
        for call in (lambda: s.reset(rows=rows), lambda: s.step(torch.zeros(1, 5), rows=rows)):
            with pytest.raises(InputError, match="rows: got <Tensor>"):
                call()


def test_a_state_says_which_rows_have_sent_nothing() -> None:
    with al.stream(of(StackShape(5, 9, 2), DELTA), 3) as s:
        s.step(torch.randn(2, 5), rows=[0, 2])
        state = s.state
        for sent in state.sent_h:
            assert sent is not None
            assert sent.isnan().all(dim=1).tolist() == [False, True, False]
        broken = state.map(torch.clone)
        assert broken.sent_h[0] is not None
        broken.sent_h[0][0, 1] = float("nan")
        with pytest.raises(StateError, match="NaN"):
            s.state = broken


@pytest.mark.parametrize("quantize", ["fp32", "int8"])
def test_rows_that_left_keep_what_they_left_with(quantize: str) -> None:
    """Also where a unit is pruned to a constant, which a state that is set is given anew in the rows that go on."""
    translators = TimeTranslators((0,), (Map(-np.eye(6, dtype=np.float32), np.zeros(6, np.float32)),))
    policy = al.ExitInTime(None, threshold=9.0, check_every=2, window=1, translators=translators)
    lstm = adapted(3, 6, 1, policy=policy, quantize=quantize)
    prune(lstm)
    x, many, lone = signal(8, 4, 3), al.stream(lstm, 4), [al.stream(lstm) for _ in range(4)]

    def step(t: int, *rows: int) -> None:
        many.step(x[t][list(rows)], rows=list(rows))
        for row in rows:
            lone[row].step(x[t, row : row + 1])

    for t in range(5):
        step(t, 0, 1)  # which leave
    many.state, parents = many.state.select([0, 2, 1, 3]), [one.state for one in lone]
    for one, parent in zip(lone, (0, 2, 1, 3), strict=True):
        one.state = parents[parent]
    step(5, 1, 3)
    assert many.exited.tolist() == [True, False, True, False]
    assert many.state.h[0, 0, 1] == -0.25  # the constant, translated
    assert torch.equal(many.state.h, torch.cat([one.state.h for one in lone], 1))
