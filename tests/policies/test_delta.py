"""The delta policy: what it sends, what it counts, and that nothing drifts; native against reference, step by step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils.rnn import pack_padded_sequence

import adaptive_lstm as al

from ..support.helpers import (
    NEAR_LEVEL,
    NEAR_THRESHOLD,
    PRECISIONS,
    RARE,
    OnReference,
    adapted,
    assert_close,
    assert_equal,
    executed_weights,
    infer,
    infer_natively,
    signal,
)

I = 7  # noqa: E741 (the letter of the input size everywhere)
H, L = 33, 3
EVERY_PRECISION = pytest.mark.parametrize("precision", PRECISIONS)
PER_COLUMN = al.Delta(
    h=(np.linspace(0.0, 0.1, H), None, 0.05),  # type: ignore[arg-type]
    x=(np.full(I, 0.2), torch.linspace(0.01, 0.1, H), 0.0),  # type: ignore[arg-type]
)


# ------------------------------------------------------------------------------------------------- nothing is lost


@settings(max_examples=60)
@given(
    st.sampled_from(PRECISIONS),
    st.sampled_from([0.0, 1e-9]),
    st.integers(1, 40),
    st.integers(1, 3),
    st.booleans(),
    st.sampled_from([1, 2, 5]),
    st.integers(0, 99),
)
def test_null_thresholds_are_dense(
    precision: str, threshold: float, hidden: int, layers: int, bidirectional: bool, batch: int, seed: int
) -> None:
    lstm = adapted(I, hidden, layers, seed=seed, quantize=precision, bidirectional=bidirectional)
    x = signal(30, batch, I, seed=seed)
    x[10:20] = x[10]
    dense = infer_natively(lstm, x)
    lstm.policy = al.Delta(h=threshold, x=threshold)
    got = infer_natively(lstm, x)
    assert lstm.last_run is not None
    if threshold == 0.0:
        assert_equal(got, dense)
        assert lstm.last_run.activity == 1.0
    elif precision == "int8":
        assert_equal((got[0], got[1][0]), (dense[0], dense[1][0]))  # computed by columns, but in integers
        assert lstm.last_run.activity < 1.0
    else:
        assert_close(got, dense, precision)


@EVERY_PRECISION
def test_a_repeated_input_costs_nothing(precision: str) -> None:
    lstm = adapted(I, H, quantize=precision, policy=al.Delta(h=1e-9, x=(1e-9,)))
    with torch.no_grad():
        for parameter in lstm.parameters():  # h stays zero
            parameter.zero_()
        lstm.get_parameter("weight_ih_l0")[:H] = 1.0  # of the gate i, where g is zero
    infer_natively(lstm, torch.ones(50, 2, I))
    assert lstm.last_run is not None
    (columns,) = lstm.last_run.columns
    assert (columns.x_sent, columns.x_possible) == (2 * I, 100 * I)
    assert (columns.h_sent, columns.h_possible) == (0, 100 * H)
    assert lstm.last_run.macs == 4 * H * 2 * I


# --------------------------------------------------------------------------------- decisions, native and reference


def operands(lstm: al.AdaptiveLSTM, x: torch.Tensor, before: al.StreamState, after: al.StreamState) -> Iterator[Any]:
    """(site, values at this step, sent before, sent after), in the order in which they are computed."""
    for cell in range(lstm.num_layers):
        below = x if cell == 0 else after.h[cell - 1]
        yield al.Site(lstm.stack_shape, cell, "x"), below, before.sent_x[cell], after.sent_x[cell]
        yield al.Site(lstm.stack_shape, cell, "h"), before.h[cell], before.sent_h[cell], after.sent_h[cell]


def undecided(lstm: al.AdaptiveLSTM, site: al.Site, value: torch.Tensor, sent: torch.Tensor | None) -> torch.Tensor:
    """Columns that lie within rounding of their threshold, or of the edge between two int8 levels."""
    weights = executed_weights(lstm)[site.cell]
    levels = weights.x_levels if site.operand == "x" else weights.h_levels
    policy = lstm.policy
    assert isinstance(policy, al.Delta)
    near = torch.zeros_like(value, dtype=torch.bool)
    if sent is not None:
        near |= ((value - sent).abs() - torch.as_tensor(policy.threshold(site))).abs() < NEAR_THRESHOLD
    if levels:
        near |= ((value * levels).frac().abs() - 0.5).abs() < NEAR_LEVEL
    return near


@EVERY_PRECISION
@pytest.mark.parametrize("proj_size", [0, 12])
@pytest.mark.parametrize(
    "policy", [al.Delta.uniform(0.02), al.Delta(h=0.1, x=None), "per column"], ids=["h, x", "h", "columns"]
)
def test_decisions_are_those_of_the_reference(policy: Any, proj_size: int, precision: str) -> None:
    if policy == "per column":
        if proj_size:
            pytest.skip("one value per column is made for one width")
        policy = PER_COLUMN
    native = adapted(I, H, L, policy=policy, quantize=precision, proj_size=proj_size)
    python = adapted(I, H, L, policy=OnReference(policy), quantize=precision, proj_size=proj_size)
    steps, differing = 200, 0
    with al.stream(native, batch_size=2) as s, al.stream(python, batch_size=2) as r:
        counted = s.stats
        for x in signal(steps, 2, I):
            r.state = before = s.state
            got, want = s.step(x), r.step(x)
            last, counted = counted, s.stats
            for site, value, sent, after in operands(native, x, before, s.state):
                expected = (r.state.sent_x if site.operand == "x" else r.state.sent_h)[site.cell]
                assert (after is None) == (expected is None)
                if after is None:
                    continue
                different = (after - expected).abs() > NEAR_THRESHOLD
                if bool(different.any()):
                    assert bool(undecided(native, site, value, sent)[different].all()), str(site)
                    differing += 1
                    break  # what is computed from here on differs, too
            else:
                assert_close(got, want, "fp32")
                for a, b, c in zip(counted.columns, last.columns, r.stats.columns, strict=True):
                    assert (a.x_sent - b.x_sent, a.h_sent - b.h_sent) == (c.x_sent, c.h_sent)
                    assert (a.x_possible - b.x_possible, a.h_possible - b.h_possible) == (c.x_possible, c.h_possible)
        assert differing <= RARE * steps
        assert s.stats.activity < 0.9


@EVERY_PRECISION
@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "both ways"])
def test_whole_sequences_follow_the_reference(bidirectional: bool, packed: bool, precision: str) -> None:
    lstm = adapted(I, H, 2, policy=al.Delta.uniform(0.03), quantize=precision, bidirectional=bidirectional)
    x: Any = signal(40, 4, I)
    if packed:
        x = pack_padded_sequence(x, torch.tensor([9, 40, 1, 25]), enforce_sorted=False)
    got, stats = infer_natively(lstm, x), lstm.last_run
    lstm.policy = OnReference(al.Delta.uniform(0.03))
    assert_close(got, infer(lstm, x), "skipping")
    want = lstm.last_run
    assert stats is not None
    assert want is not None
    assert want.route == al.types.Route("reference", "policy OnReference is written in Python")
    assert (stats.macs_possible, stats.timesteps) == (want.macs_possible, want.timesteps)
    assert stats.macs == pytest.approx(want.macs, rel=0.002)
    assert stats.activity == pytest.approx(want.activity, rel=0.002)
    assert 0.05 < stats.activity < 0.9


# ------------------------------------------------------------------------------------------------------ statistics


@pytest.mark.parametrize("policy", [al.Dense(), al.Delta.uniform(0.0)], ids=["dense", "null"])
def test_macs_by_hand(policy: al.Policy) -> None:
    lstm = adapted(3, 5, 2, proj_size=2, bidirectional=True, policy=policy)
    infer_natively(lstm, signal(7, 4, 3))
    stats = lstm.last_run
    assert stats is not None
    # One step of one row: two directions of layer 0 (3 inputs, 2 recurrent) and of layer 1 (2 * 2 inputs, 2 recurrent),
    # four gates of 5 units, then the projection from 5 to 2.
    step = 2 * (4 * 5 * (3 + 2) + 2 * 5) + 2 * (4 * 5 * (4 + 2) + 2 * 5)
    assert stats.macs == stats.macs_possible == 7 * 4 * step
    assert (stats.timesteps, stats.layers, stats.exits, stats.route.by) == (28, 4, 0, "native")
    assert stats.activity == 1.0
    assert [c.x_possible for c in stats.columns] == [28 * 3, 28 * 3, 28 * 4, 28 * 4]
    assert [c.h_possible for c in stats.columns] == [28 * 2] * 4


def test_macs_follow_from_the_columns() -> None:
    lstm = adapted(I, H, 2, proj_size=12, policy=al.Delta.uniform(0.05))
    infer_natively(lstm, signal(50, 2, I))
    stats = lstm.last_run
    assert stats is not None
    first, second = stats.columns
    assert first.x_sent == first.x_possible == 100 * I
    assert 12 < second.x_sent < second.x_possible == 100 * 12
    sent = first.x_sent + first.h_sent + second.x_sent + second.h_sent
    assert stats.macs == 4 * H * sent + 100 * 2 * 12 * H
    assert stats.activity == sent / (100 * (I + 12 + 12 + 12))


# ----------------------------------------------------------------------------------------------------------- drift


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_million_steps_do_not_drift(precision: str) -> None:
    policy = al.Delta(h=0.01, x=(0.05, 0.01))
    lstm = adapted(4, 16, 2, policy=policy, quantize=precision)
    with al.stream(lstm) as s, al.stream(lstm) as fresh:
        for seed in range(100):
            s.run(signal(10_000, 1, 4, seed=seed, step=0.05).sin())
        assert s.stats.timesteps == 1_000_000
        assert 0.01 < s.stats.activity < 0.9
        fresh.state = s.state  # computes the accumulators from the values last sent
        for x in signal(100, 1, 4, seed=100):
            got, want = s.step(x), fresh.step(x)
            assert_equal(got, want) if precision == "int8" else assert_close(got, want, "fp32")


@pytest.mark.parametrize("spike", [1e6, 3e38])
def test_a_spike_in_the_input_leaves_no_trace(spike: float) -> None:
    # A threshold on raw features whose values a sensor may exaggerate once, in both directions.
    lstm = adapted(4, 16, policy=al.Delta(h=0.0, x=(0.05,)))
    x = signal(60, 1, 4)
    x[10], x[11] = spike, -spike
    with al.stream(lstm) as s:
        outputs = s.run(x)
        assert bool(outputs.isfinite().all())
        with al.stream(lstm) as fresh:
            fresh.state = s.state
            for row in signal(20, 1, 4, seed=1):
                assert_close(s.step(row), fresh.step(row), "fp32")


# --------------------------------------------------------------------------------------------------------- settings


def test_forms_of_thresholds() -> None:
    site = [al.Site(adapted(I, H, 2).stack_shape, cell, operand) for cell in range(2) for operand in ("x", "h")]
    one = al.Delta.uniform(0.25)
    assert [one.thresholded(s) for s in site] == [False, True, True, True]  # raw features are left alone
    assert np.array_equal(one.threshold(site[1]), np.full(H, 0.25, dtype=np.float32))  # type: ignore[arg-type]
    named = al.Delta(h=(None, 0.0), x=(0.5, np.arange(H)))  # type: ignore[arg-type]
    assert [named.thresholded(s) for s in site] == [True, False, True, False]
    assert np.array_equal(named.threshold(site[2]), np.arange(H, dtype=np.float32))  # type: ignore[arg-type]
    assert al.Delta(h=[0.1, 0.2]) == al.Delta(h=(0.1, 0.2), x=None)  # type: ignore[arg-type]
    for number in (np.float32(0.25), np.float64(0.25), torch.tensor(0.25)):
        assert al.Delta.uniform(number) == one  # type: ignore[arg-type]
    assert hash(al.Delta.uniform(0.25)) == hash(one)
