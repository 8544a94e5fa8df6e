"""The cost table: it recovers what made the timings, stands noise, and counts the work that there is."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import adaptive_lstm as al
from adaptive_lstm.calibration.evaluation import Evaluator
from adaptive_lstm.calibration.latency_model import FEATURES, CostTable, Work

from ..support.small_task import adapted_classifier, drawn

UNITS = np.array([3e-5, 1e-6, 2e-7, 2e-6, 5e-7, 1e-10, 2e-10, 1e-10, 3e-10, 1e-10, 2e-10, 1e-10])


@dataclass
class Run:
    """Timings of sequences and their work."""

    seconds: npt.NDArray[np.float64]
    work: npt.NDArray[np.float64]


def random_run(rng: np.random.Generator, noise: float = 0.0, n: int = 20) -> Run:
    typical = np.array([1, 100, 50, 10, 100, 1e5, 1e5, 1e5, 1e5, 1e4, 1e4, 1e5])
    work = rng.random(len(FEATURES)) * typical * rng.uniform(0.9, 1.1, (n, len(FEATURES)))
    work[:, FEATURES.index("call")] = 1
    seconds = work @ UNITS * np.exp(noise * rng.standard_normal(n))
    return Run(seconds, work)


def test_the_cost_table_recovers_what_made_the_timings() -> None:
    rng, table = np.random.default_rng(0), CostTable()
    for _ in range(60):
        run = random_run(rng)
        table.learn(run.work, run.seconds)
    table.fit()
    np.testing.assert_allclose(table.seconds_per_unit, UNITS, rtol=1e-6)
    new = random_run(rng)
    assert table.seconds(new.work) == pytest.approx(new.seconds.mean(), rel=1e-6)


def test_the_cost_table_stands_noise_and_interruptions() -> None:
    rng, table = np.random.default_rng(1), CostTable()
    for _ in range(150):
        run = random_run(rng, noise=0.1)
        run.seconds[rng.integers(20)] *= 1000
        table.learn(run.work, run.seconds)
    table.fit()
    assert (table.seconds_per_unit >= 0).all()
    errors = [table.seconds(r.work) / r.seconds.mean() - 1 for r in (random_run(rng) for _ in range(50))]
    assert np.std(errors) < 0.1


@given(st.integers(0, 10_000), st.integers(0, len(FEATURES) - 1), st.floats(1, 100))
def test_more_work_never_costs_less(seed: int, feature: int, times: float) -> None:
    rng, table = np.random.default_rng(seed), CostTable()
    for _ in range(5):
        run = random_run(rng, noise=0.5)
        table.learn(run.work, run.seconds)
    table.fit()
    work = random_run(rng).work
    more = work.copy()
    more[:, feature] *= times
    assert table.seconds(more) >= table.seconds(work)


def test_equal_work_costs_the_same() -> None:
    rng, table = np.random.default_rng(2), CostTable()
    run = random_run(rng)
    for one in (run, replace(run, seconds=run.seconds * 3), random_run(rng)):
        table.learn(one.work, one.seconds)
    table.fit()
    assert table.seconds(run.work) == pytest.approx(table.seconds(run.work[::-1]), rel=1e-12)
    assert table.seconds(run.work) > 0


def test_work_is_counted() -> None:
    model, data = adapted_classifier(2), drawn(3)
    evaluator = Evaluator(model, {"lstm": model.lstm}, [])
    items = evaluator.label(data)
    shape, steps = model.lstm.stack_shape, 8
    dense = Work(*evaluator.run({"lstm": al.Dense()}, items).work[0])
    assert dense.call == 1
    assert dense.timestep == 2 * steps
    macs = steps * sum(shape.step_macs(cell) for cell in range(2))
    assert dense.dense_input + dense.dense_recurrent == macs
    assert dense.sent_input == dense.sent_recurrent == dense.listed == dense.policy == dense.held == 0
    delta = evaluator.run({"lstm": al.Delta.uniform(0.05)}, items)
    first = Work(*delta.work[0])
    assert first.dense_input == 4 * 6 * 3 * steps  # the raw features of the first layer
    assert first.dense_recurrent == 0
    assert first.listed == steps * (6 + 6 + 6)
    assert first.dense_input + first.sent_input + first.sent_recurrent == delta.macs[0]
    skip = evaluator.run({"lstm": al.SkipTimesteps(x_share=0.9, mode="hold_state")}, items)
    assert all(Work(*w).timestep + Work(*w).held == 2 * steps for w in skip.work)
    exits = evaluator.run({"lstm": al.ExitInTime(model.head, threshold=0.0, check_every=3)}, items)
    assert exits.exit_times.tolist() == [3, 3, 3]
    assert torch.equal(torch.tensor(exits.rates["lstm"][:, 2]), torch.ones(3, dtype=torch.float64))
    both = al.Combined(
        al.ExitInTime(model.head, threshold=0.0, check_every=3), al.SkipTimesteps(x_share=1e6, mode="hold_state")
    )
    assert evaluator.run({"lstm": both}, items).exit_times.tolist() == [3, 3, 3]  # skipped timesteps pass too
