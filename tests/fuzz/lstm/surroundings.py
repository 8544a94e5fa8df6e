"""Other dtypes of a module, calls that need gradients, and autocast."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

import adaptive_lstm as al
from adaptive_lstm.runtime.plan import Plan

from ..outcome import Outcome, counted, leaves
from ..target import Case, Fault, Seen
from .forward import called
from .model import replaced_of
from .runs import outcome_of
from .tensors import given, inputs, narrowed, signal


def check_dtype(case: Case, lstm: nn.LSTM, fast: al.AdaptiveLSTM, seen: Seen) -> None:
    """Exact calls are torch's; others are those of the same module in float32, converted."""
    (x, twin_x), (hx, twin_hx) = inputs(case), given(case)
    if fast.plan.exact and not fast.executor().policy.acts:
        must_do_alike("an exact call of another dtype", lambda: fast(x, hx), lambda: lstm(x, hx))
        seen.covered.append("against: nn.LSTM")
        return
    got = called(fast, x, hx)
    dtype, single = getattr(torch, case["dtype"]), copy.deepcopy(lstm).float()
    twin = al.AdaptiveLSTM.from_lstm(single)
    twin.plan = Plan(fast.policy, fast.quantize, replaced_of(case, single))
    want = converted(called(twin, _float(twin_x), None if twin_hx is None else tuple(map(_float, twin_hx))), dtype)
    must_equal("a call of another dtype", got, want)
    seen.covered.append("against: float32")
    if not case["stream"] or case["bidirectional"] or not fast.executor().policy.streams:
        return
    ours, theirs = al.stream(fast, case["batch"]), al.stream(twin, case["batch"])
    for step in narrowed(signal(case, case["stream"], "stream"), dtype):
        a = Outcome({"y": ours.step(step)} | leaves(ours.state), counted(ours.stats))
        b = Outcome({"y": theirs.step(step.float()).to(dtype)} | leaves(theirs.state), counted(theirs.stats))
        must_equal("a stream of another dtype", a, b)


def _float(x: Any) -> Any:
    return PackedSequence(x.data.float(), *x[1:]) if isinstance(x, PackedSequence) else x.float()


def converted(outcome: Outcome, dtype: torch.dtype) -> Outcome:
    """The same values in another dtype."""
    return Outcome({name: t.to(dtype) for name, t in outcome.tensors.items()}, outcome.counts)


def must_equal(what: str, got: Outcome, want: Outcome) -> None:
    """Raise ``Fault`` unless two runs gave the same, bit for bit."""
    for name, t in want.tensors.items():
        other = got.tensors[name]
        if other.dtype != t.dtype or other.shape != t.shape or not torch.equal(other.nan_to_num(7), t.nan_to_num(7)):
            off = (other.double() - t.double()).abs().max() if other.shape == t.shape else "shape"
            raise Fault(f"{what}: not the same bit for bit\n  {name}, off by {off}, {other.dtype} and {t.dtype}")
    if got.counts != want.counts:
        raise Fault(f"{what}: other counts\n  got {got.counts}, expected {want.counts}")


def check_mode(case: Case, lstm: nn.LSTM, fast: al.AdaptiveLSTM, seen: Seen) -> None:
    """With gradients or under autocast torch serves, and gives what ``nn.LSTM`` gives."""
    (_, x), (_, hx) = inputs(case), given(case)
    if case["mode"] == "autocast":
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            must_do_alike("autocast", lambda: fast(x, hx), lambda: lstm(x, hx))
        seen.covered.append("served by: torch")
        return
    with torch.enable_grad():
        out, want = fast(x, hx), lstm(x, hx)
        must_equal("a call with gradients", outcome_of(out), outcome_of(want))
        for (y, _), module in ((out, fast), (want, lstm)):
            (y.data if isinstance(y, PackedSequence) else y).double().pow(2).sum().backward()
            if any(p.grad is None for p in module.parameters()):
                raise Fault("a call with gradients: a parameter has none")
        for p, q in zip(fast.parameters(), lstm.parameters(), strict=True):
            assert p.grad is not None
            assert q.grad is not None
            if not torch.equal(p.grad.nan_to_num(7), q.grad.nan_to_num(7)):
                raise Fault("a call with gradients: others than those of nn.LSTM")
    assert fast.last_run is not None
    if fast.last_run.route.by != "torch":
        raise Fault(f"a call with gradients: served by {fast.last_run.route}")
    seen.covered.append("served by: torch")


def must_do_alike(what: str, ours: Any, theirs: Any) -> None:
    """Both give the same bit for bit, or raise an exception of the same type."""
    try:
        want = theirs()
    except Exception as error:  # noqa: BLE001 (torch raises many kinds)
        try:
            ours()
        except Exception as other:
            if type(other) is not type(error):
                raise Fault(
                    f"{what}: raised {type(other).__name__}, nn.LSTM {type(error).__name__}\n{other}"
                ) from other
            return
        raise Fault(f"{what}: gave a result where nn.LSTM raises {type(error).__name__}") from None
    must_equal(what, outcome_of(ours()), outcome_of(want))
