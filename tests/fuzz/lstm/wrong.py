"""Calls that must be refused: by an exception of the package or torch's own, and with nothing changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

import adaptive_lstm as al

from ..target import Case, Fault, Seen
from .forward import called
from .refusals import must_be_ours, raised
from .streams import must_be_same
from .surroundings import must_equal
from .tensors import given, inputs, signal

Call = Callable[[nn.LSTM], Any]


def check_wrong(case: Case, lstm: nn.LSTM, fast: al.AdaptiveLSTM, seen: Seen) -> None:
    """A wrong call, and the same right one before and after it."""
    kind, (_, x), (_, hx) = case["wrong"], inputs(case), given(case)
    before, plan = called(fast, x, hx), fast.plan
    if kind == "stream state":
        _wrong_state(case, fast, seen)
    elif kind in ("policy", "quantize"):
        _, error = raised(lambda: setattr(fast, kind, _misfit(kind)))
        if error is None:
            raise Fault(f"wrong ({kind}): accepted")
        must_be_ours(f"wrong ({kind})", error)
    else:
        wrong = _calls(case, x, hx)[kind]
        _, theirs = raised(lambda: wrong(lstm))
        _, ours = raised(lambda: wrong(fast))
        if ours is not None:
            must_be_ours(f"wrong ({kind})", ours, theirs)
        elif theirs is not None:
            raise Fault(f"wrong ({kind}): a result where torch raises\n{type(theirs).__name__}: {theirs}")
        seen.covered.append(f"wrong: {kind}, {'accepted' if ours is None else 'refused'}")
    if fast.plan is not plan:
        raise Fault(f"wrong ({kind}): it changed the plan")
    must_equal(f"wrong ({kind}): later calls are others", called(fast, x, hx), before)


def _misfit(kind: str) -> Any:
    if kind == "policy":
        return al.Delta(h=(0.1,) * 99)
    return al.Quantize("int8", matrices={"weight_ih_l99": "fp32"})


def _spoiled(x: Any, value: float) -> Any:
    data = (x.data if isinstance(x, PackedSequence) else x).clone()
    data.view(-1)[-1] = value
    return PackedSequence(data, *x[1:]) if isinstance(x, PackedSequence) else data


def _calls(case: Case, x: Any, hx: Any) -> dict[str, Call]:
    """Wrong calls by name."""
    tensor = x.data if isinstance(x, PackedSequence) else x
    cells = case["layers"] * (2 if case["bidirectional"] else 1)
    rows = () if case["layout"] == "unbatched" else (case["batch"],)
    h, c = hx or (
        torch.zeros(cells, *rows, n, dtype=tensor.dtype) for n in (case["proj"] or case["hidden"], case["hidden"])
    )
    other = torch.float64 if tensor.dtype == torch.float32 else torch.float32
    sizes, order = torch.tensor([2, 3]), torch.tensor([0])
    rows_of_5 = torch.zeros(5, case["inputs"], dtype=tensor.dtype)
    return {
        "nan": lambda m: m(_spoiled(x, float("nan")), hx),
        "infinity": lambda m: m(_spoiled(x, -float("inf")), hx),
        "nan state": lambda m: m(x, (_spoiled(h, float("nan")), c)),
        "features": lambda m: m(torch.zeros(3, 2, case["inputs"] + 1, dtype=tensor.dtype)),
        "dimensions": lambda m: m(torch.zeros(1, 3, 2, case["inputs"], dtype=tensor.dtype)),
        "state shape": lambda m: m(x, (h[:, ..., :-1] if h.shape[-1] > 1 else h[:0], c)),
        "state dtype": lambda m: m(x, (h.to(other), c.to(other))),
        "state type": lambda m: m(x, (h, None)),
        "one state": lambda m: m(x, h),
        "input dtype": lambda m: m(tensor.to(other), None),
        "input type": lambda m: m(tensor.tolist(), hx),
        "packed sizes": lambda m: m(PackedSequence(rows_of_5, sizes)),
        "packed indices": lambda m: m(PackedSequence(rows_of_5, torch.tensor([3, 2]), order, order)),
        "empty": lambda m: m(tensor[:0], None),
    }


def _wrong_state(case: Case, fast: al.AdaptiveLSTM, seen: Seen) -> None:
    """States that do not fit are refused, and the stream goes on as if nothing had been."""
    stream, error = raised(lambda: al.stream(fast, case["batch"]))
    if error is not None:
        must_be_ours("a stream", error)
        return
    stream.step(signal(case, 1, "wrong")[0].to(getattr(torch, case["dtype"])))
    state = stream.state
    wrong = [
        None,
        dataclasses.replace(state, h=state.h[..., :-1]),
        dataclasses.replace(state, c=torch.full_like(state.c, float("nan"))),
        dataclasses.replace(state, c=state.c.double() if state.c.dtype == torch.float32 else state.c.float()),
        dataclasses.replace(state, sent_x=()),
        dataclasses.replace(state, sent_h=tuple(torch.zeros(1) for _ in state.sent_h)),
        dataclasses.replace(state, h=None),
    ]
    if state.exit is not None:
        times = [torch.full_like(state.exit.time, t) for t in (-1, 2**63 - 1)]
        wrong += [dataclasses.replace(state, exit=dataclasses.replace(state.exit, time=t)) for t in (*times, 1, 1.5)]
    for one in wrong:
        _, error = raised(lambda one=one: setattr(stream, "state", one))  # type: ignore[misc]
        if error is None:
            raise Fault(f"wrong (stream state): accepted\n{one}")
        must_be_ours("wrong (stream state)", error)
        must_be_same("wrong (stream state): it changed the stream", stream.state, state)
    seen.covered.append("wrong: stream state, refused")
