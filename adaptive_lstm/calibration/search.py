"""Coarse to fine: which candidates are worth a test, from a few hundred that are not all run in full.

1. every sweep alone, from careful to bold, on a part of the search split, until it is hopeless;
2. families joined greedily: the best so far with the best of the next family, if their losses leave room;
3. the survivors on the whole search split, and their nearest neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from ..policies import Sweep
from .candidates import Candidate
from .evaluation import Outcome
from .latency_model import CostTable

Run = Callable[[Candidate, int], Outcome]
"""Runs a candidate on the first n sequences of the search split."""

COARSE = 48  # sequences on which a candidate is first looked at
HOPELESS = 2.0  # times the limit at which a candidate is given up
WIDTH = 12  # candidates that are kept when families are joined
PAIRS = 20  # candidates that are tried per joining
LADDER = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)  # levels by which all strengths are lowered
REFINED = 4  # candidates whose neighbours are tried
TESTED = 16  # candidates that are tested
MAX_TIES = 6  # candidates of equal estimated risk that are tested


@dataclass(frozen=True, eq=False)
class Scored:
    """A candidate on n sequences.

    ``risks``: mean of every loss; ``mean_ratio``: the worst of them as a multiple of its limit; ``ratio``: the same, or
    that of early leavers where it is worse (infinity if they are too few to tell).
    """

    candidate: Candidate
    outcome: Outcome
    risks: tuple[float, ...]
    mean_ratio: float
    ratio: float

    @property
    def hopeless(self) -> bool:
        """Loses far more than allowed, and not in a single sequence, which may have been bad luck."""
        return self.mean_ratio > HOPELESS and bool(((self.outcome.losses > 0).sum(0) > 1).any())


class Search:
    """A search over sweeps.

    Args:
        run: runs a candidate.
        limits: of every loss.
        n: size of the search split.
        fits: whether the policies of a candidate can act together.
        by_macs: whether multiply-accumulates are the cost, instead of predicted seconds.
        worst_early_exit_ratio: the largest mean loss of the sequences that exit first, as a multiple of its limit; 0
            where that does not count.
        certifiable_ratio: mean loss up to which a test may be passed, as a multiple of its limit.
    """

    def __init__(
        self,
        run: Run,
        limits: Sequence[float],
        n: int,
        fits: Callable[[Candidate], bool],
        *,
        by_macs: bool,
        worst_early_exit_ratio: Callable[[Candidate, Outcome], float] = lambda candidate, outcome: 0.0,
        certifiable_ratio: float = 1.0,
    ):
        self._run, self._limits, self._n, self._fits, self._by_macs = run, limits, n, fits, by_macs
        self._worst_early_exit_ratio, self._certifiable_ratio = worst_early_exit_ratio, certifiable_ratio
        self._seen: dict[tuple[object, int], Scored] = {}
        self.table = CostTable()

    def score(self, candidate: Candidate, n: int) -> Scored:
        """Run a candidate on the first n sequences, once."""
        key = (candidate.key, n)
        if key not in self._seen:
            outcome = self._run(candidate, n)
            self.table.learn(outcome)
            risks = tuple(float(r) for r in outcome.losses.mean(0))
            mean = max(r / limit for r, limit in zip(risks, self._limits, strict=True))
            ratio = max(mean, self._worst_early_exit_ratio(candidate, outcome))
            self._seen[key] = Scored(candidate, outcome, risks, mean, ratio)
        return self._seen[key]

    def cost(self, scored: Scored) -> float:
        """Seconds per sequence by the cost table, or the share of multiply-accumulates."""
        return scored.outcome.macs_share if self._by_macs else self.table.seconds(scored.outcome.work)

    def order(self, scored: Sequence[Scored]) -> list[Scored]:
        """The Pareto front: those that no other beats in both cost and risk; risk ascending, cost descending.

        Of several with the same estimate more than the cheapest are kept: it may owe its estimate to luck (most of all
        0), and testing ends with the first failure, so it is well to begin with more careful ones.
        """
        kept = [s for s in scored if math.isfinite(s.ratio) and not any(self._beats(o, s) for o in scored)]
        # The first of those that do the same.
        kept = list({(s.ratio, self.cost(s)): s for s in reversed(kept)}.values())
        kept.sort(key=lambda s: (s.ratio, -self.cost(s)))
        return [s for _, equal in groupby(kept, key=lambda s: s.ratio) for s in self._thinned(list(equal), MAX_TIES)]

    def to_test(self, scored: Sequence[Scored]) -> list[Scored]:
        """Those worth a test, in the order to test them; a few, as each is run on the whole test split."""
        return self._thinned([s for s in self.order(scored) if s.ratio <= 1], TESTED)

    def _beats(self, one: Scored, other: Scored) -> bool:
        return one.ratio < other.ratio and self.cost(one) <= self.cost(other)

    def run(self, sweeps: Sequence[Sweep]) -> list[Scored]:
        """All candidates that were run on the whole search split; the dense one comes first."""
        coarse = min(self._n, COARSE)
        dense = self.score(Candidate(), coarse)
        families: dict[str, list[Scored]] = {}
        for sweep in sweeps:
            found = families.setdefault(sweep.family, [])
            for position in sweep.positions:
                scored = self.score(Candidate(((sweep, position),)), coarse)
                found.append(scored)
                if scored.hopeless:
                    break
        self.table.fit()
        joined = [dense]
        fronts = [self._pareto_thinned([dense, *found]) for found in families.values()]
        for front in sorted(filter(None, fronts), key=lambda f: min(self.cost(s) for s in f)):
            joined = self._pareto_thinned([*joined, *front, *self._together(joined, front, coarse)])
        full = [self.score(dense.candidate, self._n)]
        for scored in joined:
            full += self._lowered_strengths(scored.candidate)
        for _ in range(2):
            best = sorted((s for s in full if s.ratio <= self._certifiable_ratio), key=self.cost)[:REFINED]
            for scored in best:
                full += [self.score(c, self._n) for c in scored.candidate.neighbours()]
            full = list({s.candidate.key: s for s in full}.values())
        self.table.fit()
        return full

    def _lowered_strengths(self, candidate: Candidate) -> list[Scored]:
        """A candidate and more careful ones, with all its strengths lowered at once, until two rungs lose nothing.

        The few sequences of the first look let bold candidates pass as harmless; what is certified in the end lies
        between them and the dense model.
        """
        rungs: list[Scored] = []
        for step in LADDER:
            rungs.append(self.score(candidate.more_careful(step), self._n))
            if sum(s.ratio == 0 for s in rungs) == 2:
                break
        return rungs

    def _pareto_thinned(self, scored: Sequence[Scored]) -> list[Scored]:
        """The front of those that may pass, thinned out to WIDTH."""
        return self._thinned(self.order([s for s in scored if not s.hopeless]), WIDTH)

    def _thinned(self, scored: list[Scored], count: int) -> list[Scored]:
        """At most so many, at equal ratios of their costs, the cheapest and the dearest among them."""
        if len(scored) <= count:
            return scored
        costs = np.log([max(self.cost(s), 1e-12) for s in scored])
        wanted = np.linspace(costs.min(), costs.max(), count)
        return [scored[i] for i in sorted({int(np.abs(costs - w).argmin()) for w in wanted})]

    def _together(self, ours: Sequence[Scored], theirs: Sequence[Scored], n: int) -> list[Scored]:
        """Pairs whose losses together leave room, those that promise to be cheapest first."""
        dense = self.cost(self.score(Candidate(), n))
        pairs = []
        for a in ours:
            for b in theirs:
                both = a.candidate.joined(b.candidate) if a.candidate.choices and b.candidate.choices else None
                if both is not None and a.ratio + b.ratio <= HOPELESS and self._fits(both):
                    pairs.append((self.cost(a) * self.cost(b) / dense, both))
        pairs.sort(key=lambda pair: pair[0])
        return [self.score(both, n) for _, both in pairs[:PAIRS]]
