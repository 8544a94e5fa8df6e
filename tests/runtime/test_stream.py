"""Streams: chunks add up to the whole sequence, states can be taken and put back, failures change nothing."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import adaptive_lstm as al

from ..support.helpers import (
    PRECISIONS,
    OnReference,
    adapted,
    assert_close,
    assert_equal,
    flat,
    infer,
    infer_natively,
    signal,
)

I = 7  # noqa: E741 (the letter of the input size everywhere)
H, L = 33, 3
LOSSLESS: dict[str, al.Policy] = {"dense": al.Dense(), "zero": al.Delta.uniform(0.0), "tiny": al.Delta.uniform(1e-9)}
POLICIES = LOSSLESS | {"delta": al.Delta.uniform(0.05), "raw": al.Delta(h=(0.02, None, 0.05), x=(0.1, 0.02, 0.0))}
EVERY_POLICY = pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
EVERY_PRECISION = pytest.mark.parametrize("precision", PRECISIONS)


def bound(policy: al.Policy, precision: str) -> str:
    """Which tolerance holds between two runs that round differently."""
    return precision if policy in LOSSLESS.values() else "skipping"


def in_chunks(stream: al.Stream, x: torch.Tensor, chunks: list[int], batch_first: bool) -> torch.Tensor:
    """Run x [T, B, I] through a stream; a chunk of 1 goes through ``step``. Output [T, B, P]."""
    outputs = []
    for part in x.split(chunks):
        if len(part) == 1:
            outputs.append(stream.step(part[0])[None])
        elif batch_first:
            outputs.append(stream.run(part.transpose(0, 1)).transpose(0, 1))
        else:
            outputs.append(stream.run(part))
    return torch.cat(outputs)


@EVERY_PRECISION
@EVERY_POLICY
@pytest.mark.parametrize("batch_first", [False, True], ids=["TBI", "BTI"])
@pytest.mark.parametrize("batch", [1, 3])
def test_chunks_equal_the_whole(batch: int, batch_first: bool, policy: al.Policy, precision: str) -> None:
    lstm = adapted(I, H, L, policy=policy, quantize=precision, batch_first=batch_first)
    x = signal(140, batch, I)
    whole, (h, c) = infer_natively(lstm, x.transpose(0, 1) if batch_first else x)
    whole = whole.transpose(0, 1) if batch_first else whole
    stats = []
    for chunks in ([140], [1] * 140, [64, 64, 12], [1, 0, 70, 1, 2, 66]):
        with al.stream(lstm, batch_size=batch) as s:
            assert_close(in_chunks(s, x, chunks, batch_first), whole, bound(policy, precision))
            assert_close((s.state.h, s.state.c), (h, c), bound(policy, precision))
            assert s.stats.route.by == "native"
            assert s.stats.timesteps == 140 * batch
            stats.append(s.stats)
    if isinstance(policy, al.Dense):
        assert stats == [lstm.last_run] * len(stats)


@settings(max_examples=60)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=6), st.integers(1, 70), st.booleans(), st.integers(0, 9))
def test_any_chunks(chunks: list[int], batch: int, project: bool, seed: int) -> None:
    lstm = adapted(5, 9, 2, proj_size=4 if project else 0, policy=al.Delta.uniform(1e-9))
    x = signal(sum(chunks) + 1, batch, 5, seed=seed)
    whole, (h, c) = infer(lstm, x)
    with al.stream(lstm, batch_size=batch) as s:
        assert_close(in_chunks(s, x, [*chunks, 1], False), whole, "fp32")
        assert_close((s.state.h, s.state.c), (h, c), "fp32")


@pytest.mark.usefixtures("float64_on_reference")
@pytest.mark.parametrize("policy", [al.Dense(), al.Delta.uniform(0.05)], ids=["dense", "delta"])
def test_float64_streams_on_the_reference(policy: al.Policy) -> None:
    lstm, x = adapted(I, H, 2, policy=policy, proj_size=5).double(), signal(20, 2, I).double()
    whole, (h, c) = infer(lstm, x)
    with al.stream(lstm, batch_size=2) as s:
        assert_close(in_chunks(s, x, [1, 0, 12, 7], False), whole, "fp64")
        assert_close((s.state.h, s.state.c), (h, c), "fp64")
        assert s.stats.route == al.types.Route("reference", "dtype float64")
        assert (s.stats.columns[0].x_possible, s.stats.columns[1].h_possible) == (40 * I, 40 * 5)


# ---------------------------------------------------------------------------------------------------------- states


@EVERY_PRECISION
@EVERY_POLICY
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_a_state_continues_identically(policy: al.Delta | al.Dense, precision: str, backend: str) -> None:
    lstm = adapted(I, H, L, policy=policy if backend == "native" else OnReference(policy), quantize=precision)
    x = signal(60, 2, I)
    with al.stream(lstm, batch_size=2) as s, al.stream(lstm, batch_size=2) as other:
        other.run(x[:7] + 1.0)
        s.run(x[:30])
        other.state = state = s.state
        assert_equal(other.state, state)
        assert other.stats.timesteps == other.stats.macs == 0
        for part in x[30:]:
            # The float accumulators of a stream that was given a state are computed afresh.
            got, want = other.step(part), s.step(part)
            assert_close(got, want, bound(policy, precision))
            if precision == "int8":
                assert_equal(got, want)


@pytest.mark.parametrize("backend", [lambda p: p, OnReference], ids=["native", "reference"])
def test_a_state_is_a_copy(backend: Callable[[al.Policy], al.Policy]) -> None:
    lstm, x = adapted(I, H, 2, policy=backend(al.Delta.uniform(0.05))), signal(30, 1, I)
    with al.stream(lstm) as s, al.stream(lstm) as untouched:
        want = untouched.run(x)
        first = s.run(x[:10])
        for tensor in flat(s.state):  # writes into what was read change nothing
            tensor.fill_(7.0)
        assert_close(torch.cat([first, s.run(x[10:])]), want, "fp32")
        s.reset()
        s.run(x[:10])
        state = s.state
        s.state = state
        for tensor in flat(state):  # nor do writes into what was assigned
            tensor.fill_(7.0)
        assert_close(s.run(x[10:]), want[10:], "fp32")


def test_a_state_moves_between_backends() -> None:
    x = signal(40, 1, I)
    with (
        al.stream(adapted(I, H, 2, policy=al.Delta.uniform(0.05))) as native,
        al.stream(adapted(I, H, 2, policy=OnReference(al.Delta.uniform(0.05)))) as reference,
    ):
        want = reference.run(x)
        got = native.run(x[:20])
        reference.state = native.state
        assert_close(torch.cat([got, reference.run(x[20:])]), want, "skipping")


@EVERY_PRECISION
def test_a_stream_may_start_from_an_hx(precision: str) -> None:
    lstm, x = adapted(I, H, 2, policy=al.Delta.uniform(0.05), quantize=precision), signal(30, 2, I)
    h, c = torch.rand(2, 2, H) - 0.5, torch.randn(2, 2, H)
    with al.stream(lstm, batch_size=2) as s:
        s.state = al.StreamState(h, c, (None, None), (None, None))
        assert_close(s.run(x), infer_natively(lstm, x, (h, c))[0], precision)


def test_nothing_is_sent_before_the_first_step() -> None:
    with al.stream(adapted(I, H, 2, policy=al.Delta.uniform(0.05))) as s:
        assert s.run(torch.zeros(0, 1, I)).shape == (0, 1, H)
        before = s.state
        s.step(torch.zeros(1, I))
        after = s.state
    assert [t is None for t in (*before.sent_x, *before.sent_h)] == [True] * 4
    assert [t is None for t in (*after.sent_x, *after.sent_h)] == [True, False, False, False]  # raw features: never


@EVERY_POLICY
def test_reset_is_a_fresh_start(policy: al.Policy) -> None:
    lstm, x = adapted(I, H, L, policy=policy), signal(20, 2, I)
    with al.stream(lstm, batch_size=2) as s:
        first, stats, state = s.run(x), s.stats, s.state
        s.reset()
        assert s.stats.timesteps == s.stats.macs_possible == 0
        assert not any(t.any() for t in flat(s.state))
        assert_equal(s.run(x), first)
        assert s.stats == stats
        assert_equal(s.state, state)


# ------------------------------------------------------------------------------------------------------- the stream


def test_layouts_of_the_input() -> None:
    lstm, x = adapted(I, H, 2), signal(12, 4, I)
    want = infer(lstm, x)[0]
    layouts = {
        "transposed": x.permute(2, 1, 0).contiguous().permute(2, 1, 0),
        "strided": torch.stack([x, x], dim=-1)[..., 0],
        "needs grad": x.clone().requires_grad_(),
    }
    for name, same in layouts.items():
        with al.stream(lstm, batch_size=4) as s:
            got = torch.cat([torch.stack([s.step(row) for row in same[:5]]), s.run(same[5:])])
        assert not got.requires_grad, name
        assert_close(got, want, "fp32")


@pytest.mark.parametrize("batch", [1, 3])
def test_a_frame_of_a_batch_steps_as_directly_as_any(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = signal(5, batch, 4).transpose(0, 1).contiguous()  # [B, T, I], of which frames are slices
    one, other = al.stream(adapted(4, 9), batch), al.stream(adapted(4, 9), batch)
    want = [one.step(frames[:, t].clone()) for t in range(5)]
    monkeypatch.setattr(al.Stream, "_check", None)
    for t, y in enumerate(want):
        assert_equal(other.step(frames[:, t]), y)
        other.reset(rows=torch.zeros(batch, dtype=torch.bool))  # nobody's sequence has ended
    assert other.stats.timesteps == 5 * batch


def test_a_stream_keeps_the_weights_that_it_was_opened_with() -> None:
    lstm, x = adapted(I, H), signal(20, 1, I)
    want = infer(lstm, x)[0]
    with al.stream(lstm) as s:
        first = s.run(x[:10])
        lstm.policy, lstm.quantize = al.Delta.uniform(0.5), al.Quantize("int8")
        with torch.no_grad():
            for parameter in lstm.parameters():
                parameter.zero_()
        assert_close(torch.cat([first, s.run(x[10:])]), want, "fp32")


def test_one_stream_in_two_threads() -> None:
    lstm, x, ready = adapted(32, 128, 2), signal(200, 1, 32), threading.Barrier(2)
    with al.stream(lstm) as s:

        def work(_: int) -> int:
            ready.wait()
            refused = 0
            for _ in range(20):
                try:
                    s.run(x)
                except RuntimeError as error:
                    if "another thread" not in str(error):
                        raise
                    refused += 1
            return refused

        with ThreadPoolExecutor(2) as pool:
            done = 40 - sum(pool.map(work, range(2)))
        assert s.stats.timesteps == 200 * done
        assert s.stats.columns[0].x_possible == 200 * done * 32


@EVERY_PRECISION
def test_many_streams_in_threads(precision: str) -> None:
    lstm, ready = adapted(I, 64, 2, policy=al.Delta.uniform(0.02), quantize=precision), threading.Barrier(4)

    def alone(seed: int) -> torch.Tensor:
        x = signal(60, 1, I, seed=seed)
        with al.stream(lstm) as s:
            return torch.cat([torch.stack([s.step(row) for row in x[:30]]), s.run(x[30:])])

    def together(seed: int) -> torch.Tensor:
        ready.wait()
        return alone(seed)

    with ThreadPoolExecutor(4) as pool:
        for got, seed in zip(pool.map(together, range(12)), range(12), strict=True):
            assert_equal(got, alone(seed))


def test_a_stream_state_is_frozen() -> None:
    with al.stream(adapted(I, H)) as s, pytest.raises(dataclasses.FrozenInstanceError):
        s.state.h = torch.zeros(1, 1, H)  # type: ignore[misc]
