"""A tie at a threshold is explained, and told apart from what is wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.testing import assert_close

import adaptive_lstm as al
from adaptive_lstm.policies import LinearHead

from ..support.helpers import torch_lstm
from .campaign import Campaign, Settings
from .lstm.runs import Reference, outcome_of
from .margins import Explanation, closest_ties, explain
from .outcome import Outcome, counted
from .script import Decision, Flip, Script, Tie


def called(policy: al.Policy, quantize: str = "fp32", steps: int = 6) -> tuple[Reference, Any, Outcome]:
    """The reference of a stack with a policy, how it runs a call, and the native outcome of that."""
    fast = al.AdaptiveLSTM.from_lstm(torch_lstm(5, 9, 2))
    fast.quantize, fast.policy = al.Quantize(quantize), policy  # type: ignore[arg-type]
    x = torch.randn(steps, 3, 5, generator=torch.Generator().manual_seed(1)).mul(0.3).cumsum(0)
    reference = Reference(fast, steps)
    with torch.no_grad():
        out = fast(x)
    assert fast.last_run is not None
    return reference, reference.call(x, None), outcome_of(out, counted(fast.last_run))


def decisions(run: Any) -> list[Decision]:
    script = Script()
    run(script, None)
    return script.decisions


def closest(run: Any, kind: str, *, beyond: float = -1.0) -> Flip:
    """The decision of a kind with the smallest margin above a bound."""
    found: list[tuple[float, Flip]] = []
    for d in decisions(run):
        if d.kind.startswith(kind) and d.margin.numel():
            margin = d.margin.abs().view(len(d.rows), -1)
            margin = margin.masked_fill(margin <= beyond, float("inf"))
            at = int(margin.argmin())
            n, column = divmod(at, margin.shape[1])
            found.append((float(margin.view(-1)[at]), (d.place, int(d.rows[n]), column)))
    return min(found, key=lambda one: one[0])[1]


def of_second_input(column: float) -> al.Delta:
    """Thresholds for the input of the second layer alone: 0.05, and another for one column."""
    return al.Delta(x=(None, (0.05,) * 4 + (column,) + (0.05,) * 4))


def at_a_change() -> al.Delta:
    """The same with one threshold where that column hardly is sent at the second timestep."""
    _, run, _ = called(of_second_input(0.05))
    second = (d for d in decisions(run) if d.kind == "send x of 1" and d.place[2] == 1)
    d = next(d for d in second if d.margin.isfinite().all())
    return of_second_input(float(d.margin[0, 4]) + 0.05)


HEAD = LinearHead(torch.eye(9).numpy()[:3] * 4, torch.zeros(3).numpy())


def policies() -> dict[str, tuple[al.Policy, str, str]]:
    """Policies with a decision at its threshold, that decision's kind, and the precision."""
    _, d = (d for d in decisions(called(al.SkipTimesteps(x_share=None, h=0.05), steps=2)[1]) if d.kind == "hold")
    hold = al.SkipTimesteps(x_share=None, h=0.05 - float(d.margin[1]))
    leave = al.ExitInTime(HEAD, threshold=0.3, check_every=2)
    d = next(d for d in decisions(called(leave)[1]) if d.kind == "exit in time")
    return {
        "send": (at_a_change(), "send", "fp32"),
        "hold": (hold, "hold", "fp32"),
        "exit in time": (replace(leave, threshold=0.3 + float(d.margin[2])), "exit in time", "fp32"),
    }


@pytest.mark.parametrize("name", ["send", "hold", "exit in time"])
def test_a_tie_is_explained_by_its_margin(name: str) -> None:
    policy, kind, quantize = policies()[name]
    _, run, _ = called(policy, quantize)
    tie = closest(run, kind)
    got = run(Script([tie]), None)  # as a run that rounds a little differently would come out
    found = explain(got, run)
    assert isinstance(found, Explanation)
    assert len(found.ties) == 1
    assert found.ties[0][0].startswith(kind)
    assert found.ties[0][1] < 0.5


