"""Raw features in int8 with a range per timestep: what is sent, what no range can hurt, and who must not compare it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_sequence

import adaptive_lstm as al
from adaptive_lstm.compression.within_budget import candidates

from ..support.artifact_cases import read_file
from ..support.helpers import (
    OnReference,
    adapted,
    always_native,
    assert_close,
    assert_equal,
    executed_weights,
    infer,
    infer_natively,
    torch_lstm,
)
from .test_raw_int8 import H, I, first_matrix

DYNAMIC = al.Quantize("int8", raw="int8", raw_range="dynamic")
LOUDNESS = torch.logspace(-3, 3, 60)[:, None, None]  # of timesteps: no static range would do


def features(*shape: int, seed: int = 0) -> torch.Tensor:
    """Noise [*shape, I]."""
    return torch.randn(*shape, I, generator=torch.Generator().manual_seed(seed))


def dynamic(policy: al.Policy | None = None, quantize: al.Quantize = DYNAMIC, **options: Any) -> al.AdaptiveLSTM:
    lstm = adapted(I, H, 2, policy=policy, **options)
    lstm.quantize = quantize
    return lstm


def on_reference(lstm: al.AdaptiveLSTM) -> al.AdaptiveLSTM:
    twin = al.AdaptiveLSTM.from_lstm(lstm)
    assert isinstance(lstm.policy, al.Delta | al.Dense)
    twin.quantize, twin.policy = lstm.quantize, OnReference(lstm.policy)
    return twin


def first_gates(lstm: al.AdaptiveLSTM, x: torch.Tensor) -> torch.Tensor:
    """Pre-activations [B, 4H] of the first layer at a first timestep x [B, I], from zero states."""
    lstm.policy = al.SkipTimesteps(x_share=1e-9)  # keeps them
    with al.stream(lstm, batch_size=len(x)) as s:
        s.step(x)
        gates = s.state.hold[0].gates
    assert gates is not None
    return gates


# ------------------------------------------------------------------------------------------------- what is computed


@pytest.mark.parametrize("raw_levels", [1, 127, 1016, 8191])
def test_by_hand(raw_levels: int) -> None:
    lstm, x = dynamic(quantize=al.Quantize(raw="int8", raw_range="dynamic", raw_levels=raw_levels)), features(60, 3)
    x = x * LOUDNESS
    w, largest = first_matrix(lstm).double(), x.abs().amax(-1, keepdim=True)
    unit = (w.abs().amax(1, keepdim=True) / 127).float().double()
    plain = torch_lstm(I, H, 2).double()
    plain.load_state_dict({name: p.double() for name, p in lstm.state_dict().items()})
    first_matrix(plain).copy_((w / unit).round() * unit)
    # The factors are float32 numbers; which integer a feature becomes depends on them.
    whole = (x * (torch.full_like(largest, raw_levels) / largest)).round()
    assert bool((whole.abs().amax(-1) == raw_levels).all())  # a row fills its range
    sent = whole.double() * largest / raw_levels
    assert ((sent - x).abs() <= largest / raw_levels / 2 * 1.001).all()
    assert_close(infer_natively(lstm, x)[0], infer(plain, sent)[0].float(), "fp32")


def test_a_row_in_figures() -> None:
    """Of weights that are whole: 1.5 of 3 is 63.5 of 127, which goes to the even 64."""
    lstm = al.AdaptiveLSTM(3, 1, bias=False).eval()
    lstm.quantize = al.Quantize(raw="int8", raw_range="dynamic")
    with torch.no_grad():
        first_matrix(lstm).copy_(torch.tensor([[127.0, 0, 0], [0, 127, 0], [0, 0, 127], [127, 127, 127]]))
    lstm.replan()
    got = first_gates(lstm, torch.tensor([[-3.0, 1.5, 0.01], [0.0, 0.0, 0.0]]))
    steps = torch.tensor([[-127, 64, 0, -63], [0, 0, 0, 0]])
    torch.testing.assert_close(got, steps * 3.0)


@given(st.integers(-60, 60), st.sampled_from([1, 100, 127, 8191]), st.booleans())
def test_scaled_by_a_power_of_two(power: int, levels: int, pruned: bool) -> None:
    """The integers are the same, so the pre-activations are scaled exactly."""
    lstm = adapted(I, H, bias=False)
    lstm.quantize = al.Quantize("int8", raw="int8", raw_range="dynamic", raw_levels=levels)
    if pruned:
        with torch.no_grad():
            first_matrix(lstm)[:, 2] = 0.0
        lstm.replan()
    x = features(5)
    assert torch.equal(first_gates(lstm, x * 2.0**power), first_gates(lstm, x) * 2.0**power)


@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"proj_size": 5, "bias": False}])
def test_close_to_float32_however_loud(options: dict[str, Any]) -> None:
    lstm, x = adapted(I, H, 2, **options), features(60, 3) * LOUDNESS
    exact = infer_natively(lstm, x)[0]
    with always_native():  # torch warns about projections
        al.compress(lstm, quantize=DYNAMIC)  # needs no inputs
    got = infer_natively(lstm, x)
    assert (got[0] - exact).abs().mean() < 3e-3
    rows = [x[:n, b] for b, n in enumerate((60, 41, 3))]
    y = infer_natively(lstm, pack_sequence(rows))[0]
    if not lstm.bidirectional:
        assert_equal(y.data[:3], got[0][0])
        with al.stream(lstm, batch_size=3) as s:
            assert_equal(torch.cat([s.step(x[0])[None], s.run(x[1:7]), s.run(x[7:])]), got[0])
    assert_close(infer(on_reference(lstm), x), got, "int8")


@pytest.mark.parametrize("reference", [False, True])
def test_nothing_is_too_large_or_too_small(reference: bool) -> None:
    lstm, x = dynamic(), features(20, 2)
    huge = torch.finfo(torch.float32).max
    x[3, 0], x[4, 1] = 0.0, huge * torch.tensor([1.0, -1, 1, -1, 1, -1, 0.5])
    x[5, 0, :2], x[6, 0], x[7, 0] = torch.tensor([1e38, -1e38]), x[6, 0] * 1e-40, x[7, 0] * 1e-30
    plain = x.clone()
    plain[6, 0] = 0.0
    if reference:
        lstm = on_reference(lstm)
    got = infer(lstm, x)
    assert all(bool(t.isfinite().all()) for t in (got[0], *got[1]))
    assert_equal(got, infer(lstm, plain))


def test_columns_without_weights_do_not_count() -> None:
    lstm, x = adapted(I, H, 2), features(20, 2)
    x[..., 2] *= 1e6
    with torch.no_grad():
        first_matrix(lstm)[:, 2] = 0.0
    lstm.quantize = DYNAMIC
    silent = x.clone()
    silent[..., 2] = 0.0
    for one in (lstm, on_reference(lstm)):
        assert_equal(infer(one, x), infer(one, silent))


@pytest.mark.usefixtures("float64_on_reference")
def test_float64_runs_on_the_reference() -> None:
    lstm, x = dynamic(), features(30, 2)
    want = infer_natively(lstm, x)
    double = al.AdaptiveLSTM.from_lstm(lstm).double()
    assert_close([t.float() for t in (infer(double, x.double())[0],)], [want[0]], "int8")


# ------------------------------------------------------------------------------------------------- under a policy


@pytest.mark.parametrize("bidirectional", [False, True])
def test_compared_features_stay_floats(bidirectional: bool) -> None:
    """Thresholds on raw features: int8 applies to the weights only, and zero thresholds are exact in the features."""
    layers = 4 if bidirectional else 2
    lstm = dynamic(bidirectional=bidirectional)
    x = (features(200, 2, seed=3) * 0.05).cumsum(0)
    assert executed_weights(lstm)[0].x_dynamic
    lstm.policy = al.Delta.uniform(0.02)  # not of raw features
    assert executed_weights(lstm)[0].x_dynamic
    assert_close(infer(on_reference(lstm), x), infer_natively(lstm, x), "skipping")
    lstm.policy = al.Delta(h=0.02, x=(0.1,) * layers)
    assert not executed_weights(lstm)[0].x_dynamic
    assert_close(infer(on_reference(lstm), x), infer_natively(lstm, x), "skipping")
    assert lstm.last_run is not None
    assert lstm.last_run.activity < 0.9
    lstm.policy = al.Delta(h=None, x=(0.0, *[None] * (layers - 1)))
    plain = adapted(I, H, 2, bidirectional=bidirectional)
    plain.quantize = al.Quantize("int8", raw="fp32")
    with torch.no_grad():
        for name, p in plain.named_parameters():
            if name.startswith("weight_ih_l0"):
                unit = p.abs().amax(1, keepdim=True) / 127
                p.copy_((p / unit).round() * unit)
    assert_close(infer_natively(lstm, x), infer_natively(plain, x), "int8")


@pytest.mark.parametrize(
    "policy",
    [al.SkipTimesteps(x_share=0.3, h=0.2), al.HoldLayers(x_share=0.3), al.HoldLayers(x_share=0.3, mode="queue_input")],
)
def test_holding_in_pieces(policy: al.Policy) -> None:
    lstm, x = dynamic(policy), features(60, 3).mul(0.2).cumsum(0)
    whole = infer_natively(lstm, x)
    assert lstm.last_run is not None
    assert lstm.last_run.activity < 1
    with al.stream(lstm, batch_size=3) as s:
        assert_equal(torch.cat([s.step(x[0])[None], s.run(x[1:30]), s.run(x[30:])]), whole[0])


# ------------------------------------------------------------------------------------------------------- settings


def test_a_file_from_before_there_was_a_choice(tmp_path: Path) -> None:
    lstm, path = torch_lstm(I, H, 2), tmp_path / "model"
    fast = al.AdaptiveLSTM.from_lstm(lstm)
    fast.quantize = al.Quantize("int8", raw="int8", raw_scale=[1.0] * I)
    al.save(fast, path)
    header, _ = read_file(path)
    assert "raw_range" not in header["lstms"][""]["quantize"]  # defaults are left out, so new files are like old ones
    loaded = al.load(path, lstm)
    assert isinstance(loaded, al.AdaptiveLSTM)
    assert loaded.quantize == fast.quantize


def test_defaults() -> None:
    assert (al.Quantize().raw_levels, DYNAMIC.raw_levels) == (8191, 127)
    wide = 2000
    lstm = adapted(wide, 3)
    lstm.quantize = al.Quantize("int8", raw="int8", raw_range="dynamic", raw_levels=8191)
    assert executed_weights(lstm)[0].x_levels == (2**31 - 1) // (255 * wide)
    x = torch.full((1, 1, wide), 9.0)  # the largest sum that can be
    assert_close(infer_natively(lstm, x), infer(on_reference(lstm), x), "int8")


def test_refused() -> None:
    lstm = dynamic()
    with pytest.raises(al.errors.InputError, match="raw_range: got 'each', expected one of static, dynamic"):
        al.Quantize("int8", raw="int8", raw_range="each")  # type: ignore[arg-type]
    with pytest.raises(al.errors.InputError, match=r"raw_scale: got values, expected None.*leave raw_scale out"):
        al.Quantize("int8", raw="int8", raw_range="dynamic", raw_scale=[1.0] * I)
    with pytest.raises(al.errors.InputError, match="raw_levels: got 0, expected a whole number from 1 to 8191"):
        al.Quantize("int8", raw="int8", raw_range="dynamic", raw_levels=0)
    with pytest.raises(al.errors.InputError, match=r"bring its own: Quantize\(raw_range='dynamic'\)"):
        lstm.quantize = al.Quantize("int8", raw="int8")
    x = features(5, 1)
    x[2, 0, 1] = float("nan")
    with pytest.raises(al.errors.NonFiniteError):
        infer(lstm, x)
    assert lstm.quantize == DYNAMIC


def test_tried_where_static_ranges_fail() -> None:
    (*_, (_, plain), _, _) = candidates("block", al.Quantize("int8"), wide=True)
    assert [(q.raw, q.raw_range) for q in plain] == [
        *[("int8", "static")] * 3,
        *[("int8", "dynamic")] * 2,
        *[("bf16", "static")] * 3,
    ]
    torch.manual_seed(0)
    model = nn.LSTM(60, 12, batch_first=True).eval()
    batches = [torch.randn(8, 20, 60, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    batches[3] *= 8  # judges; a static range cuts it off
    fast = al.adapt(model)
    al.compress_within(fast, batches, 0.07)
    assert isinstance(fast, al.AdaptiveLSTM)
    assert (fast.quantize.raw, fast.quantize.raw_range, fast.quantize.levels) == ("int8", "dynamic", 127)
