"""Only what was measured below 1 reads as a saving: in results, in certificates and in the warnings of files."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

import adaptive_lstm as al
from adaptive_lstm import bench
from adaptive_lstm.artifact.machine import tell_of_another_machine
from adaptive_lstm.calibration.certificate import Certificate

from ..support.artifact_cases import certificate_of
from ..support.small_task import adapted_classifier

WORDS = [
    ((0.6, 0.55, 0.65), "time left: 60%, 1.67 times as fast as with nothing skipped (quartiles 0.55 to 0.65"),
    ((0.97, 0.94, 0.99), "time left: 97%, 1.03 times as fast"),
    ((0.98, 0.94, 1.03), "no gain measured: 0.98 times as long"),
    ((1.06, 0.99, 1.12), "no gain measured: 1.06 times as long as with nothing skipped (quartiles 0.99 to 1.12"),
    ((1.0, 1.0, 1.0), "no gain measured: 1.00 times as long"),
    ((1.06, 1.01, 1.12), "SLOWER: 1.06 times as long"),
    ((2.0, 1.01, 9.0), "SLOWER: 2.00 times as long"),
    ((1.3, 0.95, 1.9), "time left not known: the machine was not quiet (quartiles 0.95 to 1.90"),
    ((0.5, 0.3, 0.9), "time left not known"),
]


def certified(**change: Any) -> Certificate:
    """A certificate of a policy that skips."""
    return certificate_of(adapted_classifier(), **change)


@pytest.mark.parametrize(("measured", "words"), WORDS)
def test_every_text_says_the_same(
    measured: tuple[float, float, float], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    median, low, high = measured
    assert str(al.TimeShare(median, low, high, 15, "sequence", 1, "avx2", "a CPU")).startswith(words)
    savings = {"macs": 0.3, "time": median, "time_quartiles": [low, high], "cpu": "a CPU", "isa": "avx2"}
    assert words in str(certified(savings=savings))
    dense = certified(policy="dense", finalists={
        "kept_limits": 42, "timed": 12, "fastest": {"median": median, "p25": low, "p75": high}
    })  # fmt: skip
    told = str(dense).splitlines()[-2:]
    assert told[0] == "  42 candidates that skip kept the limits in the search, and 12 of them were timed"
    assert told[1].startswith(f"  the fastest of these: {words}")
    monkeypatch.setattr(bench, "cpu_model", lambda: "another CPU")
    with pytest.warns(UserWarning, match=re.escape(f"timed on a CPU (avx2): {words}")):
        tell_of_another_machine(savings, stacklevel=1)


@pytest.mark.parametrize(("timed", "when"), [(0, "before any candidate was timed"), (3, "before all finalists were")])
def test_a_certificate_says_that_the_time_was_over(timed: int, when: str) -> None:
    fastest = {"median": 1.1, "p25": 1.05, "p75": 1.2} if timed else None
    finalists = {"kept_limits": 42, "timed": timed, "fastest": fastest, "out_of_time": True}
    for one in (certified(policy="dense", finalists=finalists), certified(certified=False, finalists=finalists)):
        assert f"and {timed} of them were timed" in str(one)
        assert f"the time that seconds= allows ended {when}" in str(one)
        assert str(one).endswith("give more seconds")
        assert Certificate.from_json(one.to_json()) == one
    assert "seconds=" not in str(replace(one, finalists=finalists | {"out_of_time": False}))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "savings",
    [None, [], {}, {"cpu": "x"}, {"cpu": 1, "isa": "x", "time": 1.0, "time_quartiles": [1.0, 1.0]}]
    + [{"cpu": "x", "isa": "y", "time": t, "time_quartiles": q} for t, q in ((0, [0, 0]), ("1", [1, 1]), (1, 1))],
    ids=str,
)
def test_a_file_with_something_else_tells_nothing(savings: Any) -> None:
    tell_of_another_machine(savings, stacklevel=1)
