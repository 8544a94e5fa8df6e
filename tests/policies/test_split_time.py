"""Splitting in time: against an oracle that runs chunk by chunk, exact settings, threads, and what is counted."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils.rnn import PackedSequence, pack_sequence, pad_packed_sequence

import adaptive_lstm as al
from adaptive_lstm.policies import StartStates
from adaptive_lstm.runtime.monitor import Range
from adaptive_lstm.types import StackShape

from ..support.helpers import PRECISIONS, adapted, assert_close, assert_equal, infer, torch_lstm
from ..support.split_by_hand import native_cells, split_by_hand, torch_cells

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")

I = 5  # noqa: E741 (the letter of the input size everywhere)
H = 9
SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "both ways": {"bidirectional": True},
    "projected": {"proj_size": 4},
    "projected, both ways": {"proj_size": 4, "bidirectional": True},
    "no bias": {"bias": False},
}
EVERY_SHAPE = pytest.mark.parametrize("options", SHAPES.values(), ids=SHAPES)
EVERY_PRECISION = pytest.mark.parametrize("precision", PRECISIONS)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape)


def start_states(shape: StackShape, scale: float = 0.3) -> StartStates:
    h, c = (
        tuple((scale * torch.randn(n)).numpy() for _ in range(shape.num_cells))
        for n in (shape.output_size, shape.hidden_size)
    )
    return StartStates(h, c)


def remembering(layers: int = 1, hidden: int = H) -> al.AdaptiveLSTM:
    """Never forgets: every forget gate is open, so that c adds up all that it was given."""
    lstm = adapted(I, hidden, layers)
    with torch.no_grad():
        for k in range(layers):
            getattr(lstm, f"bias_ih_l{k}")[hidden : 2 * hidden] = 30.0
    return lstm


def seams(lstm: al.AdaptiveLSTM) -> Any:
    assert lstm.last_run is not None
    return lstm.last_run.seams


# ----------------------------------------------------------------------------------------------------------- exact runs


@EVERY_SHAPE
@EVERY_PRECISION
def test_without_a_seam_it_is_the_sequence(options: dict[str, Any], precision: str) -> None:
    x, lstm = noise(40, 2, I), adapted(I, H, 2, quantize=precision, **options)
    want = infer(lstm, x)
    for policy in (
        al.SplitTime(),
        al.SplitTime(chunk=4, warm_up=40),
        al.SplitTime(chunk=40, warm_up=1),
        al.SplitTime(chunk=1, warm_up=1000),
        al.SplitTime(chunk=30, warm_up=10),
    ):
        lstm.policy = policy
        assert_equal(infer(lstm, x), want)
        assert seams(lstm).number == 0
    if precision == "fp32":
        assert_close(want, infer(torch_lstm(I, H, 2, **options), x), "fp32")


@EVERY_SHAPE
@EVERY_PRECISION
def test_run_again_at_every_seam_it_is_the_sequence(options: dict[str, Any], precision: str) -> None:
    x, lstm = noise(41, 3, I), adapted(I, H, 2, quantize=precision, **options)
    want = infer(lstm, x)
    lstm.policy = al.SplitTime(chunk=7, warm_up=3, tolerance=0.0)
    got = infer(lstm, x)
    if precision == "int8":
        assert_equal(got, want)
    assert_close(got, want, "fp32")
    assert seams(lstm).repeated == seams(lstm).number == lstm.stack_shape.num_cells * 3 * 5


def test_what_never_forgets_is_run_again() -> None:
    x, lstm = noise(60, 2, I).abs(), remembering(2)
    want = infer(lstm, x)
    lstm.policy = al.SplitTime(chunk=10, warm_up=10)
    far = infer(lstm, x)
    residual = seams(lstm).residual
    assert residual > 0.1
    assert (far[0] - want[0]).abs().max() > 0.1
    lstm.policy = al.SplitTime(chunk=10, warm_up=10, tolerance=1e-3)
    assert_close(infer(lstm, x), want, "fp32")
    assert seams(lstm).repeated == seams(lstm).number == 2 * 2 * 4
    assert seams(lstm).mean_strain == 1.0


def test_only_what_is_too_far_off_is_run_again() -> None:
    """The first half of the input is silent, and nothing is remembered there."""
    lstm = remembering()
    biases: tuple[torch.Tensor, ...] = lstm.bias_ih_l0, lstm.bias_hh_l0  # type: ignore[assignment]
    with torch.no_grad():
        for bias in biases:
            bias[:H], bias[2 * H : 3 * H] = 0.0, 0.0
    x = torch.cat([torch.zeros(40, 1, I), noise(40, 1, I)])
    want = infer(lstm, x)
    lstm.policy = al.SplitTime(chunk=10, warm_up=10, tolerance=0.05)
    assert_close(infer(lstm, x), want, "fp32")
    assert seams(lstm).number == 6
    assert 0 < seams(lstm).repeated < 6


# --------------------------------------------------------------------------------------------------- against the oracle


@EVERY_SHAPE
@pytest.mark.parametrize("tolerance", [math.inf, 0.06])
@pytest.mark.parametrize("starts", [False, True])
def test_equals_the_oracle(options: dict[str, Any], tolerance: float, starts: bool) -> None:
    plain, lstm = torch_lstm(I, H, 3, **options), adapted(I, H, 3, **options)
    shape = lstm.stack_shape
    policy = al.SplitTime(chunk=8, warm_up=4, tolerance=tolerance, start=start_states(shape) if starts else None)
    lengths = (61, 40, 12, 5)
    sequences = [noise(n, I) for n in lengths]
    h_0, c_0 = noise(shape.num_cells, 4, shape.output_size), noise(shape.num_cells, 4, shape.hidden_size)
    lstm.policy = policy
    y, (h, c) = infer(lstm, pack_sequence(sequences), (h_0, c_0))
    assert isinstance(y, PackedSequence)
    padded, _ = pad_packed_sequence(y)
    residuals, repeated, ran = [], 0, np.zeros(shape.num_cells, int)
    for i, x in enumerate(sequences):
        want = split_by_hand(torch_cells(plain), shape, policy, x, (h_0[:, i], c_0[:, i]))
        assert_close((padded[: len(x), i], h[:, i], c[:, i]), (want.y, want.h, want.c), "fp32")
        residuals += want.residuals
        repeated += want.repeated
        ran += want.timesteps
    found = seams(lstm)
    assert (found.number, found.repeated) == (len(residuals), repeated)
    assert found.residual == pytest.approx(max(residuals), rel=1e-4)
    assert found.extra == tuple(ran - sum(lengths))
    strain = sum(min(r / tolerance, 1) for r in residuals)
    assert found.strain == pytest.approx(strain, rel=1e-4)


@EVERY_SHAPE
def test_integers_equal_the_oracle_bit_for_bit(options: dict[str, Any]) -> None:
    lstm = adapted(I, 33, 2, quantize="int8", **options)
    shape, x = lstm.stack_shape, noise(90, 1, I)
    lstm.policy = al.SplitTime(chunk=3, warm_up=9)  # more chunks than run at once
    infer(lstm, x)
    policy = lstm.policy = al.SplitTime(chunk=3, warm_up=9, tolerance=seams(lstm).residual / 2)
    y, (h, c) = infer(lstm, x)
    want = split_by_hand(native_cells(lstm), shape, policy, x[:, 0])
    assert_equal((y[:, 0], h[:, 0], c[:, 0]), (want.y, want.h, want.c))
    found = seams(lstm)
    assert (found.number, found.repeated) == (len(want.residuals), want.repeated)
    assert 0 < found.repeated < found.number


@settings(max_examples=40)
@given(st.data())
def test_any_chunks_equal_the_oracle(data: st.DataObject) -> None:
    options = data.draw(st.sampled_from(list(SHAPES.values())))
    layers, T = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 50))
    precision = data.draw(st.sampled_from(("fp32", "int8")))
    policy = al.SplitTime(
        chunk=data.draw(st.integers(1, 20)),
        warm_up=data.draw(st.integers(1, 20)),
        tolerance=data.draw(st.sampled_from((math.inf, 0.1, 0.01, 0.0))),
    )
    torch.manual_seed(data.draw(st.integers(0, 99)))
    lstm = adapted(I, H, layers, quantize=precision, policy=policy, **options)
    x = noise(T, I)
    y, (h, c) = infer(lstm, x)
    want = split_by_hand(native_cells(lstm), lstm.stack_shape, policy, x)
    if precision == "int8":
        assert_equal((y, h, c), (want.y, want.h, want.c))
    else:
        assert_close((y, h, c), (want.y, want.h, want.c), "fp32")
    assert seams(lstm).number == len(want.residuals)


@EVERY_SHAPE
def test_native_equals_the_reference(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    policy, x = al.SplitTime(chunk=8, warm_up=4, tolerance=0.06), noise(50, 2, I)
    found = {}
    for by in ("native", "reference"):
        if by == "reference":
            monkeypatch.setattr("adaptive_lstm.execution.route.native", lambda: False)
        for precision in PRECISIONS:
            lstm = adapted(I, H, 2, quantize=precision, policy=policy, **options)
            out = infer(lstm, x)
            assert lstm.last_run is not None
            assert lstm.last_run.route.by == by
            found[by, precision] = out, lstm.last_run
    for precision in PRECISIONS:
        (got, ran), (want, stats) = found["native", precision], found["reference", precision]
        assert_close(got, want, precision)
        assert ran.columns == stats.columns
        assert (ran.macs, ran.policy_macs) == (stats.macs, stats.policy_macs)
        assert ran.seams._replace(residual=0, strain=0) == stats.seams._replace(residual=0, strain=0)
        assert ran.seams.residual == pytest.approx(stats.seams.residual, abs=1e-2)


def test_rows_do_not_influence_each_other() -> None:
    policy = al.SplitTime(chunk=8, warm_up=4, tolerance=0.03)
    lstm = adapted(I, H, 2, quantize="int8", policy=policy, bidirectional=True)
    sequences = [noise(n, I) for n in (70, 33, 9, 1)]
    y, (h, c) = infer(lstm, pack_sequence(sequences))
    padded, _ = pad_packed_sequence(y)
    for i, x in enumerate(sequences):
        alone = infer(lstm, x)
        assert_equal((padded[: len(x), i], (h[:, i], c[:, i])), alone)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("options", [SHAPES["plain"], SHAPES["projected, both ways"]])
def test_threads_share_the_chunks_and_give_the_bits_of_one(
    options: dict[str, Any], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADAPTIVE_LSTM_RACE", "off")  # several whenever there is work for them
    lstm, x = adapted(I, 65, 2, quantize=precision, **options), pack_sequence([noise(n, I) for n in (900, 400, 31)])
    lstm.policy = al.SplitTime(chunk=16, warm_up=9)
    infer(lstm, x)
    lstm.policy = al.SplitTime(chunk=16, warm_up=9, tolerance=0.9 * seams(lstm).residual)
    found = []
    try:
        for threads in (1, 3):
            al.set_num_threads(threads)
            (y, state), ran = infer(lstm, x), lstm.last_run
            assert ran is not None
            assert ran.threads == threads
            found.append(((y.data, state), ran.seams, ran.columns))
    finally:
        al.set_num_threads(None)
    assert_equal(found[1][0], found[0][0])
    assert found[1][1:] == found[0][1:]
    assert found[0][1].repeated > 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes(dtype: torch.dtype) -> None:
    policy, x = al.SplitTime(chunk=8, warm_up=4), noise(40, 1, I).to(dtype)
    lstm = adapted(I, H, 2).to(dtype)
    plain = adapted(I, H, 2).to(dtype).float()
    lstm.policy = plain.policy = policy
    y, _ = infer(lstm, x)
    assert y.dtype is dtype
    want, _ = infer(plain, x.float())
    torch.testing.assert_close(y, want.to(dtype))


# ----------------------------------------------------------------------------------------------------------- statistics


def test_what_ran_in_addition_is_counted_beside_the_sequence() -> None:
    lstm = adapted(I, H, 2, policy=al.SplitTime(chunk=10, warm_up=5))
    infer(lstm, noise(55, 1, I))
    stats = lstm.last_run
    assert stats is not None
    assert stats.seams == (8, 0, stats.seams.residual, 0.0, (20, 20))
    assert (stats.activity, stats.ran) == (1.0, 1.0)
    assert stats.policy_macs * 55 == stats.macs_possible * 20
    assert stats.macs == stats.macs_possible + stats.policy_macs
    lstm.policy = al.SplitTime(chunk=10, warm_up=5, tolerance=0.0)
    infer(lstm, noise(55, 1, I))
    assert seams(lstm).extra == (60, 60)


def test_the_monitor_sees_how_far_off_seams_are() -> None:
    lstm = adapted(I, H)
    lstm.policy = al.SplitTime(chunk=4, warm_up=2)
    infer(lstm, noise(30, 1, I))
    usual = seams(lstm).residual
    policy = al.SplitTime(chunk=4, warm_up=2, tolerance=3 * usual)
    lstm.plan = replace(lstm.plan, policy=policy, expected_rates={"strain": Range(0.15, 0.05, 100)})
    for _ in range(64):
        infer(lstm, noise(30, 1, I))
    assert lstm.monitor is not None
    assert lstm.monitor.status.ok
    with pytest.warns(al.DriftWarning, match="strain"):
        infer(lstm, 20 * noise(30, 80, I).cumsum(0))
