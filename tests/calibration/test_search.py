"""The search: what a candidate is, which are tried, kept, joined and tested, and what they are said to cost."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import adaptive_lstm as al
from adaptive_lstm.calibration.candidates import Candidate, Settings, fits, sweeps_of
from adaptive_lstm.calibration.evaluation import Evaluator, Outcome
from adaptive_lstm.calibration.families import default_families
from adaptive_lstm.calibration.latency_model import FEATURES
from adaptive_lstm.calibration.pareto import MAX_TESTED, MAX_TIES, pareto_order
from adaptive_lstm.calibration.search import COARSE, HOPELESS, Scored, Search
from adaptive_lstm.policies import FitData, Sweep, parts
from adaptive_lstm.types import StackShape

from ..support.small_task import adapted_classifier, drawn

N, LIMIT = 120, 0.1
LEVELS = (0.1, 0.2, 0.4, 0.8)
POLICY = FEATURES.index("policy")
LUCK = np.random.default_rng(0).permutation((np.arange(N) + 0.5) / N)  # sequence i fails where the risk is above


def sweep(name: str, make: Callable[[float], al.Policy] = al.Delta.uniform, family: str | None = None) -> Sweep:
    def settings(strength: float) -> Settings:
        return {"lstm": make(strength)}

    return Sweep(family or name, name, LEVELS, settings)


def outcome(risk: float, share: float, n: int = N) -> Outcome:
    """Losses with about this mean, and this share of the work."""
    work = np.full((n, len(FEATURES)), share)
    work[:, FEATURES.index("call")] = 1
    return Outcome(
        losses=(LUCK[:n] < risk).astype(float)[:, None],
        seconds=work.sum(1) * 1e-3,
        work=work,
        macs=np.full(n, share),
        macs_possible=np.ones(n),
        exit_times=np.zeros(n, dtype=np.int64),
        rates={},
    )


class World:
    """Runs candidates whose risks and costs are known: risks add up, shares of work multiply."""

    def __init__(self, **risks: float):
        self.risks, self.runs = risks, Counter[tuple[Any, int]]()

    def run(self, candidate: Candidate, n: int) -> Outcome:
        self.runs[candidate.key, n] += 1
        risk = sum(self.risks[t.name] * t.strength(p) for t, p in candidate.choices)
        share = math.prod(1 - 0.8 * t.strength(p) for t, p in candidate.choices)
        return outcome(risk, share, n)

    def search(self, may: Callable[[Candidate], bool] = lambda c: True, **options: Any) -> Search:
        return Search(self.run, [LIMIT], N, may, **({"by_macs": True} | options))


def scored(ratio: float, share: float) -> Scored:
    candidate = Candidate(((sweep(f"{ratio} {share}"), 0.0),))
    return Scored(candidate, outcome(0.0, share), (ratio * LIMIT,), ratio, ratio)


# ------------------------------------------------------------------------------------------------------ candidates


def test_strengths_lie_between_their_levels() -> None:
    one = sweep("a")
    assert [one.strength(p) for p in one.positions] == pytest.approx(list(LEVELS))
    assert one.strength(one.spacing / 2) == pytest.approx(math.sqrt(0.1 * 0.2))
    assert one.strength(-1) == pytest.approx(0.1)
    assert one.strength(2) == pytest.approx(0.8)
    along = [one.strength(p) for p in np.linspace(0, 1, 50)]
    assert all(a < b for a, b in pairwise(along))


def test_candidates() -> None:
    a, b = sweep("a"), sweep("b", lambda limit: al.SkipTimesteps(x_share=limit))
    both = Candidate(((a, 0.0),)).joined(Candidate(((b, 1.0),)))
    assert both is not None
    assert str(both) == "a 0.1 + b 0.8"
    assert both.families == {"a", "b"}
    made = both.settings(["lstm"])["lstm"]
    assert isinstance(made, al.Combined)
    assert made.policies == (al.Delta.uniform(0.1), al.SkipTimesteps(x_share=0.8))
    assert Candidate(((a, 0.0),)).settings(["lstm"]) == {"lstm": al.Delta.uniform(0.1)}
    assert Candidate().settings(["x", "y"]) == {"x": al.Dense(), "y": al.Dense()}
    assert both.joined(Candidate(((sweep("c", family="a"), 0.0),))) is None
    time, depth = sweep("time"), sweep("depth of sequences")
    assert Candidate(((time, 0.0),)).joined(Candidate(((depth, 0.0),))) is None
    near = [c.choices for c in both.neighbours()]
    assert all(0 <= p <= 1 for choices in near for _, p in choices)
    assert all(sum(p != q for (_, p), (_, q) in zip(c, both.choices, strict=True)) == 1 for c in near)
    assert len(near) == 3  # a can only grow, by two steps; b only shrink


def test_fits() -> None:
    shapes = {"lstm": StackShape(3, 4, 1)}
    assert fits(Candidate(((sweep("a"), 0.0),)), shapes)
    assert not fits(Candidate(((sweep("a", lambda limit: al.HoldLayers(x_share=limit)), 0.0),)), shapes)
    twice = Candidate(((sweep("a"), 0.0), (sweep("b", family="b"), 0.0)))
    assert not fits(twice, shapes)  # two column policies


@pytest.fixture(scope="module")
def measured() -> FitData:
    model, data = adapted_classifier(2), [x for x, _ in drawn(100)]
    shapes = {"lstm": model.lstm.stack_shape}
    translators = {"lstm": al.fit_translators(model, data, buckets=2)}
    return FitData(shapes, al.measure_sensitivities(model, data[:8]), translators)


def test_sweeps(measured: FitData) -> None:
    model = adapted_classifier(2)
    head = model.head
    exits = [al.Family(al.ExitInTime, head=head), al.Family(al.ExitInDepth, head=head)]
    skips = [al.Family(al.Delta), al.Family(al.SkipTimesteps, cap=3), al.Family(al.HoldLayers)]
    made = sweeps_of([*skips, *exits], measured, conditional=False)
    assert {t.family for t in made} == {"delta", "skip", "hold", "time", "depth of sequences", "depth of steps"}
    assert len({t.name for t in made}) == len(made)
    data = Evaluator(model, {"lstm": model.lstm}, []).label(drawn(24, seed=5))
    for one in made:
        evaluator = Evaluator(model, {"lstm": model.lstm}, [al.losses.clipped_error(10.0)])
        careful, bold = (evaluator.run(one.make(one.strength(p)), data) for p in (0, 1))
        assert careful.losses.mean() <= bold.losses.mean()
        assert careful.losses.mean() < 0.02
        assert careful.macs.sum() - careful.work[:, POLICY].sum() >= bold.macs.sum() - bold.work[:, POLICY].sum()
        assert bold.macs_share < 1, one.name
    skip = next(t for t in made if t.family == "skip").make(0.1)["lstm"]
    assert isinstance(skip, al.SkipTimesteps)
    assert skip.cap == 3  # what a family says beside its strength is kept


def test_sweeps_that_a_stream_can_run(measured: FitData) -> None:
    exits = [al.Family(kind, head=adapted_classifier(2).head) for kind in (al.ExitInTime, al.ExitInDepth)]
    made = sweeps_of([*exits, al.Family(al.Delta)], measured, conditional=False, streams=True)
    assert {one.family for one in made} == {"delta", "time", "depth of steps"}


def test_sweeps_of_exits_open_bucket_by_bucket(measured: FitData) -> None:
    time = measured.translators["lstm"].time
    assert time is not None
    made = sweeps_of([al.Family(al.ExitInTime, head=adapted_classifier().head)], measured, conditional=True)
    assert len(made) == 2 * len(time.starts)
    for one in made:
        exits = parts(one.make(0.2)["lstm"]).time_exit
        assert isinstance(exits, al.ExitInTime)
        assert exits.starts == one.starts == time.starts
        assert [t < 1 for t in exits.thresholds] == [b >= one.first_open_bucket for b in range(len(time.starts))]
    settled = sweeps_of([al.Family(al.ExitInTime)], measured, conditional=True)[-1].make(0.05)["lstm"]
    assert isinstance(settled, al.ExitInTime)
    assert settled.thresholds == (0.0,) * (len(time.starts) - 1) + (0.05,)


def test_default_families() -> None:
    def names(*shapes: StackShape) -> list[str]:
        return [family.name for family in default_families({str(i): s for i, s in enumerate(shapes)})]

    one, two = StackShape(3, 4, 1), StackShape(3, 4, 2)
    assert names(one) == ["Delta", "SkipTimesteps", "ExitInTime"]
    assert names(two) == ["Delta", "SkipTimesteps", "HoldLayers", "ExitInTime"]
    assert names(replace(two, bidirectional=True)) == ["Delta", "SkipTimesteps", "HoldLayers"]
    assert names(one, two) == ["Delta", "SkipTimesteps", "HoldLayers"]
    assert names(one, one) == ["Delta", "SkipTimesteps"]


# ---------------------------------------------------------------------------------------------------------- search


def test_everything() -> None:
    world = World(a=0.1, b=0.05, c=0.2)
    search = world.search()
    found = search.run([sweep("a"), sweep("b"), sweep("c", family="a")])
    keys = [s.candidate.key for s in found]
    assert keys[0] == ()
    assert len(set(keys)) == len(keys)
    assert all(len(s.outcome.losses) == N for s in found)
    assert all(count == 1 for count in world.runs.values())
    assert {key for key, n in world.runs if n == N} == set(keys)
    families = [[t.family for t, _ in s.candidate.choices] for s in found]
    assert all(len(set(f)) == len(f) for f in families)
    assert max(len(f) for f in families) == 2
    best = min((s for s in found if s.ratio <= 1), key=search.cost)
    assert best.candidate.families == {"a", "b"}
    finest = [(p, q) for p in np.linspace(0, 1, 25) for q in np.linspace(0, 1, 25)]
    possible = [
        world.run(Candidate(((sweep("a"), p), (sweep("b"), q))), N).macs_share
        for p, q in finest
        if 0.1 * sweep("a").strength(p) + 0.05 * sweep("b").strength(q) <= LIMIT
    ]
    assert search.cost(best) <= min(possible) * 1.1


def test_hopeless_sweeps_end() -> None:
    world = World(bad=3.0, good=0.05)
    world.search().run([sweep("bad"), sweep("good")])
    tried = [key for key, n in world.runs if n == COARSE and len(key) == 1]
    assert [position for name, position in (k[0] for k in tried) if name == "bad"] == [0.0]
    assert len([1 for k in tried if k[0][0] == "good"]) == len(LEVELS)


def test_one_failure_is_not_hopeless() -> None:
    def run(candidate: Candidate, n: int) -> Outcome:
        found = outcome(0.0, 1 - 0.5 * bool(candidate.choices), n)
        found.losses[0] = bool(candidate.choices)
        return found

    search = Search(run, [0.005], N, lambda c: True, by_macs=True)
    found = search.run([sweep("a")])
    assert 1 / (COARSE * 0.005) > HOPELESS  # as the part of the split that is looked at first has it
    assert len(found) > 1


def test_nothing_but_hopeless_candidates() -> None:
    world = World(bad=9.0)
    found = world.search().run([sweep("bad")])
    assert [s.candidate.key for s in found] == [()]

    def lossy(candidate: Candidate, n: int) -> Outcome:  # as a model that was compressed too much
        return outcome(0.9, 1.0, n)

    search = Search(lossy, [LIMIT], N, lambda c: True, by_macs=True)
    assert [s.candidate.key for s in search.run([sweep("bad"), sweep("worse")])] == [()]


def test_what_cannot_act_together_is_not_tried() -> None:
    world = World(a=0.01, b=0.01)
    world.search(may=lambda c: len(c.choices) < 2).run([sweep("a"), sweep("b")])
    assert all(len(key) < 2 for key, _ in world.runs)


def test_too_few_early_leavers_rank_nowhere() -> None:
    world = World(a=0.01)
    few = lambda c, o: math.inf if any(p < 0.5 for _, p in c.choices) else 0.0  # noqa: E731
    search = world.search(worst_early_exit_ratio=few)
    found = search.run([sweep("a")])
    assert all(p >= 0.5 for s in search.order(found) for _, p in s.candidate.choices)
    assert any(key and key[0][1] == 0.0 for key, _ in world.runs)  # but their sweep goes on
    assert any(s.candidate.choices for s in search.order(found))


def test_no_candidate_is_refined_beyond_reach() -> None:
    world = World(a=0.3)
    near = world.search(certifiable_ratio=0.3).run([sweep("a")])
    far = World(a=0.3).search(certifiable_ratio=1.0).run([sweep("a")])
    ratios = [max((s.ratio for s in found if s.ratio <= 1), default=0) for found in (near, far)]
    assert ratios[0] <= ratios[1]


some = st.lists(st.tuples(st.sampled_from([0, 0.25, 0.5, 1, 3, math.inf]), st.integers(1, 40)), max_size=30)


@given(some)
def test_order(drawn_: list[tuple[float, int]]) -> None:
    search, points = World().search(), [scored(ratio, share / 40) for ratio, share in drawn_]
    order = search.order(points)
    ranks = [(s.ratio, -search.cost(s)) for s in order]
    assert ranks == sorted(set(ranks))
    assert all(not (o.ratio < s.ratio and search.cost(o) <= search.cost(s)) for s in order for o in points)
    assert all(math.isfinite(s.ratio) for s in order)
    assert max(Counter(s.ratio for s in order).values(), default=0) <= MAX_TIES
    worth = search.to_test(points)
    assert len(worth) <= MAX_TESTED
    assert [s for s in order if s in worth] == worth
    assert all(s.ratio <= 1 for s in worth)
    if points:
        search.table.learn(points[0].outcome.work, points[0].outcome.seconds)
        finite = [s for s in points if math.isfinite(s.ratio)]
        best = pareto_order([search.cost(s) for s in finite], [s.ratio for s in finite]).tolist() if finite else []
        front = {(finite[i].ratio, search.cost(finite[i])) for i in best}
        assert front <= {(s.ratio, search.cost(s)) for s in order}  # thinning keeps the cheapest of equal risk
