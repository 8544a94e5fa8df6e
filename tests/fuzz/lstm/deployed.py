"""The same LSTM saved and run without torch: outputs, states and counts of the same bits."""

from __future__ import annotations

import os
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

import adaptive_lstm as al
from adaptive_lstm import deploy
from adaptive_lstm.errors import UnsupportedError
from adaptive_lstm.types import ExitState, HoldState, RunStats, StreamState

from ..outcome import counted
from ..target import Case, Fault, Seen
from .tensors import given, inputs, signal

_FOLDER = "/dev/shm" if os.path.isdir("/dev/shm") else None


def check_deployed(case: Case, fast: al.AdaptiveLSTM, seen: Seen) -> None:
    """A whole call and a stream, where the native core runs all of the case."""
    if fast.executor().native is None:
        seen.covered.append("deploy: not native")
        return
    with tempfile.TemporaryDirectory(dir=_FOLDER) as folder:
        al.save(fast, Path(folder) / "model", weights=True)
        try:
            alone = deploy.load(Path(folder) / "model").lstm
        except UnsupportedError:
            if case["split"] == "no":
                raise
            seen.covered.append("deploy: refused")
            return
    _call(case, fast, alone)
    if case["stream"] and not case["bidirectional"] and fast.executor().policy.streams:
        _stream(case, fast, alone)
    seen.covered.append("deploy: same bits")


def _call(case: Case, fast: al.AdaptiveLSTM, alone: deploy.LSTM) -> None:
    (_, x), (_, hx) = inputs(case), given(case)
    y, state = fast(x, hx)
    lengths: Any = None
    if isinstance(x, PackedSequence):
        x, lengths = pad_packed_sequence(x, batch_first=case["batch_first"])
        y, _ = pad_packed_sequence(y, batch_first=case["batch_first"])
        lengths = lengths.tolist()
    if x.dim() == 3 and case["batch_first"]:
        x, y = x.transpose(0, 1), y.transpose(0, 1)
    got, out, stats = alone.run(x.numpy(), None if hx is None else tuple(one.numpy() for one in hx), lengths)
    _must_equal("a call", {"y": got, "h": out[0], "c": out[1]}, {"y": y, "h": state[0], "c": state[1]})
    _must_count("a call", stats, fast.last_run)


def _stream(case: Case, fast: al.AdaptiveLSTM, alone: deploy.LSTM) -> None:
    choice, x = random.Random(case["seed"]), signal(case, case["stream"], "stream")
    beside, stream = al.stream(fast, case["batch"]), alone.stream(case["batch"])
    while len(x):
        n = min(choice.choice((1, 1, 2, 5)), len(x))
        chunk, x = x[:n], x[n:]
        if n == 1:
            want, got = beside.step(chunk[0].contiguous()), stream.step(chunk[0].numpy())
        else:
            want = beside.run(chunk.transpose(0, 1) if case["batch_first"] else chunk)
            want, got = want.transpose(0, 1) if case["batch_first"] else want, stream.run(chunk.numpy())
        _must_equal("a stream", {"y": got} | _leaves(stream.state), {"y": want} | _leaves(beside.state))
        if choice.random() < 0.2:
            rows = choice.sample(range(case["batch"]), choice.randint(1, case["batch"]))
            beside.reset(rows=rows)
            stream.reset(rows=rows)
        if choice.random() < 0.2:
            beside.ahead() if choice.random() < 0.5 else stream.ahead()
    _must_count("a stream", stream.stats, beside.stats)
    if stream.exited.tolist() != beside.exited.tolist():
        raise Fault("deploy: other rows of a stream have exited")


def _leaves(state: StreamState[Any] | HoldState[Any] | ExitState[Any]) -> dict[str, Any]:
    """Every array or tensor of a state by name."""
    out: dict[str, Any] = {}
    for name, value in vars(state).items():
        for i, item in enumerate(value if isinstance(value, tuple) else (value,)):
            if isinstance(item, HoldState | ExitState):
                out |= {f"{name}[{i}].{inner}": v for inner, v in _leaves(item).items()}
            elif item is not None:
                out[f"{name}[{i}]"] = item
    return out


def _must_equal(what: str, got: dict[str, Any], want: dict[str, torch.Tensor]) -> None:
    for name in got.keys() | want.keys():
        a, b = got.get(name), want.get(name)
        if a is None or b is None or not np.array_equal(a, b.numpy(), equal_nan=a.dtype.kind == "f"):
            raise Fault(f"deploy: {what} gives another {name.split('[')[0]} than beside torch")


def _must_count(what: str, got: RunStats, want: RunStats | None) -> None:
    if want is None or counted(got) != counted(want):
        raise Fault(f"deploy: {what} counts otherwise than beside torch")
