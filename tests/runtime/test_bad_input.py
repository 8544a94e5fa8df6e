"""Bad input: the right exception, a message that says what was got and what is expected, and nothing changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

import adaptive_lstm as al
from adaptive_lstm.errors import InputError, NonFiniteError, PolicyError, StateError, UnsupportedError

from ..support.helpers import (
    OnReference,
    adapted,
    always_native,
    assert_equal,
    infer,
    infer_natively,
    signal,
    torch_lstm,
)

I = 5  # noqa: E741 (the letter of the input size everywhere)
H, B, T = 8, 2, 6
X = signal(T, B, I)
NAN, INF = float("nan"), float("inf")


def with_value(value: float) -> torch.Tensor:
    x = X.clone()
    x[-1, -1, -1] = value
    return x


def policies() -> list[Any]:
    made = {"delta": al.Delta.uniform(0.05), "python": OnReference(al.Delta.uniform(0.05))}
    return [pytest.param(policy, id=name) for name, policy in made.items()]


# -------------------------------------------------------------------------------------------------------- the module

WRONG_X: dict[str, tuple[Any, str]] = {
    "features": (torch.zeros(T, B, I + 1), f"{I + 1}.*{I}|{I}.*{I + 1}"),
    "4 dimensions": (torch.zeros(1, T, B, I), "4|2-D or 3-D"),
    "1 dimension": (torch.zeros(I), "1|2-D or 3-D"),
    "float64": (X.double(), "float64.*float32"),
    "integers": (X.long(), "int64.*float32"),
    "device": (torch.zeros(T, B, I, device="meta"), "meta.*cpu"),
    "packed features": (pack_sequence([torch.zeros(3, I + 1)]), f"{I + 1}.*{I}|{I}.*{I + 1}"),
    "no tensor": ([[1.0]], "list"),
    "nothing": (None, "NoneType"),
}


@pytest.mark.parametrize("policy", [al.Dense(), al.Delta.uniform(0.05)], ids=["dense", "delta"])
@pytest.mark.parametrize(("x", "message"), WRONG_X.values(), ids=WRONG_X)
def test_forward(x: Any, message: str, policy: al.Policy) -> None:
    lstm = adapted(I, H, policy=policy)
    want = infer(lstm, X)
    # What goes to nn.LSTM.forward (another dtype or device) gets torch's own error.
    with pytest.raises((InputError, ValueError, RuntimeError, AttributeError), match=message), always_native():
        infer(lstm, x)
    assert_equal(infer(lstm, X), want)


WRONG_HX: dict[str, tuple[Any, str]] = {
    "no pair": (torch.zeros(1, B, H), r"hx of type Tensor, expected \(h_0, c_0\)"),
    "one": ((torch.zeros(1, B, H),), r"expected \(h_0, c_0\)"),
    "batch": ((torch.zeros(1, B + 1, H), torch.zeros(1, B, H)), r"h_0: got shape \(1, 3, 8\), expected \(1, 2, 8\)"),
    "cell": ((torch.zeros(1, B, H), torch.zeros(1, B, 9)), r"c_0: got shape \(1, 2, 9\), expected \(1, 2, 8\)"),
    "layers": ((torch.zeros(2, B, H), torch.zeros(2, B, H)), r"h_0: got shape \(2, 2, 8\)"),
    "unbatched": ((torch.zeros(1, H), torch.zeros(1, H)), r"h_0: got shape \(1, 8\)"),
    "dtype": ((torch.zeros(1, B, H).double(), torch.zeros(1, B, H)), r"h_0: got torch.float64.*expected torch.float32"),
    "device": ((torch.zeros(1, B, H), torch.zeros(1, B, H, device="meta")), r"c_0: got .*meta, expected .*cpu"),
    "no tensors": ((None, None), r"h_0: got NoneType"),
}


@pytest.mark.parametrize(("hx", "message"), WRONG_HX.values(), ids=WRONG_HX)
def test_given_state(hx: Any, message: str) -> None:
    lstm = adapted(I, H)
    with pytest.raises(InputError, match=message), always_native():
        infer(lstm, X, hx)


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_dense_passes_non_finite_values_on(value: float) -> None:
    lstm, hx = torch_lstm(I, H, 2), (torch.zeros(2, B, H), torch.zeros(2, B, H))
    hx[1][0, 0, 0] = value
    for args in ((with_value(value),), (X, hx)):
        got, want = infer_natively(al.AdaptiveLSTM.from_lstm(lstm), *args), infer(lstm, *args)
        torch.testing.assert_close(got, want, rtol=0.0, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("policy", policies())
def test_skipping_policies_refuse_non_finite_values(policy: al.Policy, value: float) -> None:
    lstm = adapted(I, H, policy=policy)
    want = infer(lstm, X)
    zeros, bad = torch.zeros(1, B, H), torch.full((1, B, H), value)
    for args in ((with_value(value),), (X, (bad, zeros)), (X, (zeros, bad))):
        with pytest.raises(NonFiniteError, match="NaN or infinity"):
            infer(lstm, *args)
        assert_equal(infer(lstm, X), want)


def resized(lstm: nn.LSTM) -> None:
    lstm.weight_hh_l1 = nn.Parameter(torch.zeros(4 * H, H - 1))


def rewritten(lstm: nn.LSTM) -> None:
    lstm.weight_hh_l1.data = torch.zeros(4 * H + 4, H)


def removed(lstm: nn.LSTM) -> None:
    del lstm.bias_ih_l1


def widened(lstm: nn.LSTM) -> None:
    lstm.hidden_size = H + 1


EDITS: dict[str, tuple[Callable[[nn.LSTM], None], str]] = {
    "another parameter": (resized, r"weight_hh_l1: got \(32, 7\), expected shape \(32, 8\)"),
    "other data": (rewritten, r"weight_hh_l1: got \(36, 8\), expected shape \(32, 8\)"),
    "a parameter less": (removed, r"bias_ih_l1: got nothing, expected shape \(32,\)"),
    "another attribute": (widened, r"weight_ih_l0: got \(32, 5\), expected shape \(36, 5\)"),
}


@pytest.mark.parametrize("used", [False, True], ids=["new", "used"])
@pytest.mark.parametrize("quantize", ["fp32", "int8"])
@pytest.mark.parametrize(("edit", "message"), EDITS.values(), ids=EDITS)
def test_weights_that_do_not_fit(edit: Callable[[nn.LSTM], None], message: str, quantize: str, used: bool) -> None:
    lstm = adapted(I, H, num_layers=2, quantize=quantize)
    if used:
        infer_natively(lstm, X)
    edit(lstm)
    if used and edit is widened:
        lstm.replan()  # what is packed fits itself
    with pytest.raises(InputError, match=message):
        infer_natively(lstm, X)


# --------------------------------------------------------------------------------------------------------- policies


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: al.Delta.uniform(-0.1), "h: got a threshold of -0.1"),
        (lambda: al.Delta.uniform(NAN), "h: got a threshold of nan"),
        (lambda: al.Delta(h=0.1, x=-1.0), "x: got a threshold of -1.0"),
        (lambda: al.Delta(h=(0.1, (0.1, -0.2))), r"h\[1\]: got a threshold of -0.2"),
        (lambda: al.Delta(h=(np.zeros((2, 2)),)), r"h\[0\]: got thresholds of shape \(2, 2\)"),  # type: ignore[arg-type]
        (lambda: al.Delta.uniform(np.zeros(3)), "h: got one array, expected a number or a sequence"),  # type: ignore[arg-type]
        (lambda: al.Delta.uniform("high"), "h: got .*expected"),  # type: ignore[arg-type]
    ],
)
def test_impossible_thresholds(make: Callable[[], al.Delta], message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        make()


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (al.Delta(h=(0.1,)), "h: got thresholds for 1 layers, expected 2"),
        (al.Delta(h=0.1, x=(0.1, 0.1, 0.1)), "x: got thresholds for 3 layers, expected 2"),
        (al.Delta(h=(0.1, (0.1,) * 7)), "h of l1: got 7 thresholds, expected 8"),
        (al.Delta(h=0.1, x=((0.1,) * 8, None)), "x of l0: got 8 thresholds, expected 5"),
    ],
)
def test_policies_of_another_stack(policy: al.Delta, message: str) -> None:
    lstm = adapted(I, H, 2, policy=al.Delta.uniform(0.01))
    for setting in (policy, OnReference(policy)):
        with pytest.raises(PolicyError, match=message):
            lstm.policy = setting
    assert lstm.policy == al.Delta.uniform(0.01)


def test_what_is_no_policy() -> None:
    lstm = adapted(I, H)
    for wrong in (0.1, None, "dense", object()):
        with pytest.raises(PolicyError, match=r"got \w+, which lacks check\(\)"):
            lstm.policy = wrong  # type: ignore[assignment]
    assert lstm.policy == al.Dense()


# ---------------------------------------------------------------------------------------------------------- streams


def test_streams_that_cannot_be() -> None:
    with pytest.raises(UnsupportedError, match="bidirectional"):
        al.stream(adapted(I, H, bidirectional=True))
    with pytest.raises(UnsupportedError, match=r"training mode; call .eval\(\)"):
        al.stream(adapted(I, H).train())
    with pytest.raises(InputError, match="got LSTM, expected an AdaptiveLSTM"):
        al.stream(nn.LSTM(I, H))  # type: ignore[arg-type]
    for size in (0, -1, 2**26 + 1, 2**40):
        with pytest.raises(InputError, match="batch_size: got"):
            al.stream(adapted(I, H), batch_size=size)


WRONG_STEP: dict[str, tuple[Any, str]] = {
    "batch": (torch.zeros(B + 1, I), r"got an input of shape \(3, 5\), expected \(2, 5\)"),
    "features": (torch.zeros(B, I + 1), r"shape \(2, 6\), expected \(2, 5\)"),
    "dimensions": (torch.zeros(I), r"shape \(5,\), expected \(2, 5\)"),
    "float64": (torch.zeros(B, I).double(), "got .*float64.* on cpu, expected .*float32.* on cpu"),
    "device": (torch.zeros(B, I, device="meta"), "got .*float32.* on meta, expected .*float32.* on cpu"),
    "sparse": (torch.zeros(B, I).to_sparse(), "sparse"),
    "numpy": (np.zeros((B, I), dtype=np.float32), "got ndarray, expected a torch.Tensor"),
    "list": ([1.0], "got list, expected a torch.Tensor"),
    "nothing": (None, "got NoneType, expected a torch.Tensor"),
    "nan": (torch.full((B, I), NAN), "NaN or infinity"),
    "inf": (with_value(INF)[-1], "NaN or infinity"),
}
STREAMED = [pytest.param(al.Dense(), id="dense"), *policies()]


@pytest.mark.parametrize("policy", STREAMED)
@pytest.mark.parametrize(("x", "message"), WRONG_STEP.values(), ids=WRONG_STEP)
def test_a_failed_call_changes_nothing(x: Any, message: str, policy: al.Policy) -> None:
    with al.stream(adapted(I, H, 2, policy=policy), batch_size=B) as s:
        s.run(X)
        state, stats = s.state, s.stats
        expected = NonFiniteError if "NaN" in message else InputError
        with pytest.raises(expected, match=message):
            s.step(x)
        chunk = torch.cat([X, x[None]]) if expected is NonFiniteError else x[None] if isinstance(x, torch.Tensor) else x
        with pytest.raises(expected):
            s.run(chunk)
        assert_equal(s.state, state)
        assert s.stats == stats


def test_wrong_chunks() -> None:
    with al.stream(adapted(I, H, batch_first=True), batch_size=B) as s:
        with pytest.raises(
            InputError, match=r"got an input of shape \(6, 2, 5\), expected \(2, 2, 5\) \(\[B, T, I\]\)"
        ):
            s.run(X)
        with pytest.raises(InputError, match=r"shape \(2, 5\), expected .*\[B, T, I\]"):
            s.run(X[0])


def state_of(batch: int = B, policy: al.Policy | None = None, **options: Any) -> al.StreamState:
    with al.stream(
        adapted(I, **{"hidden_size": H, "num_layers": 2, **options}, policy=policy or al.Delta.uniform(0.05)), batch
    ) as s:
        s.run(signal(3, batch, I))
        return s.state


def changed(**fields: Any) -> al.StreamState:
    return dataclasses.replace(state_of(), **fields)


WRONG_STATE: dict[str, tuple[Callable[[], Any], str]] = {
    "layers": (lambda: state_of(num_layers=3), "of 3 layers, this one has 2"),
    "hidden size": (lambda: state_of(hidden_size=9), r"h: got shape \(2, 2, 9\), expected \(2, 2, 8\)"),
    "batch size": (lambda: state_of(batch=3), r"h: got shape \(2, 3, 8\), expected \(2, 2, 8\)"),
    "policy": (lambda: state_of(policy=al.Delta(h=0.05, x=None)), r"sent x of l1: got shape None, expected \(2, 8\)"),
    "more": (
        lambda: state_of(policy=al.Delta(h=0.05, x=(1.0, 1.0))),
        r"sent x of l0: got shape \(2, 5\), expected None",
    ),
    "projection": (lambda: state_of(proj_size=4), r"h: got shape \(2, 2, 4\)"),
    "not finite": (lambda: changed(c=torch.full((2, B, H), NAN)), "c: .*expected finite"),
    "float64": (lambda: changed(h=torch.zeros(2, B, H).double()), "h: got torch.float64.*expected .*float32"),
    "device": (lambda: changed(h=torch.zeros(2, B, H, device="meta")), "h: got .*meta, expected .*cpu"),
    "nothing": (lambda: changed(h=None), "h: got shape None"),
    "no tensor": (lambda: changed(h=[0.0]), "h: got list"),
    "a pair": (lambda: (torch.zeros(2, B, H), torch.zeros(2, B, H)), "got tuple, expected a StreamState"),
}


@pytest.mark.parametrize(
    "policy", [al.Delta.uniform(0.05), OnReference(al.Delta.uniform(0.05))], ids=["native", "python"]
)
@pytest.mark.parametrize(("make", "message"), WRONG_STATE.values(), ids=WRONG_STATE)
def test_states_of_another_stream(make: Callable[[], Any], message: str, policy: al.Policy) -> None:
    with al.stream(adapted(I, H, 2, policy=policy), batch_size=B) as s:
        s.run(X)
        state, stats = s.state, s.stats
        with pytest.raises(StateError, match=message):
            s.state = make()
        assert_equal(s.state, state)
        assert s.stats == stats
