"""``compress_within`` ends when it is told to, with the best that was found by then, and says so."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from torch import nn

import adaptive_lstm as al
from adaptive_lstm import progress
from adaptive_lstm.compression import budget_search, within_budget
from adaptive_lstm.compression.output_error import outputs, relative_change

from ..support.helpers import signal

BATCHES = [signal(4, 20, 6, seed=i) for i in range(8)]
CHANGE = 0.4


class Tagger(nn.Module):
    """Logits for every timestep."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(6, 20, 2, batch_first=True, bidirectional=True, **options)
        self.head = nn.Linear(2 * self.lstm.hidden_size if not self.lstm.proj_size else 2 * self.lstm.proj_size, 3)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(self.lstm(x)[0])


def adapted() -> Any:
    return al.adapt(Tagger().eval())


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lets the deadline pass at the n-th check."""
    left = [0]

    def check(self: progress.Deadline) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise progress.OutOfTimeError

    monkeypatch.setattr(progress.Deadline, "check", check)

    def after(n: int) -> list[int]:
        left[0] = n
        return left

    return after


def test_the_budget_holds_wherever_the_time_ends(checks: Any) -> None:
    dense = outputs(Tagger().eval(), BATCHES)
    left = checks(10**9)
    whole = al.compress_within(adapted(), BATCHES, CHANGE, seconds=1e9)
    needed = 10**9 - left[0]
    assert whole.remark == ""
    sizes = []
    for n in (0, 1, needed // 8, needed // 3, needed // 2, needed - 2):
        fast = adapted()
        checks(n)
        report = al.compress_within(fast, BATCHES, CHANGE, seconds=5)
        assert "stopped after seconds=5" in report.remark
        assert report.remark in str(report)
        assert relative_change(dense, outputs(fast, BATCHES)) <= 1.2 * CHANGE  # fitted batches too
        sizes.append(report.bytes_after)
    assert sizes == sorted(sizes, reverse=True)  # never worse with more time
    assert sizes[0] == whole.bytes_before  # nothing was found yet
    assert sizes[0] > sizes[-1] >= whole.bytes_after


def test_seconds_are_kept() -> None:
    fast = adapted()
    begun = time.perf_counter()
    report = al.compress_within(fast, BATCHES, CHANGE, seconds=1e-6)
    assert "nothing within the budget was found" in report.remark
    assert fast.lstm.quantize.exact
    assert time.perf_counter() - begun < 60  # not a figure, but no search either
    for wrong in (0, -1.0, float("nan")):
        with pytest.raises(al.AdaptiveLSTMError, match="seconds: got"):
            al.compress_within(fast, BATCHES, CHANGE, seconds=wrong)


@pytest.mark.parametrize("calls", [0, 7, 26, 40])
def test_an_interruption_leaves_everything_as_it_was(calls: int) -> None:
    fast, left = adapted(), iter(range(calls))
    fast.lstm.policy = al.Delta.uniform(0.1)
    before = fast.lstm.plan

    def interrupted(out: torch.Tensor) -> torch.Tensor:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return out

    with pytest.raises(KeyboardInterrupt):
        al.compress_within(fast, BATCHES, CHANGE, output=interrupted)
    assert fast.lstm.plan is before
    assert fast.lstm.last_run is None


def test_of_many_batches_some_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    many, seen = [signal(4, 20, 6, seed=i) for i in range(40)], set[int]()
    monkeypatch.setattr(within_budget, "FIT_STEPS", 10 * 80)
    monkeypatch.setattr(within_budget, "HELD_STEPS", 4 * 80)
    fast = adapted()
    fast.lstm.register_forward_pre_hook(lambda _, given: seen.update(i for i, x in enumerate(many) if x is given[0]))
    al.compress_within(fast, many, CHANGE)
    assert len(seen - set(range(within_budget.REPEATED))) <= 10 + 4
    assert max(seen) > 30  # spread over all of them
    assert relative_change(outputs(Tagger().eval(), many[::-4]), outputs(fast, many[::-4])) <= 1.2 * CHANGE


def test_what_is_left_out_for_large_models_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget_search, "SEARCHED", 0.0)
    monkeypatch.setattr(budget_search, "WORTH_SEARCHING", 1e9)
    report = al.compress_within(adapted(), BATCHES, 0.02)
    assert "finer settings of pruning were not searched" in report.remark
    assert "seconds=" in str(report)


@pytest.mark.parametrize("pattern", ["unit", "column", "block", "2:4"])
def test_every_pattern_goes_from_gentle_to_bold(pattern: str) -> None:
    sizes = []
    for change in (1e-5, 0.05, 0.9):
        fast = adapted()
        sizes.append(al.compress_within(fast, BATCHES, change, pattern=pattern).bytes_after)
        assert relative_change(outputs(Tagger().eval(), BATCHES[::-4]), outputs(fast, BATCHES[::-4])) <= change
    assert sizes[0] > sizes[1] > sizes[2]
