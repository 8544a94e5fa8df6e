"""The first layer's input matrix in int8: a scale per feature, measured or given, and what happens beyond it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

import adaptive_lstm as al
from adaptive_lstm.weights.precision import SCALES
from adaptive_lstm.weights.quantization import HEADROOM, column_scale

from ..support.helpers import (
    OnReference,
    adapted,
    always_native,
    assert_close,
    assert_equal,
    executed_weights,
    infer,
    infer_natively,
    only_lstm,
    torch_lstm,
)

I = 7  # noqa: E741 (the letter of the input size everywhere)
H = 33
RAW = al.Quantize("int8", raw="int8")
SIZES = torch.logspace(-4, 4, I)  # of the features: no single scale would do


def features(*shape: int, seed: int = 0) -> torch.Tensor:
    """Noise [*shape, I] whose columns have the SIZES."""
    return torch.randn(*shape, I, generator=torch.Generator().manual_seed(seed)) * SIZES


def for_features(**options: Any) -> al.AdaptiveLSTM:
    """An LSTM that makes something of each of the features."""
    lstm = torch_lstm(I, H, 2, **options)
    with torch.no_grad():
        for name, w in lstm.named_parameters():
            if name.startswith("weight_ih_l0"):
                w.mul_(4 / SIZES)
    return al.AdaptiveLSTM.from_lstm(lstm)


def first_matrix(lstm: nn.LSTM) -> torch.Tensor:
    """[4H, I], as it lies in the module."""
    return dict(lstm.named_parameters())["weight_ih_l0"].detach()


def scale_of(lstm: al.AdaptiveLSTM) -> torch.Tensor:
    assert lstm.quantize.raw_scale is not None
    return torch.tensor(lstm.quantize.raw_scale)


# ------------------------------------------------------------------------------------------------------ the scales


POSITIVE = st.floats(0, 1e6, width=32, allow_subnormal=False)


@settings(max_examples=200)
@given(hnp.arrays(np.float32, st.integers(1, 9), elements=POSITIVE), st.integers(0, 99))
def test_scales_leave_headroom(largest: np.ndarray, seed: int) -> None:
    w = np.random.default_rng(seed).standard_normal((12, len(largest))).astype(np.float32)
    w[:, seed % len(largest)] *= seed % 3  # now and then a column without weights
    scale = column_scale(largest, w)
    assert scale.dtype == np.float32
    assert ((scale >= SCALES[0]) & (scale <= SCALES[1])).all()
    assert (scale >= HEADROOM * largest * (1 - 1e-6)).all()
    if largest.min() > 1e-6 and (w != 0).any(axis=0).all():
        # As much room as it takes for sqrt(largest / heaviest weight), and no more.
        np.testing.assert_allclose((scale / largest).min(), HEADROOM, rtol=1e-5)
        wanted = np.sqrt(largest / np.abs(w).max(axis=0))
        np.testing.assert_allclose(scale / wanted, (scale / wanted)[0], rtol=1e-4)


def test_compress_measures_every_lstm() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = torch_lstm(I, 5), torch_lstm(5, 4, bidirectional=True)

        def forward(self, x: torch.Tensor, gain: float = 1.0) -> torch.Tensor:
            out: torch.Tensor = self.two(input=self.one(x)[0] * gain)[0]
            return out

    model = Two().eval()
    fast, batches = al.adapt(model), [features(9, 2), features(30, 1, seed=1)]
    report = al.compress(fast, [(batches[0], 10.0), batches[1]], quantize=RAW)
    assert {m.precision for m in report.matrices} == {"int8"}
    one, two = fast.get_submodule("one"), fast.get_submodule("two")
    assert isinstance(one, al.AdaptiveLSTM)
    assert isinstance(two, al.AdaptiveLSTM)
    seen = torch.cat([x.reshape(-1, I) for x in batches]).abs().amax(0).numpy()
    assert one.quantize.raw_scale == tuple(column_scale(seen, first_matrix(model.one).numpy()).tolist())
    h = infer(model.one, batches[0])[0].abs().amax((0, 1)) * 10
    assert bool((scale_of(two) >= HEADROOM * h * 0.999).all())  # shared by both directions
    assert not any(m._forward_pre_hooks for m in fast.modules())
    al.compress(fast, quantize=al.Quantize("int8"))
    assert one.quantize == al.Quantize("int8")


def test_packed_inputs_and_unused_ones() -> None:
    lstm, x = for_features(), [features(5), features(3, seed=1)]
    packed, padded = al.AdaptiveLSTM.from_lstm(lstm), al.AdaptiveLSTM.from_lstm(lstm)
    al.compress(packed, pack_sequence(x), quantize=RAW)
    al.compress(padded, [row[:, None] for row in x], quantize=RAW)
    assert packed.quantize == padded.quantize
    untouched = iter([features(5)])
    al.compress(padded, untouched, quantize=al.Quantize("int8"))
    al.compress(padded, untouched, quantize=packed.quantize)  # has its scales
    assert len(list(untouched)) == 1
    assert padded.quantize == packed.quantize


# ------------------------------------------------------------------------------------------------- what is computed


@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"proj_size": 5, "bias": False}])
def test_close_to_float32_however_the_features_are_scaled(options: dict[str, Any]) -> None:
    lstm, x = for_features(**options), features(60, 3)
    exact = infer_natively(lstm, x)[0]
    with always_native():  # torch warns about projections
        al.compress(lstm, features(200, 1, seed=1), quantize=RAW)
    got = infer_natively(lstm, x)
    assert (got[0] - exact).abs().mean() < 3e-3
    rows = [x[:n, b] for b, n in enumerate((60, 41, 3))]
    y = infer_natively(lstm, pack_sequence(rows))[0]
    assert isinstance(y, PackedSequence)
    if not lstm.bidirectional:
        assert_equal(y.data[:3], got[0][0])
    lstm.policy = OnReference(al.Dense())
    assert_close(infer(lstm, x), got, "int8")


@pytest.mark.parametrize("raw_levels", [1, 127, 1016, 8191])
def test_by_hand(raw_levels: int) -> None:
    lstm, x = for_features(), features(20, 3)
    scale = SIZES * torch.linspace(0.5, 4, I)  # cuts off half of the first feature, nothing of the last
    lstm.quantize = al.Quantize("fp32", raw="int8", raw_levels=raw_levels, raw_scale=scale.tolist())
    c, w = scale.double(), first_matrix(lstm)
    wide = (w * scale).double()  # rounded to float32, as the weights are
    unit = (wide.abs().amax(1, keepdim=True) / 127).float().double()
    plain = torch_lstm(I, H, 2).double()
    plain.load_state_dict({name: p.double() for name, p in lstm.state_dict().items()})
    first_matrix(plain).copy_((wide / unit).round() * unit / c)
    # The factors are float32 numbers; which integer a feature becomes depends on them.
    sent = (x * (raw_levels / scale)).round().clamp(-raw_levels, raw_levels).double() / raw_levels * c
    assert_close(infer_natively(lstm, x)[0], infer(plain, sent)[0].float(), "fp32")
    assert (sent.abs() <= c).all()
    inside = x.abs() <= scale
    assert ((sent - x).abs() <= c / raw_levels / 2 * 1.001)[inside].all()
    assert 0.5 < inside.double().mean() < 1


def test_more_levels_than_the_sums_can_hold() -> None:
    wide = 2000
    lstm = adapted(wide, 3)
    lstm.quantize = al.Quantize("int8", raw="int8", raw_scale=[1.0] * wide)
    assert executed_weights(lstm)[0].x_levels == (2**31 - 1) // (255 * wide) == 4210
    x = torch.full((1, 1, wide), 9.0)  # the largest sum that can be
    y = infer_natively(lstm, x)
    lstm.policy = OnReference(al.Dense())
    assert_close(y, infer(lstm, x), "int8")


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("policy", [al.Dense(), al.Delta(h=0.02, x=(1e-9, 0.01))], ids=["dense", "delta"])
def test_features_beyond_the_scale_are_cut_off(policy: al.Dense | al.Delta, reference: bool) -> None:
    """And nothing else happens: no overflow, no wrapping, no trace once they are back."""
    lstm = for_features()
    al.compress(lstm, features(50, 1), quantize=RAW)
    lstm.policy = OnReference(policy) if reference else policy
    x = features(40, 2, seed=2)
    for t, row, huge in ((3, 0, 1e3), (4, 0, -1e3), (5, 1, 1e9), (20, 0, -1e34)):
        x[t, row] = huge * SIZES
    x[25, 1, 2] = torch.finfo(torch.float32).max
    scale = scale_of(lstm)
    cut = x.clamp(-scale, scale)
    assert not torch.equal(cut, x)
    got, want = infer(lstm, x), infer(lstm, cut)
    assert_equal(got, want)
    with al.stream(lstm, batch_size=2) as s:
        assert_equal(torch.stack([s.step(row) for row in x]), got[0])


def test_delta_on_raw_features() -> None:
    """Thresholds are in the units of the features; what is sent is a whole number of steps of each."""
    lstm = for_features()
    al.compress(lstm, features(50, 1), quantize=RAW)
    x = (features(300, 2, seed=3) * 0.05).cumsum(0)
    dense = infer_natively(lstm, x)
    tiny = al.Delta(h=1e-9, x=(tuple((1e-9 * SIZES).tolist()), 1e-9))
    lstm.policy = tiny
    assert_equal(infer_natively(lstm, x), dense)
    threshold = 0.1 * SIZES
    lstm.policy = al.Delta(h=None, x=(tuple(threshold.tolist()), None))
    step, held = scale_of(lstm) / 8191, torch.zeros(2, I)
    with al.stream(lstm, batch_size=2) as s:
        sent_columns = 0
        for t, row in enumerate(x):
            s.step(row)
            sent = s.state.sent_x[0]
            assert sent is not None
            moved = (row - held).abs() > threshold
            clear = ((row - held).abs() - threshold).abs() > step * 1e-2
            if t:  # the first step sends everything
                assert torch.equal((sent != held)[clear], moved[clear])
            whole = sent / step
            assert (whole - whole.round()).abs().max() < 1e-2
            assert ((sent - row).abs() <= torch.where(sent == held, threshold, step) * 1.01).all()
            sent_columns += int((sent != held).sum())
            held = sent
        assert s.stats.columns[0].x_sent == sent_columns < 300 * 2 * I * 0.8
        keep = s.state
        ahead = s.run(x)
        s.state = keep
        assert_equal(s.run(x), ahead)


def test_native_and_reference_send_the_same_bits() -> None:
    lstm, twin = for_features(), for_features()
    al.compress(lstm, features(50, 1), quantize=RAW)
    twin.quantize = lstm.quantize
    lstm.policy = al.Delta(h=None, x=(tuple((0.01 * SIZES).tolist()), None))
    twin.policy = OnReference(lstm.policy)
    with al.stream(lstm, batch_size=50) as s, al.stream(twin, batch_size=50) as r:
        for x in features(40, 50, seed=4):
            s.step(x * 3)  # some of it is cut off
            r.step(x * 3)
            got, want = s.state.sent_x[0], r.state.sent_x[0]
            assert got is not None
            assert want is not None
            assert torch.equal(got, want)
        assert s.stats.columns[0] == r.stats.columns[0]


@pytest.mark.usefixtures("float64_on_reference")
def test_float64_runs_on_the_reference() -> None:
    lstm, x = for_features(), features(30, 2)
    al.compress(lstm, features(50, 1), quantize=RAW)
    want = infer_natively(lstm, x)
    double = al.AdaptiveLSTM.from_lstm(lstm).double()
    assert double.quantize == lstm.quantize
    assert_close([t.float() for t in (infer(double, x.double())[0], want[1][0])], [want[0], want[1][0]], "int8")


# ---------------------------------------------------------------------------------------------------- bad settings


def test_refused() -> None:
    lstm = adapted(I, H)
    for quantize in (RAW, al.Quantize("fp32", matrices={"weight_ih_l0": "int8"})):
        with pytest.raises(al.AdaptiveLSTMError, match=r"needs the range of every input column: compress\(model, inp"):
            lstm.quantize = quantize
        with pytest.raises(al.AdaptiveLSTMError, match="needs the range of every input column"):
            al.compress(lstm, quantize=quantize)
    for scale in ([1.0] * 6, [1.0] * 8):
        with pytest.raises(al.AdaptiveLSTMError, match=f"raw_scale: got {len(scale)} values, expected {I}"):
            lstm.quantize = al.Quantize("int8", raw="int8", raw_scale=tuple(scale))
    for worst in (0.0, -1.0, float("nan"), float("inf"), 1e-30):
        with pytest.raises(al.AdaptiveLSTMError, match=r"raw_scale: got .*, expected values from"):
            al.Quantize("int8", raw="int8", raw_scale=(1.0, worst))
    for shape in (1.0, [[1.0]], ["a"]):
        with pytest.raises(al.AdaptiveLSTMError, match=r"raw_scale: got .*, expected one positive number per feature"):
            al.Quantize("int8", raw="int8", raw_scale=shape)  # type: ignore[arg-type]
    with pytest.raises(al.AdaptiveLSTMError, match="raw_levels: got 8192"):
        al.Quantize("int8", raw_levels=8192)
    assert lstm.quantize == al.Quantize()


def test_refused_inputs() -> None:
    fast = al.adapt(nn.Sequential(torch_lstm(I, H)).eval())
    lstm, bad = only_lstm(fast), features(5, 1)
    bad[3, 0, 2] = float("inf")
    with pytest.raises(al.AdaptiveLSTMError, match="0 was given NaN or infinity"):
        al.compress(fast, [bad], quantize=RAW)
    with pytest.raises(al.AdaptiveLSTMError, match=r"inputs: none reached 0 \(an iterator"):
        al.compress(fast, iter([]), quantize=RAW)
    with pytest.raises(al.AdaptiveLSTMError, match="got weight_hh_l7"):  # before anything runs
        al.compress(fast, [bad], quantize=al.Quantize("int8", raw="int8", matrices={"weight_hh_l7": "bf16"}))
    with pytest.raises(al.AdaptiveLSTMError, match="training mode"):
        al.compress(fast.train(), [features(5, 1)], quantize=RAW)
    assert lstm.quantize == al.Quantize()
    assert not lstm._forward_pre_hooks
