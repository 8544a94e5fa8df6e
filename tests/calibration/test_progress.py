"""Progress of long calls: a bar and an estimate on a terminal, nothing in a pipe or a log."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

import adaptive_lstm as al
from adaptive_lstm import progress
from adaptive_lstm.calibration.steps import prepare
from adaptive_lstm.progress import Deadline, Progress, duration, tracked

from ..support.small_task import OPTIONS, adapted_classifier, drawn

TIME_LEFT = r"\[\d\d:\d\d<\d\d:\d\d"


class Terminal(io.StringIO):
    """A stderr that is one."""

    def isatty(self) -> bool:
        """It is."""
        return True


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bars from the start, and estimates also of what takes little time."""
    monkeypatch.setattr(progress, "SETTLED", 0.0)
    monkeypatch.setattr(progress, "MIN_ANNOUNCED", 0.0)


def stderr(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, call: Callable[[], object]) -> str:
    """What a call writes to it."""
    monkeypatch.setattr(sys, "stderr", stream)
    call()
    return stream.getvalue()


def calibrate(show: bool = True) -> None:
    al.calibrate(adapted_classifier(), drawn(100), **(OPTIONS | {"progress": show}), policies=[al.SkipTimesteps])


def measure() -> None:
    al.measure_sensitivities(adapted_classifier(), [x for x, _ in drawn(4)])


def fit() -> None:
    al.fit_translators(adapted_classifier(), [x for x, _ in drawn(4)])


def compress() -> None:
    al.compress(adapted_classifier(), [x for x, _ in drawn(8)], prune=al.Prune("unstructured", 0.3))


def compress_within() -> None:
    al.compress_within(adapted_classifier(), [x for x, _ in drawn(8)], 1e-9)


LONG_CALLS = [
    (calibrate, "calibrating"),
    (measure, "sensitivity"),
    (fit, "translators"),
    (compress, "pruning"),
    (compress_within, "compressing"),
]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("call", "description"), LONG_CALLS)
def test_only_a_terminal_shows_the_time_left(
    monkeypatch: pytest.MonkeyPatch, call: Callable[[], None], description: str
) -> None:
    assert stderr(monkeypatch, io.StringIO(), call) == ""
    written = stderr(monkeypatch, Terminal(), call)
    assert re.search(f"{description}:.*{TIME_LEFT}", written)
    assert len(re.findall(rf"{description}: at most about [\d.]+ s\n", written)) == 1


@pytest.mark.usefixtures("impatient")
def test_who_asks_for_quiet_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert stderr(monkeypatch, Terminal(), lambda: calibrate(show=False)) == ""


def test_short_calls_stay_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    assert stderr(monkeypatch, Terminal(), lambda: list(tracked(range(3), "counting", "number", show=True))) == ""


@pytest.mark.usefixtures("impatient")
def test_the_estimate_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> None:
        with Progress("working", "unit", show=True) as bar:
            for units in (300, 10):
                bar.expect(units, seconds=60.0)
                bar.advance()

    written = stderr(monkeypatch, Terminal(), work)
    assert written.count("working: at most about") == 1
    assert "working: at most about 5.0 h\n" in written


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.034, "0.03 s"), (0.2, "0.2 s"), (8.4, "8 s"), (89, "89 s"), (100, "2 min"), (3600, "60 min"), (9000, "2.5 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("seconds", [20.0, 80.0])
@pytest.mark.parametrize("way", ["expected", "total", "calibrate", "compress_within"])
def test_no_estimate_is_longer_than_the_call_may_take(
    monkeypatch: pytest.MonkeyPatch, seconds: float, way: str
) -> None:
    """Whatever the units would take: with a deadline the line and the bar end there."""

    def expected() -> None:
        with Progress("working", "unit", show=True, deadline=Deadline(seconds)) as bar:
            bar.expect(1_000_000, seconds=60.0)
            assert bar._bar.total <= seconds / 60 + 1

    def total() -> None:
        with Progress("working", "unit", show=True, total=10**12, deadline=Deadline(seconds)) as bar:
            bar.advance()

    def calibrate() -> None:
        slow = prepare_slowly(1000.0)
        monkeypatch.setattr("adaptive_lstm.calibration.calibrate.prepare", slow)
        al.calibrate(adapted_classifier(), drawn(100), **(OPTIONS | {"progress": True}), seconds=seconds)

    def compress_within() -> None:
        monkeypatch.setattr("adaptive_lstm.compression.within_budget._estimate", lambda *_: 1e6)
        al.compress_within(adapted_classifier(), [x for x, _ in drawn(8)], 1e-9, seconds=seconds)

    ways = {"expected": expected, "total": total, "calibrate": calibrate, "compress_within": compress_within}
    written = stderr(monkeypatch, Terminal(), ways[way])
    (told,) = re.findall(r"at most about (\d+) s\n", written)
    assert seconds / 2 < int(told) <= seconds


def prepare_slowly(seconds: float) -> Callable[..., Any]:
    """What prepares a calibration, and says that a run of the model takes so many seconds."""
    return lambda *args: replace(prepare(*args), seconds=seconds)
