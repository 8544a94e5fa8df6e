"""Tensors that are not plain memory, and what traces or transforms them: torch's path, or a clear error."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

import adaptive_lstm as al

from ..target import Case, Fault, Seen
from .refusals import must_be_ours, raised
from .streams import must_be_same
from .tensors import plain, signal

CLOSE = 1e-4


class Subclass(torch.Tensor):
    """A tensor of the user's own."""


def check_odd(case: Case, lstm: nn.LSTM, fast: al.AdaptiveLSTM, seen: Seen) -> None:
    """A call, and a step of a stream, on an odd tensor."""
    kind, x = case["odd"], signal(case, case["steps"], "odd").contiguous()
    x = x.transpose(0, 1).contiguous() if case["batch_first"] else x
    use = USES[kind]
    want, theirs = raised(lambda: use(lstm, x))
    got, ours = raised(lambda: use(fast, x))
    if ours is not None:
        must_be_ours(f"odd tensor ({kind})", ours, theirs)
        seen.covered.append(f"odd: {kind}, refused")
    elif (
        theirs is not None and kind == "jvp"
    ):  # torch has no forward mode for its fast LSTM, and the package does without
        _must_be_slope(lstm, x, got)
    elif theirs is not None:
        raise Fault(f"odd tensor ({kind}): a result where torch raises\n{type(theirs).__name__}: {theirs}")
    else:
        _must_be_either(kind, got, want, use, fast, x)
        seen.covered.append(f"odd: {kind}, served")
    _stream(case, kind, fast, seen)


def _must_be_either(kind: str, got: Any, want: Any, use: Any, fast: al.AdaptiveLSTM, x: torch.Tensor) -> None:
    """The result of torch's own path, or of a plain call."""
    if type(got) is not type(want) or got.shape != want.shape:
        raise Fault(f"odd tensor ({kind}): {type(got).__name__} {tuple(got.shape)}, expected as {type(want).__name__}")
    if kind == "fake":
        return
    own = _halved(fast) if kind == "functional_call" else fast
    plainly = own(x)[0] if got.shape == x.shape[:-1] + got.shape[-1:] else want
    for other in (want, plainly):
        close = (plain(got) - plain(other)).abs() <= CLOSE * plain(other).abs().clamp(min=1)
        if bool((close | plain(other).isnan()).all()):
            return
    raise Fault(f"odd tensor ({kind}): neither torch's result nor that of a plain call")


def _halved(fast: al.AdaptiveLSTM) -> al.AdaptiveLSTM:
    """The same with half of every weight."""
    out = al.AdaptiveLSTM.from_lstm(fast)
    for p in out.parameters():
        p.div_(2)
    return out


def _must_be_slope(lstm: nn.LSTM, x: torch.Tensor, tangent: torch.Tensor) -> None:
    """The tangent of plain float32, which is what torch's path gives, by a difference in float64."""
    double, step = copy.deepcopy(lstm).double(), 1e-8
    slope = (double(x.double() + step)[0] - double(x.double() - step)[0]) / (2 * step)
    if bool(((tangent.double() - slope).abs() > 1e-2 * slope.abs().amax().clamp(min=1)).any()):
        raise Fault("odd tensor (jvp): not the slope of the output")


def _fake(lstm: nn.LSTM, x: torch.Tensor) -> torch.Tensor:
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        out: torch.Tensor = lstm(mode.from_tensor(x))[0]
        return out


def _make_fx(lstm: nn.LSTM, x: torch.Tensor) -> torch.Tensor:
    traced = make_fx(lambda z: lstm(z)[0])(torch.zeros_like(x))
    out: torch.Tensor = traced(x)
    return out


def _traced(lstm: nn.LSTM, x: torch.Tensor) -> torch.Tensor:
    traced = torch.jit.trace(lambda z: lstm(z)[0], (torch.zeros_like(x),), check_trace=False)
    out: torch.Tensor = traced(x)
    return out


def _tangent(lstm: nn.LSTM, x: torch.Tensor) -> torch.Tensor:
    with torch.enable_grad():
        found = torch.func.jvp(lambda z: lstm(z)[0], (x,), (torch.ones_like(x),))
    out: torch.Tensor = found[1]
    return out


def _functional(lstm: nn.LSTM, x: torch.Tensor) -> torch.Tensor:
    halves = {name: p / 2 for name, p in lstm.named_parameters()}
    out: torch.Tensor = torch.func.functional_call(lstm, halves, (x,))[0]
    return out


USES: dict[str, Callable[[nn.LSTM, torch.Tensor], torch.Tensor]] = {
    "fake": _fake,
    "make_fx": _make_fx,
    "vmap": lambda lstm, x: torch.func.vmap(lambda z: lstm(z)[0])(torch.stack([x, -x])),
    "jvp": _tangent,
    "functional_call": _functional,
    "sparse": lambda lstm, x: lstm(x.to_sparse())[0],
    "subclass": lambda lstm, x: lstm(x.as_subclass(Subclass))[0],
    "jit trace": _traced,
    "quantized": lambda lstm, x: lstm(torch.quantize_per_tensor(x, 0.1, 0, torch.qint8))[0],
}


def _stream(case: Case, kind: str, fast: al.AdaptiveLSTM, seen: Seen) -> None:
    """A step on an odd tensor gives what the plain one gives, or is refused and changes nothing."""
    opened, error = raised(lambda: al.stream(fast, case["batch"]))
    if error is not None:
        must_be_ours("a stream", error)
        return
    x = signal(case, 1, "odd")[0].contiguous()
    steps: dict[str, Callable[[], Any]] = {
        "fake": lambda: opened.step(FakeTensorMode().from_tensor(x)),
        "make_fx": lambda: make_fx(lambda z: opened.step(z))(x),
        "vmap": lambda: torch.func.vmap(opened.step)(torch.stack([x, x])),
        "jvp": lambda: torch.func.jvp(opened.step, (x,), (torch.ones_like(x),)),
        "sparse": lambda: opened.step(x.to_sparse()),
        "jit trace": lambda: torch.jit.trace(opened.step, (x,), check_trace=False),
        "quantized": lambda: opened.step(torch.quantize_per_tensor(x, 0.1, 0, torch.qint8)),
        "subclass": lambda: opened.step(x.as_subclass(Subclass)),
    }
    if kind not in steps:
        return
    before = opened.state
    _, error = raised(steps[kind])
    if error is None:
        raise Fault(f"a stream on an odd tensor ({kind}): not refused")
    must_be_ours(f"a stream on an odd tensor ({kind})", error)
    must_be_same(f"a stream on an odd tensor ({kind}): it changed the state", opened.state, before)
    seen.covered.append(f"odd: {kind}, refused by a stream")
