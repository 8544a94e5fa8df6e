"""Coarse to fine: which candidates to test, from a few hundred that are not all run in full.

1. Every sweep alone, from careful to bold, on a part of the search split, until it is hopeless.
2. Families joined greedily: the best so far with the best of the next family, if their losses allow it.
3. The survivors, the same with lower strengths, and the neighbours of the best, on the whole search split.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..policies import Sweep
from .candidates import Candidate, Key
from .evaluation import Outcome
from .latency_model import CostTable
from .pareto import MAX_TIES, order_to_test, pareto_order, spread_by_cost

COARSE = 48  # sequences of the first, coarse evaluation of a candidate
HOPELESS = 2.0  # times the limit at which a candidate is given up
WIDTH = 12  # candidates that are kept when families are joined
JOINED = 20  # candidates that are tried per joining
LOWERED = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)  # levels by which all strengths of a candidate are lowered
HARMLESS = 3  # of these that may lose nothing: what loses nothing here may still fail its test
REFINED = 4  # candidates whose neighbours are tried
REFINEMENTS = 2  # times that this is done
NEIGHBOURS = 6  # of a candidate that joins two families
COARSE_TIME = 0.5  # share of the time for the search, where it is limited, after which the coarse part ends


@dataclass(frozen=True, eq=False)
class Scored:
    """A candidate after it ran on n sequences.

    Attributes:
        candidate: which.
        outcome: what it did.
        risks: mean of every loss.
        mean_ratio: the largest mean loss as a multiple of its limit.
        ratio: the same, or that of the sequences that exit first where it is larger; infinity if too few exit to tell.
    """

    candidate: Candidate
    outcome: Outcome
    risks: tuple[float, ...]
    mean_ratio: float
    ratio: float

    @property
    def hopeless(self) -> bool:
        """Whether it loses far more than allowed, and not in one sequence only, which may be bad luck."""
        return self.mean_ratio > HOPELESS and bool(((self.outcome.losses > 0).sum(0) > 1).any())


class Search:
    """A search over sweeps.

    Args:
        evaluate: runs a candidate on the first n sequences of the search split.
        limits: of every loss.
        n: size of the search split.
        fits: whether the policies of a candidate can act together.
        by_macs: whether multiply-accumulates are the cost, instead of predicted seconds.
        worst_early_exit_ratio: the largest mean loss of the sequences that exit first, as a multiple of its limit; 0
            where that does not count.
        certifiable_ratio: mean loss up to which a test may be passed, as a multiple of its limit.
        expect: called now and then with how many runs of one sequence are left, at the most.
        over: whether a share of the time that the search may take has passed; nothing more is run then.

    Attributes:
        ended_early: whether the time was over before all candidates ran.
        table: what kinds of work cost.
    """

    def __init__(
        self,
        evaluate: Callable[[Candidate, int], Outcome],
        limits: Sequence[float],
        n: int,
        fits: Callable[[Candidate], bool],
        *,
        by_macs: bool,
        worst_early_exit_ratio: Callable[[Candidate, Outcome], float] = lambda candidate, outcome: 0.0,
        certifiable_ratio: float = 1.0,
        expect: Callable[[int], object] = lambda runs: None,
        over: Callable[[float], bool] = lambda share: False,
    ):
        self._evaluate, self._limits, self._n, self._fits, self._by_macs = evaluate, limits, n, fits, by_macs
        self._worst_early_exit_ratio, self._certifiable_ratio = worst_early_exit_ratio, certifiable_ratio
        self._expect, self._over = expect, over
        self._time = COARSE_TIME  # share of the search's time at which it ends now
        self._seen: dict[tuple[object, int], Scored] = {}
        self.table, self.ended_early = CostTable(), False

    def run(self, sweeps: Sequence[Sweep]) -> list[Scored]:
        """Search; all candidates that ran on the whole search split, the dense one first."""
        self._expect(self._runs_at_most(sweeps))
        joined = self._look(sweeps)
        self._time = 1.0
        self._expect(_full_runs(len(joined)) * self._n)
        full = [self.score(Candidate(), self._n)]
        for scored in joined:
            full += self._lowered_strengths(scored.candidate)
        for _ in range(REFINEMENTS):
            best = sorted((s for s in full if s.ratio <= self._certifiable_ratio), key=self.cost)[:REFINED]
            for scored in best:
                full += self._scored_in_time(scored.candidate.neighbours(), self._n)
            full = list({s.candidate.key: s for s in full}.values())
        self.table.fit()
        return full

    def _scored_in_time(self, candidates: Iterable[Candidate], n: int) -> Iterator[Scored]:
        """Candidates one by one on the first n sequences, until the time is over."""
        for candidate in candidates:
            if (candidate.key, n) not in self._seen and self._over(self._time):
                self.ended_early = True
                return
            yield self.score(candidate, n)

    def score(self, candidate: Candidate, n: int) -> Scored:
        """Run a candidate on the first n sequences, once."""
        key = (candidate.key, n)
        if key not in self._seen:
            outcome = self._evaluate(candidate, n)
            self.table.learn(outcome.work, outcome.seconds)
            risks = tuple(float(r) for r in outcome.losses.mean(0))
            mean = max(r / limit for r, limit in zip(risks, self._limits, strict=True))
            ratio = max(mean, self._worst_early_exit_ratio(candidate, outcome))
            self._seen[key] = Scored(candidate, outcome, risks, mean, ratio)
        return self._seen[key]

    def cost(self, scored: Scored) -> float:
        """Seconds per sequence by the cost table, or the share of multiply-accumulates."""
        return scored.outcome.macs_share if self._by_macs else self.table.seconds(scored.outcome.work)

    def order(self, scored: Sequence[Scored]) -> list[Scored]:
        """The Pareto front of those with an estimate, in the order of ``pareto_order``."""
        known = [s for s in scored if math.isfinite(s.ratio)]
        if not known:
            return []
        front = pareto_order([self.cost(s) for s in known], [s.ratio for s in known], max_ties=MAX_TIES)
        return [known[k] for k in front]

    def to_test(self, scored: Sequence[Scored]) -> list[Scored]:
        """The few to test, in this order."""
        return in_order(scored, {s.candidate.key: self.cost(s) for s in scored})

    def _look(self, sweeps: Sequence[Sweep]) -> list[Scored]:
        """Every sweep alone and families joined, on a part of the search split; the best of both."""
        coarse = min(self._n, COARSE)
        dense = self.score(Candidate(), coarse)
        families: dict[str, list[Scored]] = {}
        for sweep in sweeps:
            found = families.setdefault(sweep.family, [])
            for scored in self._scored_in_time((Candidate(((sweep, p),)) for p in sweep.positions), coarse):
                found.append(scored)
                if scored.hopeless:
                    break
        self.table.fit()
        joined = [dense]
        fronts = [self._pareto_thinned([dense, *found]) for found in families.values()]
        for front in sorted(filter(None, fronts), key=lambda f: min(self.cost(s) for s in f)):
            joined = self._pareto_thinned([*joined, *front, *self._together(joined, front, coarse)])
        if self._by_macs:
            return joined
        # Predicted time may be wrong about a family as a whole: of each, the one that skips most stays all the same.
        boldest = [
            min(able, key=lambda s: s.outcome.macs_share)
            for found in families.values()
            if (able := [s for s in found if s.mean_ratio <= 1])
        ]
        return list({s.candidate.key: s for s in [*joined, *boldest]}.values())

    def _runs_at_most(self, sweeps: Sequence[Sweep]) -> int:
        """Runs of one sequence that a search over some sweeps takes, at the most."""
        joinings = len({sweep.family for sweep in sweeps}) - 1
        looked = 1 + sum(len(sweep.positions) for sweep in sweeps) + JOINED * joinings
        families = joinings + 1
        return looked * min(self._n, COARSE) + _full_runs(WIDTH + families) * self._n

    def _lowered_strengths(self, candidate: Candidate) -> list[Scored]:
        """A candidate and more careful ones, all its strengths lowered at once, until three of them lose nothing.

        On the few sequences of the coarse evaluation bold candidates may look harmless; what is certified in the end
        is between them and the dense model.
        """
        lowered: list[Scored] = []
        for scored in self._scored_in_time(map(candidate.more_careful, LOWERED), self._n):
            lowered.append(scored)
            if sum(s.ratio == 0 for s in lowered) == HARMLESS:
                break
        return lowered

    def _pareto_thinned(self, scored: Sequence[Scored]) -> list[Scored]:
        """The front of those that are not hopeless, thinned out to WIDTH."""
        front = self.order([s for s in scored if not s.hopeless])
        return [front[k] for k in spread_by_cost(np.array([self.cost(s) for s in front]), WIDTH)]

    def _together(self, ours: Sequence[Scored], theirs: Sequence[Scored], n: int) -> list[Scored]:
        """Candidates joined two by two where their losses allow it, those expected to be cheapest first."""
        dense = self.cost(self.score(Candidate(), n))
        joined = []
        for a in ours:
            for b in theirs:
                both = a.candidate.joined(b.candidate) if a.candidate.choices and b.candidate.choices else None
                if both is not None and a.ratio + b.ratio <= HOPELESS and self._fits(both):
                    joined.append((self.cost(a) * self.cost(b) / dense, both))
        joined.sort(key=lambda one: one[0])
        return list(self._scored_in_time((both for _, both in joined[:JOINED]), n))


def in_order(scored: Sequence[Scored], costs: Mapping[Key, float]) -> list[Scored]:
    """Those to test, in this order, by costs of one's own: see ``order_to_test``."""
    ratios, families = [s.ratio for s in scored], [s.candidate.families for s in scored]
    return [scored[k] for k in order_to_test([costs[s.candidate.key] for s in scored], ratios, families)]


def _full_runs(joined: int) -> int:
    """How often so many candidates, with lower strengths and neighbours, run on the whole split, at about the most."""
    return 1 + joined * len(LOWERED) + REFINEMENTS * REFINED * NEIGHBOURS
