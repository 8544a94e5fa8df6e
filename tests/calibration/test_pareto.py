"""The order of tests: the Pareto front, ties kept for safety, and the few that are worth a test."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive_lstm.calibration.pareto import MAX_TESTED, MAX_TIES, order_to_test, pareto_order, spread_by_cost
from adaptive_lstm.errors import CalibrationError

points = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=30)


@given(points)
def test_pareto_keeps_exactly_what_nothing_beats(candidates: list[tuple[int, int]]) -> None:
    cost, risk = (np.array(column) for column in zip(*candidates, strict=True))
    front = pareto_order(cost, risk)
    assert (np.diff(risk[front]) > 0).all()
    assert (np.diff(cost[front]) < 0).all()
    beaten = ((cost[None] <= cost[:, None]) & (risk[None] <= risk[:, None])
              & ((cost[None] < cost[:, None]) | (risk[None] < risk[:, None]))).any(1)  # fmt: skip
    assert set(zip(cost[front], risk[front], strict=True)) == set(zip(cost[~beaten], risk[~beaten], strict=True))


def test_pareto_of_equal_candidates_is_the_first() -> None:
    assert pareto_order([1, 1, 2], [0.5, 0.5, 0.1]).tolist() == [2, 0]


@given(points, st.integers(1, 8))
def test_ties_add_dearer_candidates_of_the_same_risk(candidates: list[tuple[int, int]], ties: int) -> None:
    cost, risk = (np.array(column) for column in zip(*candidates, strict=True))
    strict, front = pareto_order(cost, risk), pareto_order(cost, risk, max_ties=ties)
    assert set(strict) <= set(front)
    assert sorted(front, key=lambda k: (risk[k], -cost[k])) == front.tolist()
    for k in front:
        same = risk[front] == risk[k]
        assert same.sum() <= ties
        assert not ((risk < risk[k]) & (cost <= cost[k])).any()
        assert (cost[front][same] == cost[k]).sum() == 1


def test_costs_are_spread_at_equal_ratios() -> None:
    cost = np.array([64.0, 60, 32, 16, 8, 4, 2, 1])
    assert cost[spread_by_cost(cost, 4)].tolist() == [64, 16, 4, 1]
    assert cost[spread_by_cost(cost, 1)].tolist() == [1]
    assert spread_by_cost(cost, 8).tolist() == list(range(8))
    assert spread_by_cost(np.zeros(0), 3).tolist() == []


@given(st.lists(st.tuples(st.integers(0, 40), st.sampled_from([0, 0.25, 0.5, 1, 3, math.inf])), max_size=60))
def test_the_few_worth_a_test(candidates: list[tuple[int, float]]) -> None:
    cost, ratio = np.array([c for c, _ in candidates]), np.array([r for _, r in candidates])
    order = order_to_test(cost, ratio)
    assert len(order) <= MAX_TESTED
    assert (ratio[order] <= 1).all()
    assert bool(len(order)) == bool((ratio <= 1).any())
    if len(order):
        front = pareto_order(cost[ratio <= 1], ratio[ratio <= 1], max_ties=MAX_TIES)
        assert cost[order[-1]] == cost[ratio <= 1][front].min() == cost[ratio <= 1].min()  # the cheapest comes last


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pareto_order([], []), "got cost"),
        (lambda: pareto_order([1, 2], [0.1]), r"\(2,\) and risk \(1,\)"),
        (lambda: pareto_order([1, math.inf], [0.1, 0.2]), "not finite"),
    ],
)
def test_bad_input_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        call()


def test_of_a_tie_only_the_more_careful_of_the_same_families_stay() -> None:
    """Another family that costs more is not more careful; what skips nothing is."""
    cost, risk = [1.0, 0.9, 0.8, 0.5, 0.4, 0.3], [0.0, 0.0, 0.0, 0.0, 0.0, 0.5]
    families = [frozenset(), *map(frozenset, ({"exit"}, {"hold"}, {"exit"}, {"hold"}, {"exit", "hold"}))]
    assert pareto_order(cost, risk, max_ties=6).tolist() == [0, 1, 2, 3, 4, 5]
    assert pareto_order(cost, risk, max_ties=6, families=families).tolist() == [0, 2, 4, 5]
    assert order_to_test(cost, risk, families).tolist() == [0, 2, 4, 5]
