"""Streams: chunk by chunk against the reference from the same state, moved states, resets, refused inputs."""

from __future__ import annotations

import functools
import random

import torch

import adaptive_lstm as al
from adaptive_lstm.errors import NonFiniteError, UnsupportedError
from adaptive_lstm.types import StreamState

from ..outcome import Outcome, counted, leaves
from ..target import Case, Fault, Seen
from .model import generator
from .runs import Reference, followed, must_agree
from .tensors import lay_out, signal


def check_stream(case: Case, fast: al.AdaptiveLSTM, seen: Seen) -> None:
    """A stream over the signal of a case."""
    if case["bidirectional"] or not fast.executor().policy.streams:
        _must_refuse(fast, case["batch"])
        return
    choice, x = random.Random(case["seed"]), signal(case, case["stream"], "stream")
    chunks = x.split([1] * len(x) if case["chunks"] == "steps" else _cuts(len(x), choice))
    moved, refused = choice.randrange(len(chunks)), choice.randrange(len(chunks))
    reference = Reference(fast, case["steps"])
    exact = reference.exact
    outputs = []
    with al.stream(fast, case["batch"]) as stream:
        for i, chunk in enumerate(chunks):
            before, stats = stream.state, stream.stats
            if i == refused:
                _refuse(stream, chunk, before)
            y = _advance(stream, chunk, case, i)
            got = Outcome({"y": y} | leaves(stream.state), counted(stream.stats, stats))
            run = reference.chunk(chunk, before)
            follow = functools.partial(followed, reference, chunk, before, seen, open_ended=True)
            must_agree("a chunk of a stream", got, run, seen, follow if exact and len(chunk) > 1 else None)
            outputs.append(y)
            if i == moved:
                _move(case, fast, chunk, before, got, reference, exact, seen)
        stream.reset()
        again = _advance(stream, chunks[0], case, 0)
    if not torch.equal(again, outputs[0]):
        raise Fault("a stream: another output after reset() than at the start")
    if exact and case["time"] in ("no", "never"):
        _must_equal_call(case, fast, x, torch.cat(outputs))
    seen.covered.append("stream: followed")


def _cuts(steps: int, choice: random.Random) -> list[int]:
    cuts: list[int] = []
    while sum(cuts) < steps:
        cuts.append(min(choice.choice((1, 1, 2, 5)), steps - sum(cuts)))
    return cuts


def _advance(stream: al.Stream, chunk: torch.Tensor, case: Case, i: int) -> torch.Tensor:
    """By step or run, with memory as the case has it: outputs [T, B, P]."""
    g, kind = generator(case, f"chunk {i}"), case["memory"]
    if kind in ("zero tensor", "expanded"):
        kind = "contiguous"  # their values are others
    if len(chunk) == 1:
        return stream.step(lay_out(chunk[0].contiguous(), kind, g))[None]
    x = chunk.transpose(0, 1).contiguous() if case["batch_first"] else chunk.contiguous()
    y = stream.run(lay_out(x, kind, g))
    return y.transpose(0, 1) if case["batch_first"] else y


def _refuse(stream: al.Stream, chunk: torch.Tensor, before: StreamState) -> None:
    """NaN is refused, and nothing has changed."""
    stats, bad = stream.stats, chunk[0].clone()
    bad[-1, -1] = float("nan")
    try:
        stream.step(bad)
    except NonFiniteError:
        pass
    else:
        raise Fault("a stream: NaN was not refused")
    must_be_same("a stream: refused input changed its state", stream.state, before)
    if counted(stream.stats) != counted(stats):
        raise Fault("a stream: refused input changed its statistics")


def must_be_same(what: str, got: StreamState, want: StreamState) -> None:
    """Raise ``Fault`` unless two states are equal bit for bit."""
    a, b = leaves(got), leaves(want)
    if a.keys() != b.keys() or any(not torch.equal(a[n].nan_to_num(7), b[n].nan_to_num(7)) for n in a):
        raise Fault(what)


def _move(
    case: Case, fast: al.AdaptiveLSTM, chunk: torch.Tensor, before: StreamState, got: Outcome, reference: Reference,
    exact: bool, seen: Seen,
) -> None:  # fmt: skip
    """The same chunk through another stream that is given the state."""
    if not Outcome(leaves(before)).finite:  # kept gates overflowed; such a state is refused
        return
    with al.stream(fast, case["batch"]) as other:
        other.state = before
        must_be_same("a stream: another state is read than was assigned", other.state, before)
        stats = other.stats
        y = _advance(other, chunk, case, 0)
        moved = Outcome({"y": y} | leaves(other.state), counted(other.stats, stats))
    if not exact:
        must_agree("a stream with a moved state", moved, reference.chunk(chunk, before), seen)
    elif moved.counts != got.counts or any(
        not torch.equal(t.nan_to_num(7), got.tensors[n].nan_to_num(7)) for n, t in moved.tensors.items()
    ):
        raise Fault("a stream: a moved state goes on differently")
    seen.covered.append("stream: moved")


def _must_equal_call(case: Case, fast: al.AdaptiveLSTM, x: torch.Tensor, y: torch.Tensor) -> None:
    want, _ = fast(x.transpose(0, 1) if case["batch_first"] else x)
    want = want.transpose(0, 1) if case["batch_first"] else want
    if not torch.equal(want, y):
        raise Fault(f"a stream: not bit for bit what a call gives\n  off by {(want - y).abs().max():.3g}")


def _must_refuse(fast: al.AdaptiveLSTM, batch: int) -> None:
    try:
        al.stream(fast, batch)
    except UnsupportedError:
        return
    raise Fault("a stream: opened where it cannot work")
