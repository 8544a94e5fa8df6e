"""The finalists of a search by time: timed on this machine, on real inputs, before one of them is chosen or tested.

The cost table only orders the search. Which candidates are tested, and in which order, follows the clock; only the
search split is used, so the test split stays clean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..codec import brief
from ..errors import InputError
from .candidates import Candidate, Key
from .pareto import order_to_test
from .search import Scored
from .steps import MAX_FINALISTS, Found, Run, Timed
from .time_budget import TimeBudget
from .time_share import TimeShare
from .workload import Use


def check_min_gain(min_gain: Any) -> None:
    """Raise ``InputError`` unless it is a share of the time that can be saved."""
    if not (isinstance(min_gain, int | float) and 0 <= min_gain < 1):
        raise InputError(f"min_gain: got {brief(min_gain)}, expected a share of the time, at least 0 and below 1")


def time_finalists(run: Run, found: Found, use: Use, min_gain: float, budget: TimeBudget) -> Timed:
    """Time the best candidates of a search, and choose those to test.

    Args:
        run: the calibration.
        found: its search, by predicted time.
        use: how the model will be used.
        min_gain: share of the time that a policy must save at least, by the upper quartile of its time share.
        budget: what is left; timing takes at most half of it.
    """
    kept = [s for s in found.scored if s.ratio <= 1 and s.outcome.macs_share < 1]
    stopwatch = run.stopwatch(use)
    limit, times = budget.part(), dict[Key, TimeShare]()
    for scored in finalists(kept, found.costs):
        if limit.passed():
            break
        run.bar.note(f"timing {scored.candidate}")
        times[scored.candidate.key] = stopwatch.time(scored.candidate.settings(run.names))
    costs = dict(found.costs) | {key: share.median for key, share in times.items()}
    worth = [s for s in kept if (key := s.candidate.key) in times and times[key].saves(min_gain)]
    return Timed(replace(found, costs=costs, front=to_test(run, found.scored, worth, costs)), times, len(kept))


def finalists(kept: Sequence[Scored], costs: Mapping[Key, float]) -> list[Scored]:
    """Those to time, the most promising first: of every set of families the cheapest by prediction, then the front.

    The prediction may be wrong about a family as a whole, and hardly within one.
    """
    by_cost = sorted(kept, key=lambda s: costs[s.candidate.key])
    best: dict[frozenset[str], Scored] = {}
    for scored in by_cost:
        best.setdefault(scored.candidate.families, scored)
    front = [kept[k] for k in order_to_test([costs[s.candidate.key] for s in kept], [s.ratio for s in kept])]
    chosen = {s.candidate.key: s for s in [*best.values(), *reversed(front)]}
    return list(chosen.values())[:MAX_FINALISTS]


def to_test(run: Run, scored: Sequence[Scored], worth: Sequence[Scored], costs: Mapping[Key, float]) -> list[Scored]:
    """Those to test, in this order: those worth their loss, and nothing skipped where the model is compressed.

    A compressed model that skips nothing has something to prove too, and may be all that passes.
    """
    nothing = Candidate().key
    able = [*[s for s in scored if s.candidate.key == nothing and run.compressed], *worth]
    return [able[k] for k in order_to_test([costs[s.candidate.key] for s in able], [s.ratio for s in able])]
