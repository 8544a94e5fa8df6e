"""Simulated certificates: false as rarely as promised, also where the clock decides what is tested."""

from __future__ import annotations

import numpy as np
import pytest

from eval.validity import __main__ as validity
from eval.validity.by_clock import MIN_GAIN, order_by_clock, true_time


def test_the_clock_decides_what_is_tested_and_in_which_order() -> None:
    family = validity.families()["curve"]
    estimate = family.ratio(1)
    order = order_by_clock(family.cost, estimate, np.random.default_rng(0))
    assert len(order) == len(set(order)) > 3
    assert (estimate[order] <= 1).all()
    assert (np.diff(estimate[order]) >= 0).all()  # the most careful first
    time = true_time(family.cost)
    assert (time[order] < 1).all()
    assert time[order[-1]] < time[order[0]]
    slow = np.flatnonzero((time > 1 + MIN_GAIN) & (estimate <= 1))
    assert slow.size  # some keep the limit, save work, and cost time
    assert not set(slow) & set(order)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["curve", "edge"])
@pytest.mark.parametrize("kinds", ["0/1", "0/1 and heavy"])
def test_certificates_by_the_clock_are_false_as_rarely_as_promised(name: str, kinds: str) -> None:
    family, losses, rng = validity.families()[name], validity.CASES[kinds], np.random.default_rng(0)
    outcomes = [validity.calibrate_once(family, losses, rng, by_time=True) for _ in range(200)]
    saving = 1 - true_time(family.cost)
    for row in validity.summarise(family.ratio(len(losses)), saving, outcomes):
        assert row["verdict"] == "PASS", row
        assert name == "edge" or row["certified"] > 0.5  # type: ignore[operator]
