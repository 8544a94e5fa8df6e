"""A dozen are timed whatever is predicted, so that the clock finds what a prediction hides, within a family too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from adaptive_lstm.calibration.candidates import Candidate
from adaptive_lstm.calibration.finalists import FINALISTS, spread_out, time_finalists
from adaptive_lstm.calibration.search import Scored
from adaptive_lstm.calibration.steps import MAX_FINALISTS, Found, Run, Timed
from adaptive_lstm.calibration.time_budget import TimeBudget
from adaptive_lstm.calibration.time_share import TimeShare
from adaptive_lstm.policies import SkipTimesteps, Sweep

MIN_GAIN = 0.05
LEVELS = 50

One = tuple[float, float, float]  # predicted share of the time, measured share, risk as a multiple of its limit


def family(name: str, first: int) -> Sweep:
    """A sweep whose policies carry the numbers of their candidates."""
    strengths = tuple(range(first, first + LEVELS + 1))
    return Sweep(name, name, strengths, lambda strength: {"lstm": SkipTimesteps(cap=round(strength))})


def timed(families: Mapping[str, Sequence[One]], budget: TimeBudget | None = None) -> tuple[Timed, list[str]]:
    """What the clock makes of candidates of some families, and the names of those timed, in order."""
    scored, costs, clock = [], {}, {}
    for f, (name, ones) in enumerate(families.items()):
        sweep = family(name, 1 + f * (LEVELS + 1))
        for k, (predicted, share, ratio) in enumerate(ones):
            candidate = Candidate(((sweep, k / LEVELS),))
            outcome: Any = SimpleNamespace(macs_share=0.5)
            scored.append(Scored(candidate, outcome, (ratio,), ratio, ratio))
            costs[candidate.key] = predicted
            clock[1 + f * (LEVELS + 1) + k] = (f"{name} {k}", share)
    order: list[str] = []

    def time(settings: Any) -> TimeShare:
        name, share = clock[settings["lstm"].cap]
        order.append(name)
        return TimeShare(share, share * 0.99, share * 1.01, 15, use="sequence", threads=1, isa="x", cpu="x")

    run: Any = SimpleNamespace(
        compressed=False,
        names=["lstm"],
        bar=SimpleNamespace(note=lambda text: None),
        stopwatch=lambda use: SimpleNamespace(time=time),
    )
    found = Found(scored, costs, [])
    done = time_finalists(cast(Run, run), found, "sequence", MIN_GAIN, budget or TimeBudget(None))
    return done, order


def falling(count: int, measured: Callable[[int], float]) -> list[One]:
    """Candidates that are predicted cheaper and lose more from one to the next."""
    return [(0.9 - 0.01 * k, measured(k), (k + 1) / LEVELS) for k in range(count)]


def test_all_of_a_few_are_timed() -> None:
    """The one that the clock says is by far the fastest is not the one that was predicted so."""
    done, order = timed({"f": [(0.8, 0.85, 0.1), (0.6, 0.3, 0.9), (0.5, 0.7, 0.2), (0.4, 0.6, 0.3)]})
    assert sorted(order) == ["f 0", "f 1", "f 2", "f 3"]
    assert [done.times[s.candidate.key].median for s in done.found.front] == [0.85, 0.7, 0.6, 0.3]
    assert done.summary is not None
    assert (done.summary["timed"], done.summary["fastest"]["median"]) == (4, 0.3)


def test_the_cheapest_of_a_family_does_not_speak_for_the_others() -> None:
    """It is slow, and so all others are predicted to be; a careful one is fast all the same."""
    done, order = timed({"f": falling(42, lambda k: 1.3 if k > 2 else 0.7)})
    assert len(order) == FINALISTS
    assert order[:4] == ["f 41", "f 0", "f 40", "f 1"]  # by turns the cheapest and the most careful
    assert done.found.front
    assert {done.times[s.candidate.key].median for s in done.found.front} == {0.7}


def test_every_family_is_timed_before_a_second_of_one() -> None:
    count = 5
    done, order = timed({f"f{f}": falling(9, lambda k: 1.2) for f in range(count)})
    assert len({name.split()[0] for name in order[:count]}) == count
    assert len({name.split()[0] for name in order[count : 2 * count]}) == count
    assert {name.split()[1] for name in order[:count]} == {"8"}
    assert {name.split()[1] for name in order[count : 2 * count]} == {"0"}
    assert len(order) == FINALISTS
    assert done.found.front == []


@pytest.mark.parametrize("kept", [1, 7, 12, 13, 42])
def test_a_dozen_are_timed_and_no_more_than_twice_as_many(kept: int) -> None:
    _, slow = timed({"f": falling(kept, lambda k: 3.0)})
    assert len(slow) == len(set(slow)) == min(kept, FINALISTS)
    _, fast = timed({"f": falling(kept, lambda k: 0.5)})
    assert min(kept, FINALISTS) <= len(fast) == len(set(fast)) <= min(kept, MAX_FINALISTS)


def test_the_order_follows_the_clock_and_not_the_prediction() -> None:
    """What is dearer by the clock is not tested, though it was predicted cheaper than what loses less."""
    done, _ = timed({"f": [(0.5, 0.6, 0.1), (0.4, 0.65, 0.5), (0.3, 0.5, 0.9)]})
    assert [done.times[s.candidate.key].median for s in done.found.front] == [0.6, 0.5]


def test_all_are_spread_out_once() -> None:
    done, _ = timed({f"f{f}": falling(f + 1, lambda k: 1.0) for f in range(4)})
    row = spread_out(done.found.scored, done.found.costs)
    assert len(row) == len({s.candidate.key for s in row}) == 10


class Spent(TimeBudget):
    """One that is over after so many looks."""

    def __init__(self, looks: int):
        super().__init__(None)
        self._looks = iter([False] * looks)

    def part(self, reserved: float = 0.0) -> Any:
        """Itself."""
        return self

    def passed(self, share: float = 1.0) -> bool:
        """Whether the looks are used up."""
        return next(self._looks, True)


@pytest.mark.parametrize(("looks", "out"), [(0, True), (1, True), (11, True), (12, False)])
def test_a_budget_that_is_over_is_told(looks: int, out: bool) -> None:
    done, order = timed({"f": falling(42, lambda k: 3.0)}, Spent(looks))
    assert len(order) == looks
    assert done.summary is not None
    assert (done.summary["kept_limits"], done.summary["timed"], done.summary["out_of_time"]) == (42, looks, out)
    assert (done.summary["fastest"] is None) == (looks == 0)


@pytest.mark.parametrize("ended_early", [False, True])
def test_a_search_that_ended_before_one_kept_the_limits_is_told(ended_early: bool) -> None:
    run: Any = SimpleNamespace(compressed=False, stopwatch=lambda use: None)
    done = time_finalists(run, Found([], {}, [], ended_early), "sequence", MIN_GAIN, TimeBudget(None))
    assert done.out_of_time is ended_early
    assert (done.summary is None) is not ended_early
