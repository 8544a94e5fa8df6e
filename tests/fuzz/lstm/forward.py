"""Whole calls: native against the reference, and against ``nn.LSTM`` where nothing is left out."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import adaptive_lstm as al
from adaptive_lstm.execution.batch import Batch
from adaptive_lstm.types import StreamState
from adaptive_lstm.weights.layout import CellTensors

from ..margins import explain
from ..outcome import Outcome, counted, differing, told
from ..target import Case, Fault, Seen
from .runs import Reference, followed, followed_by_cell, must_agree, note, outcome_of
from .tensors import given, inputs


def check_call(case: Case, lstm: nn.LSTM, fast: al.AdaptiveLSTM, seen: Seen) -> None:
    """A whole call."""
    (x, twin), (hx, hx_twin) = inputs(case), given(case)
    got = called(fast, x, hx)
    assert fast.last_run is not None
    seen.covered.append(f"served by: {fast.last_run.route.by}")
    reference = Reference(fast, case["steps"])
    run = reference.call(twin, hx_twin)
    comparable = must_agree("a call", got, run, seen, _follow(case, fast, reference, twin, hx_twin, got, seen))
    torch_of = as_torch(lstm, fast, reference.tensors)
    if torch_of is None or not comparable:
        return
    seen.covered.append("against: nn.LSTM")
    want = outcome_of(torch_of(twin, hx_twin), got.counts)
    if want.finite and differing(got, want):
        found = explain(want, run)  # the native run was explained above
        if found is None:
            raise Fault(f"a call: native and nn.LSTM differ\n{told(got, want)}")
        note(found, seen)


def _follow(
    case: Case, fast: al.AdaptiveLSTM, reference: Reference, x: Any, hx: Any, got: Outcome, seen: Seen
) -> Callable[[], Outcome] | None:
    """The call step by step, for ``must_agree``; None where that is something else."""
    by_cell = case["bidirectional"]
    exact = reference.exact and reference.native is not None and isinstance(x, torch.Tensor)
    if not exact or not reference.policy.streams or (by_cell and reference.policy.acts):
        return None

    def follow() -> Outcome:
        batch = Batch.of(x, hx, reference.shape, case["batch_first"])
        rows, sizes = batch.packed()
        shape, B = reference.shape, sizes[0]
        zeros = (rows.new_zeros(shape.num_cells, B, n) for n in (shape.output_size, shape.hidden_size))
        start, frames, counts = StreamState.start(*(batch.initial or zeros)), rows.view(len(sizes), B, -1), got.counts
        if by_cell:
            y, h, c = followed_by_cell(reference, frames, start, seen)
        else:
            done = followed(reference, frames, start, seen, open_ended=False)
            y, h, c = (done.tensors[name] for name in ("y", "h[0]", "c[0]"))
            counts = done.counts if reference.counts else counts
        return outcome_of(batch.restore(batch.unpacked(y.view(len(rows), -1)), h, c), counts)

    return follow


def called(fast: al.AdaptiveLSTM, x: Any, hx: Any) -> Outcome:
    """What a call gave and counted."""
    out = fast(x, hx)
    assert fast.last_run is not None
    return outcome_of(out, counted(fast.last_run))


def as_torch(lstm: nn.LSTM, fast: al.AdaptiveLSTM, weights: tuple[CellTensors, ...]) -> nn.LSTM | None:
    """An ``nn.LSTM`` that must give the same; None: a policy acts, activations are rounded or units are constant."""
    if fast.executor().policy.acts:
        return None
    if fast.plan.exact:
        return lstm
    if any(w.x_levels or w.h_levels or w.live is not None for w in weights):
        return None
    out, shape = copy.deepcopy(lstm), fast.stack_shape
    with torch.no_grad():
        for cell, w in enumerate(weights):
            name = shape.name(cell)
            if not out.bias and bool(w.bias.any()):
                return None
            values = {"weight_ih": w.w_ih, "weight_hh": w.w_hh, "weight_hr": w.w_hr}
            values |= {"bias_ih": w.bias, "bias_hh": torch.zeros_like(w.bias)} if out.bias else {}
            for kind, value in values.items():
                if value is not None:
                    getattr(out, f"{kind}_{name}").copy_(value)
    return out
