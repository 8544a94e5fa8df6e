"""Makes a case and checks all that must hold of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

import adaptive_lstm as al
from adaptive_lstm.errors import AdaptiveLSTMError
from adaptive_lstm.runtime.plan import Plan

from ...support.helpers import always_native
from ..target import Case, Seen
from .deployed import check_deployed
from .forward import check_call
from .model import lstm_of, quantize_of, replaced_of
from .odd_tensors import check_odd
from .policy import policy_of
from .rows import check_rows
from .streams import check_stream
from .surroundings import check_dtype, check_mode
from .wrong import check_wrong

COVERED = ("weights", "pruned", "quantize", "delta", "hold", "time", "depth", "split", "layout", "given", "signal",
           "memory", "dtype", "default_dtype", "mode", "odd", "wrong", "bidirectional", "layers")  # fmt: skip


def check(case: Case) -> Seen:
    """As ``Target.check``."""
    seen = Seen([f"{name}: {case[name]}" for name in COVERED])
    with _default_dtype(case["default_dtype"]), always_native():
        lstm = lstm_of(case)
        fast = al.AdaptiveLSTM.from_lstm(lstm)
        shape = fast.stack_shape
        try:
            fast.plan = Plan(policy_of(case, shape), quantize_of(case, shape), replaced_of(case, lstm))
        except AdaptiveLSTMError as error:
            seen.covered.append(f"refused: {type(error).__name__}")
            return seen
        if case["mode"] in ("gradients", "autocast"):
            check_mode(case, lstm, fast, seen)
            return seen
        with torch.inference_mode() if case["mode"] == "inference_mode" else torch.no_grad():
            _inference(case, lstm, fast, seen)
    return seen


def _inference(case: Case, lstm: nn.LSTM, fast: al.AdaptiveLSTM, seen: Seen) -> None:
    if case["dtype"] != "float32":
        if case["time"] != "python head":  # which is given states in the module's dtype
            check_dtype(case, lstm, fast, seen)
        return
    check_call(case, lstm, fast, seen)
    if case["stream"]:
        check_stream(case, fast, seen)
    if case["rows"]:
        check_rows(case, fast, seen)
    if case["seed"] % 2:  # writing and reading files takes time
        check_deployed(case, fast, seen)
    if case["odd"] != "no":
        check_odd(case, lstm, fast, seen)
    if case["wrong"] != "no":
        check_wrong(case, lstm, fast, seen)


@contextmanager
def _default_dtype(name: str) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, name))
    try:
        yield
    finally:
        torch.set_default_dtype(before)
