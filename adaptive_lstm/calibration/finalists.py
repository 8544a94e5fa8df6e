"""The finalists of a search by time: timed on this machine, on real inputs, before one of them is chosen or tested.

The cost table only orders the search. Which candidates are tested, and in which order, follows the clock; only the
search split is used, so the test split stays clean.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any

import numpy as np

from ..codec import brief, is_number
from ..errors import InputError
from .candidates import Candidate, Key
from .pareto import MIN_COST, Families
from .search import Scored, in_order
from .steps import MAX_FINALISTS, Found, Run, Timed
from .time_budget import TimeBudget
from .time_share import TimeShare
from .workload import Use

SPLIT = "split"  # sweeps of this family save time by more multiply-accumulates
FINALISTS = 12  # candidates that are timed whatever is predicted of them; all, where fewer kept the limits


def check_min_gain(min_gain: Any) -> None:
    """Raise ``InputError`` unless it is a share of the time that can be saved."""
    if not (is_number(min_gain) and 0 <= min_gain < 1):
        raise InputError(f"min_gain: got {brief(min_gain)}, expected a share of the time, at least 0 and below 1")


def time_finalists(run: Run, found: Found, use: Use, min_gain: float, budget: TimeBudget) -> Timed:
    """Time the best candidates of a search, and choose those to test.

    The prediction may be wrong about a family as a whole, and about one within it. So a dozen are timed whatever is
    predicted, spread over families and strengths; what the clock says of them corrects the prediction for the others.
    Then careful and bold ones are timed of those that these predictions would have tested, because only what was timed
    is tested, and testing ends at the first failure.

    Args:
        run: the calibration.
        found: its search, by predicted time.
        use: how the model will be used.
        min_gain: share of the time that a policy must save at least, by the upper quartile of its time share.
        budget: what is left; timing takes at most half of it.
    """
    kept = [s for s in found.scored if s.ratio <= 1 and (s.outcome.macs_share < 1 or SPLIT in s.candidate.families)]
    stopwatch, limit, times = run.stopwatch(use), budget.part(), dict[Key, TimeShare]()

    def time(some: Iterable[Scored]) -> bool:
        """Whether all of them were timed."""
        for scored in some:
            if limit.passed():
                return False
            run.bar.note(f"timing {scored.candidate}")
            times[scored.candidate.key] = stopwatch.time(scored.candidate.settings(run.names))
        return True

    done = time(spread_out(kept, found.costs)[:FINALISTS])
    row = best_of(kept, known(kept, found.costs, times), times, most=1 - min_gain)
    done = done and time(evenly(row, MAX_FINALISTS - len(times)))
    worth = [s for s in kept if (key := s.candidate.key) in times and times[key].saves(min_gain)]
    costs = dict(found.costs) | measured(times)
    front = to_test(run, found.scored, worth, costs)
    cut = not done or (found.ended_early and not kept)
    return Timed(replace(found, costs=costs, front=front), times, len(kept), cut)


def spread_out(kept: Sequence[Scored], costs: Mapping[Key, float]) -> list[Scored]:
    """All, one of every set of families after the other; of each set by turns its cheapest and its most careful.

    Families alone come before those that are joined, then those whose cheapest is cheaper.
    """
    sets: dict[Families, list[Scored]] = {}
    for scored in sorted(kept, key=lambda s: costs[s.candidate.key]):
        sets.setdefault(scored.candidate.families, []).append(scored)
    rows = sorted(sets.values(), key=lambda row: (len(row[0].candidate.families) > 1, costs[row[0].candidate.key]))
    return [s for turn in zip_longest(*(by_turns(row, costs) for row in rows)) for s in turn if s is not None]


def by_turns(row: Sequence[Scored], costs: Mapping[Key, float]) -> list[Scored]:
    """A row in the order of its costs, with the most careful ones between: they lose least, and skip least."""
    careful = sorted(row, key=lambda s: (s.ratio, -costs[s.candidate.key]))
    return list({s.candidate.key: s for both in zip(row, careful, strict=True) for s in both}.values())


def measured(times: Mapping[Key, TimeShare]) -> dict[Key, float]:
    """What the clock said."""
    return {key: share.median for key, share in times.items()}


def known(kept: Sequence[Scored], costs: Mapping[Key, float], times: Mapping[Key, TimeShare]) -> dict[Key, float]:
    """What the clock said of those that were timed, and corrected predictions where it said anything of their kind."""
    return corrected(kept, costs, times) | measured(times)


def corrected(kept: Sequence[Scored], costs: Mapping[Key, float], times: Mapping[Key, TimeShare]) -> dict[Key, float]:
    """Predicted costs of those whose set of families was timed, times what the clock made of its predictions."""
    factors: dict[Families, list[float]] = {}
    for s in kept:
        if (share := times.get(s.candidate.key)) is not None:
            factor = share.median / max(costs[s.candidate.key], MIN_COST)
            factors.setdefault(s.candidate.families, []).append(factor)
    return {
        s.candidate.key: costs[s.candidate.key] * float(np.median(factors[s.candidate.families]))
        for s in kept
        if s.candidate.families in factors
    }


def best_of(
    kept: Sequence[Scored], likely: Mapping[Key, float], times: Mapping[Key, TimeShare], *, most: float
) -> list[Scored]:
    """Those of the front by what is known of their costs that are not timed yet, the cheapest first."""
    some = [s for s in kept if likely.get(s.candidate.key, 1.0) < most]
    return [s for s in reversed(in_order(some, likely)) if s.candidate.key not in times]


def evenly(row: Sequence[Scored], count: int) -> list[Scored]:
    """At most ``count`` of a row at equal distances, both ends included; of one only the first."""
    at = np.linspace(0, len(row) - 1, min(count, len(row))).round().astype(int)
    return [row[i] for i in at]


def to_test(run: Run, scored: Sequence[Scored], worth: Sequence[Scored], costs: Mapping[Key, float]) -> list[Scored]:
    """Those to test, in this order: those worth their loss, and nothing skipped where the model is compressed.

    A compressed model that skips nothing has something to prove too, and may be all that passes.
    """
    nothing = Candidate().key
    able = [*[s for s in scored if s.candidate.key == nothing and run.compressed], *worth]
    return in_order(able, costs)