@pytest.mark.parametrize("name", ["send", "hold", "exit in time"])
def test_a_decision_beyond_its_margin_is_a_fault(name: str) -> None:
    policy, kind, quantize = policies()[name]
    _, run, _ = called(policy, quantize)
    found = 0
    for beyond in (1e-4, 1e-3, 1e-2):
        got, want = run(Script([closest(run, kind, beyond=beyond)]), None), run(None, None)
        if got.counts != want.counts:  # some decisions do not matter, such as whether to hold what never ran
            found += 1
            assert explain(got, run) is None
    assert found


def test_a_level_that_is_rounded_otherwise_is_a_tie_only_at_its_edge() -> None:
    _, run, native = called(al.Dense(), "int8")
    assert explain(native, run) is not None
    wrong = closest(run, "level", beyond=0.1)
    assert explain(run(Script([wrong]), None), run) is None


def test_the_margin_of_a_level_moves_by_little_past_a_whole_number() -> None:
    _, run, _ = called(al.Dense(), "int8")
    d = next(d for d in decisions(run) if d.kind == "level" and d.margin.numel())
    before, after = torch.full_like(d.margin, 0.49), torch.full_like(d.margin, -0.49)
    assert_close(replace(d, margin=before).distance(after), torch.full_like(before, 0.02))
    assert_close(replace(d, margin=before, kind="hold").distance(after), torch.full_like(before, 0.98))


def test_both_directions_of_a_layer_round_an_input_alike() -> None:
    of_input, of_h = ("level", 0.25), ("level", 0.125)
    forward, backward, other = (("run", 2, 0), 1, 5), (("run", 3, 0), 1, 5), (("run", 3, 1), 1, 5)
    ties: dict[Flip, Tie] = {forward: of_input, other: of_h, backward: of_input}
    assert closest_ties(ties) == [{other: of_h}, {forward: of_input, backward: of_input}]


@pytest.mark.parametrize("quantize", ["fp32", "int8"])
@pytest.mark.parametrize("what", ["y", "h", "c", "count"])
def test_a_wrong_result_is_never_explained(what: str, quantize: str) -> None:
    _, run, native = called(al.Delta.uniform(0.02), quantize)
    assert explain(native, run) is not None
    tensors, counts = {name: t.clone() for name, t in native.tensors.items()}, list(native.counts)
    if what == "count":
        counts[0] += 1
    else:
        tensors[what].view(-1)[7] += 1e-3
    assert explain(Outcome(tensors, tuple(counts)), run) is None


def test_a_tie_does_not_excuse_what_is_wrong_beside_it() -> None:
    policy, kind, quantize = policies()["send"]
    _, run, _ = called(policy, quantize)
    got = run(Script([closest(run, kind)]), None)
    got.tensors["y"].view(-1)[-1] += 1e-3
    assert explain(got, run) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "simplest"),
    [
        ("OFF", {"quantize": "fp32", "delta": "no"}),
        ("OFF_IN_INT8", {"quantize": "int8", "delta": "uniform"}),
        ("MISCOUNTED", {"delta": "uniform"}),
    ],
)
def test_a_wrong_native_core_is_found_in_every_case(way: str, simplest: dict[str, str]) -> None:
    cases = 8
    record = Campaign(Settings(f"tests.fuzz.sabotaged:{way}", seed=2, cases=cases, minutes=10)).run()
    assert record.faults.keys() <= {"a call: native and reference differ", "a call: not what the same steps give"}
    assert sum(record.faults.values()) == cases
    failure = record.failures[0]
    smallest = {"layers": 1, "hidden": 1, "inputs": 1, "steps": 1, "batch": 1, "hold": "no", "time": "no", "stream": 0}
    assert failure.case | smallest | simplest == failure.case


@pytest.mark.slow
def test_the_same_core_unharmed_has_no_faults() -> None:
    record = Campaign(Settings("tests.fuzz.sabotaged:SOUND", seed=2, cases=40, minutes=10)).run()
    assert not record.faults, record.failures
