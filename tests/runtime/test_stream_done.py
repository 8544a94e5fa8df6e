"""A chunk in which rows start anew gives what each of its pieces gives alone."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

import adaptive_lstm as al
from adaptive_lstm.errors import InputError, NonFiniteError
from adaptive_lstm.types import StackShape

from ..support.helpers import adapted, assert_equal, signal
from ..support.policy_cases import DELTA, FAMILIES
from .test_stream_rows import IN_PYTHON, SETTLES, of

B, T = 5, 23
STREAMING = [case for case in FAMILIES if case.values[2]]


def drawn(share: float, seed: int = 0) -> torch.Tensor:
    """Where rows start anew: bool [T, B]; of the last row never."""
    done = torch.rand(T, B, generator=torch.Generator().manual_seed(seed)) < share
    done[:, -1] = False
    return done


def pieces(lstm: al.AdaptiveLSTM, x: torch.Tensor, done: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Every sequence [T', 1, I] in a stream of its own: all outputs, and h of the last sequence of every row."""
    y, last = x.new_empty(T, B, lstm.proj_size or lstm.hidden_size), []
    for b in range(B):
        edges = [0, *(t for t in range(1, T) if done[t, b]), T]
        for begin, end in itertools.pairwise(edges):
            with al.stream(lstm) as alone:
                y[begin:end, b : b + 1] = alone.run(x[begin:end, b : b + 1])
                h = alone.state.h
        last.append(h[:, 0])
    return y, last


def compare(lstm: al.AdaptiveLSTM, *, exactly: bool, share: float = 0.1) -> None:
    """A chunk of chunks, in both layouts of time, against the pieces."""
    x, done = signal(T, B, lstm.input_size).to(next(lstm.parameters()).dtype), drawn(share)
    want, last = pieces(lstm, x, done)
    with al.stream(lstm, B) as s:
        s.run(torch.randn_like(x))
        s.ahead()
        done[0] = True
        y = torch.cat([s.run(x[:9], done=done[:9]), s.run(x[9:9], done=done[9:9]), s.run(x[9:], done=done[9:])])
        torch.testing.assert_close(y, want, rtol=0, atol=0 if exactly else 1e-6)
        torch.testing.assert_close(s.state.h, torch.stack(last, 1), rtol=0, atol=0 if exactly else 1e-6)
        assert s.stats.timesteps == 2 * T * B


@pytest.mark.parametrize("quantize", ["fp32", "int8"])
@pytest.mark.parametrize(("shape", "policy", "_"), STREAMING[1::3])
def test_every_piece_is_a_stream_of_its_own(shape: StackShape, policy: al.Policy, _: bool, quantize: str) -> None:
    # The raw input of an int8 stack is fp32: under Delta its sums are rounded in another order.
    compare(of(shape, policy, quantize), exactly="Delta" not in repr(policy) and not shape.proj_size)


@pytest.mark.parametrize("share", [0.02, 0.6])
@pytest.mark.parametrize("policy", [al.Dense(), DELTA, al.SkipTimesteps(x_share=0.2), SETTLES], ids=str)
def test_integers_have_the_bits_of_the_pieces(policy: al.Policy, share: float) -> None:
    lstm = adapted(16, 33, 2)
    lstm.quantize = al.Quantize("int8", raw="int8", raw_scale=[4.0] * 16)
    lstm.policy = policy
    compare(lstm, exactly=True, share=share)


@pytest.mark.parametrize(
    ("policy", "dtype"),
    [(IN_PYTHON, torch.float32), (al.Combined(SETTLES, DELTA), torch.float64), (al.Dense(), torch.bfloat16)],
    ids=["native chunks", "reference", "bfloat16"],
)
def test_pieces_on_other_executors(policy: al.Policy, dtype: torch.dtype) -> None:
    compare(of(StackShape(5, 9, 3), policy, dtype=dtype), exactly=dtype is torch.bfloat16)


def test_the_mask_has_the_layout_of_the_input() -> None:
    lstm = adapted(5, 9, 2)
    turned = adapted(5, 9, 2, batch_first=True)
    x, done = signal(T, B, 5), drawn(0.2)
    want = al.stream(lstm, B).run(x, done)
    for mask in (done.T, done.T.numpy(), np.asfortranarray(done.T.numpy()), done.T.tolist()):
        assert torch.equal(al.stream(turned, B).run(x.transpose(0, 1), done=mask).transpose(0, 1), want)


WRONG: list[tuple[Any, str]] = [
    (torch.zeros(T, 6, dtype=torch.bool), rf"done: got bool of shape \({T}, 6\), expected .*\({T}, {B}\)"),
    (torch.zeros(B, T, dtype=torch.bool), "of shape"),
    (torch.zeros(T, dtype=torch.bool), "of shape"),
    (torch.zeros(T, B), "done: got float32 .* done > 0 makes one"),
    ([0, 1], "done: got int64"),
    ("never", "done: got 'never'"),
    (True, "of shape"),
]


@pytest.mark.parametrize("policy", [DELTA, IN_PYTHON], ids=["native", "native chunks"])
def test_what_is_refused_changes_nothing(policy: al.Policy) -> None:
    x, done = signal(T, B, 5), drawn(0.2)
    with al.stream(of(StackShape(5, 9, 2), policy), B) as s:
        s.run(x)
        state, stats = s.state, s.stats
        for mask, message in WRONG:
            with pytest.raises(InputError, match=message):
                s.run(x, done=mask)
        x[-1, 2, 1] = torch.inf
        with pytest.raises(NonFiniteError):
            s.run(x, done=done)
        assert_equal(s.state, state)
        assert s.stats == stats


def test_a_head_that_fails_on_the_way_changes_nothing() -> None:
    questions, last = 0, -1

    def head(h: torch.Tensor) -> torch.Tensor:
        nonlocal questions
        questions += 1
        if questions == last:
            raise ValueError("not this one")
        return h[:, :3]

    x, done = signal(T, B, 5), drawn(0.2)
    with al.stream(of(StackShape(5, 9, 2), al.ExitInTime(head, threshold=0.99)), B) as s:
        s.run(x)
        state, stats, last = s.state, s.stats, questions + 9
        with pytest.raises(ValueError, match="not this one"):
            s.run(x, done=done)
        assert_equal(s.state, state)
        assert s.stats == stats
