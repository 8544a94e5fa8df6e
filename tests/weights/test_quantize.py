"""Weights in fewer bits: how far they move, which matrix gets which, and what the executors make of them."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn

import adaptive_lstm as al
from adaptive_lstm.weights.quantization import to_bf16, to_int8

from ..support.helpers import (
    OnReference,
    adapted,
    assert_close,
    assert_equal,
    infer,
    infer_natively,
    signal,
    torch_lstm,
)

I = 7  # noqa: E741 (the letter of the input size everywhere)
H = 33
X = signal(40, 2, I)
SCALE = (0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6)  # of X, which reaches 1.3; some of it is cut off

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, max_side=12)
WEIGHTS = hnp.arrays(np.float32, SHAPES, elements=st.floats(-1e6, 1e6, width=32, allow_subnormal=False))
NUMBERS = hnp.arrays(np.float32, SHAPES, elements=st.floats(width=32, allow_nan=False))


# ------------------------------------------------------------------------------------------------------- rounding


@settings(max_examples=200)
@given(WEIGHTS)
def test_int8_is_the_nearest_level(w: np.ndarray) -> None:
    values, scale = to_int8(w)
    assert values.dtype == np.int8
    assert scale.dtype == np.float32
    assert scale.shape == (len(w),)
    error = np.abs(w.astype(np.float64) - values.astype(np.float64) * scale[:, None])
    assert (error <= scale[:, None] / 2 * (1 + 1e-5)).all()
    largest = np.abs(w).max(axis=1)
    np.testing.assert_array_equal(np.abs(values.astype(int)).max(axis=1), np.where(largest > 0, 127, 0))


@settings(max_examples=200)
@given(NUMBERS)
def test_bf16_is_torchs(w: np.ndarray) -> None:
    want = torch.from_numpy(w).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    np.testing.assert_array_equal(to_bf16(w), want)


def test_bf16_ties_go_to_even() -> None:
    ties = np.array([[0x3F808000, 0x3F818000, 0x3F808001, 0x3F807FFF, 0xBF808000]], dtype=np.uint32).view(np.float32)
    assert to_bf16(ties).tolist() == [[0x3F80, 0x3F82, 0x3F81, 0x3F80, 0xBF80]]


# ---------------------------------------------------------------------------------------- what the executors compute


def rounded(lstm: nn.LSTM, quantize: al.Quantize) -> nn.LSTM:
    """An ``nn.LSTM`` whose parameters are the numbers that quantized weights stand for, computed here once more."""
    lstm = copy.deepcopy(lstm).double()
    shape = adapted(lstm.input_size, lstm.hidden_size, lstm.num_layers, bidirectional=lstm.bidirectional).stack_shape
    for name, w in lstm.named_parameters():
        kind, _, suffix = name.rpartition("_l")
        if not kind.startswith("weight"):
            continue
        layer, _, reverse = suffix.partition("_")
        precision = quantize.of(shape, kind, int(layer) * shape.directions + bool(reverse))
        if precision == "bf16":
            w.data = w.data.float().bfloat16().double()
        elif precision == "int8":
            scale = (w.data.abs().amax(dim=1, keepdim=True) / 127).float().double()
            w.data = (w.data / scale).round() * scale
    return lstm


@settings(max_examples=40)
@given(
    st.integers(1, 40),
    st.integers(1, 3),
    st.booleans(),
    st.booleans(),
    st.integers(1, 4),
    st.sampled_from(["bf16", "fp32"]),
)
def test_weights_only(hidden: int, layers: int, bidirectional: bool, project: bool, batch: int, raw: Any) -> None:
    # Where activations are not rounded, the result is that of nn.LSTM with the rounded weights. A projected state has
    # no known range, so int8 applies to the weights alone there. Raw features in int8: test_raw_int8.py.
    project = project and hidden > 1
    options = {"bidirectional": bidirectional, "proj_size": hidden // 2 if project else 0}
    quantize = al.Quantize("int8" if project else "bf16", raw=raw)
    lstm, x = torch_lstm(I, hidden, layers, **options), signal(30, batch, I)
    fast = al.AdaptiveLSTM.from_lstm(lstm)
    fast.quantize = quantize
    want, (h, c) = infer(rounded(lstm, quantize), x.double())
    assert_close(infer_natively(fast, x), (want.float(), (h.float(), c.float())), "fp32")


def test_int8_rounds_what_it_multiplies() -> None:
    lstm = torch_lstm(I, H, 2)
    fast = al.AdaptiveLSTM.from_lstm(lstm)
    fast.quantize = al.Quantize("int8")
    weights = rounded(lstm, fast.quantize).all_weights

    def levels(z: torch.Tensor, n: int) -> torch.Tensor:
        return (z * n).round() / n

    below = list(X.double())
    for layer in range(2):
        w_ih, w_hh, b_ih, b_hh = weights[layer]
        h = c = torch.zeros(2, H, dtype=torch.float64)
        for t, x in enumerate(below):
            z = levels(x, 1016) if layer else x
            gates = z @ w_ih.T + levels(h, 1016) @ w_hh.T + b_ih + b_hh
            i, f, g, o = gates.chunk(4, dim=1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            below[t] = h = o.sigmoid() * c.tanh()
    assert_close(infer_natively(fast, X)[0], torch.stack(below).detach().float(), "int8")


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("raw", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_native_follows_the_reference(precision: Any, raw: Any, bidirectional: bool) -> None:
    fast = adapted(I, H, 3, bidirectional=bidirectional)
    exact = infer(fast, X)[0]
    fast.quantize = al.Quantize(precision, raw=raw, raw_scale=SCALE)
    got = infer_natively(fast, X)
    fast.policy = OnReference(al.Dense())
    assert_close(got, infer(fast, X), precision)
    assert 0 < (got[0] - exact).abs().max() < 0.05


def test_float64_keeps_quantized_weights() -> None:
    fast = adapted(I, H, 2, quantize="bf16").double()
    want = infer(rounded(torch_lstm(I, H, 2), fast.quantize), X.double())
    assert_close(infer(fast, X.double()), want, "fp32")  # biases stay in float32
    assert fast.last_run is not None
    assert fast.last_run.route == al.types.Route("native", "float64 through float32")


# --------------------------------------------------------------------------------------------------------- settings


def test_which_matrix_gets_which() -> None:
    def chosen(quantize: al.Quantize, **options: Any) -> dict[str, str]:
        return {m.name: m.precision for m in al.compress(adapted(I, H, 2, **options), quantize=quantize).matrices}

    names = ["weight_ih_l0", "weight_hh_l0", "weight_ih_l1", "weight_hh_l1"]
    assert chosen(al.Quantize()) == dict.fromkeys(names, "fp32")
    assert chosen(al.Quantize("int8")) == dict(zip(names, ["bf16", "int8", "int8", "int8"], strict=True))
    assert chosen(al.Quantize("bf16")) == dict.fromkeys(names, "bf16")
    assert chosen(al.Quantize("int8", raw="int8", raw_scale=SCALE)) == dict.fromkeys(names, "int8")
    assert chosen(al.Quantize("int8", matrices={"weight_hh_l1": "bf16", "weight_ih_l0": "fp32"})) == dict(
        zip(names, ["fp32", "int8", "int8", "bf16"], strict=True)
    )
    both = chosen(al.Quantize("int8"), bidirectional=True, proj_size=4)
    assert [n for n, p in both.items() if p == "bf16"] == ["weight_ih_l0", "weight_ih_l0_reverse"]
    assert both["weight_hr_l1_reverse"] == "int8"


def test_refused_settings() -> None:
    fast = adapted(I, H, 2)
    unknown: Any = "int4"
    for settings_ in ({"precision": unknown}, {"raw": unknown}, {"matrices": {"weight_hh_l0": unknown}}):
        with pytest.raises(al.AdaptiveLSTMError, match="got 'int4', expected one of fp32, bf16, int8"):
            al.Quantize(**settings_)
    for name in ("weight_hh_l2", "weight_hr_l0", "weight_hh_l0_reverse", "bias_ih_l0"):
        with pytest.raises(al.AdaptiveLSTMError, match=f"got {name}, but this stack has weight_ih_l0"):
            al.compress(fast, quantize=al.Quantize(matrices={name: "int8"}))
    for wrong in ("int8", 8):
        with pytest.raises(al.AdaptiveLSTMError, match=r"got .*, expected adaptive_lstm.Quantize"):
            fast.quantize = wrong  # type: ignore[assignment]
        with pytest.raises(al.AdaptiveLSTMError, match=r"got .*, expected adaptive_lstm.Quantize"):
            al.compress(fast, quantize=wrong)  # type: ignore[arg-type]
    with pytest.raises(al.AdaptiveLSTMError, match="no AdaptiveLSTM"):
        al.compress(torch_lstm(I, H), quantize=al.Quantize())
    assert fast.quantize == al.Quantize()


def test_settings_are_frozen() -> None:
    matrices: dict[str, Any] = {"weight_hh_l0": "bf16"}
    quantize = al.Quantize("int8", matrices=matrices)
    matrices["weight_hh_l0"] = "int8"
    assert quantize.matrices["weight_hh_l0"] == "bf16"


# --------------------------------------------------------------------------------------------------------- compress


def test_the_report_by_hand() -> None:
    model = nn.ModuleDict({"a": torch_lstm(I, H, 2), "b": torch_lstm(H, 5, proj_size=3)}).eval()
    fast = al.adapt(model)
    report = al.compress(fast, quantize=al.Quantize("int8"))
    assert len(report.matrices) == 4 + 3
    quantized = {name: rounded(m, al.Quantize("int8")) for name, m in model.items() if isinstance(m, nn.LSTM)}
    for matrix in report.matrices:
        owner, name = matrix.name.split(".")
        w, v = (dict(m.named_parameters())[name].detach().double() for m in (model[owner], quantized[owner]))
        assert matrix.bytes_before == 4 * w.numel()
        assert matrix.bytes_after == {"bf16": 2 * w.numel(), "int8": w.numel() + 4 * len(w)}[matrix.precision]
        assert matrix.error == pytest.approx(float((w - v).norm() / w.norm()), rel=1e-3)
        assert matrix.name in str(report)
    biases = 2 * 4 * 4 * H + 4 * 4 * 5
    assert report.bytes_before == sum(m.bytes_before for m in report.matrices) + biases
    assert report.bytes_after == sum(m.bytes_after for m in report.matrices) + biases


def test_compress_is_undone() -> None:
    fast = al.adapt(nn.Sequential(nn.LSTM(I, H, 2)).eval())
    lstm = fast.get_submodule("0")
    assert isinstance(lstm, al.AdaptiveLSTM)
    before = {name: w.clone() for name, w in fast.state_dict().items()}
    exact = infer_natively(lstm, X)
    for precision in ("int8", "bf16", "fp32"):
        al.compress(fast, quantize=al.Quantize(precision))
        got = infer_natively(lstm, X)
        assert bool((got[0] == exact[0]).all()) == (precision == "fp32")
        assert_equal(list(fast.state_dict().values()), list(before.values()))
    assert_equal(got, exact)
    assert lstm.quantize == al.Quantize()


@pytest.mark.parametrize("precision", ["int8", "bf16"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused_and_nothing_is_changed(precision: Any, value: float) -> None:
    """int8 has no NaN: casts made a number of it, and the LSTM answered as if nothing were wrong."""
    lstm = torch_lstm(6, 9, 2)
    with torch.no_grad():
        lstm.get_parameter("weight_hh_l1")[3, 4] = value
    fast = al.AdaptiveLSTM.from_lstm(lstm)
    with pytest.raises(al.errors.NonFiniteError, match=f"holds NaN or infinity, which {precision} cannot say"):
        al.compress(fast, quantize=al.Quantize(precision))
    assert fast.quantize.exact
    fast.quantize = al.Quantize(precision)
    with pytest.raises(al.errors.NonFiniteError, match="a weight matrix"):
        infer(fast, signal(4, 2, 6))
    al.restore(fast)
    assert_equal(infer(fast, signal(4, 2, 6))[0].isnan(), infer(lstm, signal(4, 2, 6))[0].isnan())
