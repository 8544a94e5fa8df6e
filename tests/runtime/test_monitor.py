"""The monitor: quiet on what calibration saw, one warning on what it did not, and no trace in anything else."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import adaptive_lstm as al
from adaptive_lstm.runtime.monitor import ENOUGH, EVERY, LOOK, WINDOW, Monitor, Range
from adaptive_lstm.types import Counts, StackShape

from ..support.helpers import infer
from ..support.small_task import adapted_classifier, drawn

SHAPE = StackShape(3, 4, 1)
Draw = Callable[[int], np.ndarray]
RNG = np.random.default_rng(0)


STEPS = 100


def run_of(exits: int, activity: float = 1.0) -> Counts:
    """What a run of STEPS timesteps counts with this many exits, and all columns sent or that share."""
    counts = replace(Counts.dense(SHAPE, STEPS), exits=exits)
    columns = tuple(
        c._replace(x_sent=round(activity * c.x_possible), h_sent=round(activity * c.h_possible)) for c in counts.columns
    )
    return replace(counts, columns=columns)


def calibrated() -> Any:
    """A classifier with a certified policy and its monitor."""
    model = adapted_classifier()
    asked: dict[str, Any] = {"loss": al.losses.disagreement, "max_loss": 0.1, "confidence": 0.9, "objective": "macs"}
    families = [al.Family(al.SkipTimesteps), al.Family(al.ExitInTime, head=model.head, check_every=2)]
    result = al.calibrate(model, drawn(300), **asked, policies=families, progress=False)
    assert result.certified
    return result.apply(model, force=True)


@pytest.fixture(scope="module")
def model() -> Any:
    return calibrated()


def served(model: Any) -> Any:
    """A fresh copy."""
    return copy.deepcopy(model)


def serve(model: Any, inputs: list[torch.Tensor]) -> None:
    for x in inputs:
        infer(model, x)


def test_ranges_by_hand() -> None:
    found = Range.of(np.array([0.0, 1.0, 0.5, 0.5]))
    assert (found.mean, found.count) == (0.5, 4)
    assert found.deviation == pytest.approx(np.sqrt((0.25 + 0.5) / 5))
    allowed = 5 * found.deviation * np.sqrt(1 / 16 + 1 / 4) + 0.02
    assert found.holds(0.5 + 0.99 * allowed, 16)
    assert not found.holds(0.5 - 1.01 * allowed, 16)
    never = Range.of(np.zeros(60))
    assert never.holds(3 / 64, 64)
    assert not never.holds(0.5, 64)


def test_inputs_like_those_of_the_calibration(model: Any) -> None:
    fast = served(model)
    serve(fast, [x for x, _ in drawn(1000, seed=50)])
    status = fast.lstm.monitor.status
    assert status.seen == 1000
    assert status.ok
    assert status.recent.exits == pytest.approx(status.expected["exits"].mean, abs=0.2)
    assert not fast.lstm.monitor.warned


@pytest.mark.parametrize("drift", ["noise", "clear"])
def test_other_inputs(model: Any, drift: str) -> None:
    fast = served(model)
    torch.manual_seed(1)
    clear = torch.tensor([2.0, 0.0, 0.0]).expand(1, 8, 3)
    other = [4 * torch.randn(1, 8, 3) if drift == "noise" else clear for _ in range(200)]
    with pytest.warns(al.DriftWarning, match="calibrate again") as caught:
        serve(fast, other)
    assert len(caught) == 1
    status = fast.lstm.monitor.status
    assert not status.ok
    assert status.outside
    assert all(name in str(caught[0].message) for name in status.outside)
    assert fast.lstm.monitor.warned
    serve(fast, [x for x, _ in drawn(WINDOW, seed=51)])  # no second warning; the status comes back
    assert fast.lstm.monitor.status.ok


def test_what_ends_and_what_keeps_a_monitor(model: Any) -> None:
    fast = served(model)
    for x, _ in drawn(10, seed=52):
        infer(fast, x)
    assert fast.lstm.monitor.status.seen == 10
    assert not [key for key in fast.state_dict() if "monitor" in key or "policy" in key]
    for twin in (copy.deepcopy(fast.lstm), pickle.loads(pickle.dumps(fast.lstm))):  # both go their own ways
        infer(twin, drawn(1)[0][0])
        assert (twin.monitor.status.seen, fast.lstm.monitor.status.seen) == (11, 10)
        assert type(twin.policy) is type(fast.lstm.policy)
    fast.load_state_dict(fast.state_dict())
    assert fast.lstm.monitor.status.seen == 10
    data = [x for x, _ in drawn(8)]
    al.measure_sensitivity(fast, data)
    al.fit_translators(fast, data)
    assert fast.lstm.monitor.status.seen == 10  # a pass over calibration inputs is no use
    fast.lstm.policy = fast.lstm.policy
    assert fast.lstm.monitor is None
    infer(fast, data[0])


def test_nothing_seen_yet() -> None:
    status = Monitor({"activity": Range(0.5, 0.1, 100)}).status
    assert (status.seen, status.recent, status.outside, status.ok) == (0, None, (), True)


def test_it_waits_for_a_window_and_looks_now_and_then() -> None:
    monitor = Monitor({"exits": Range.of(np.ones(200))})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(WINDOW - 1):
            monitor.see(run_of(0), STEPS, rows=1)
    assert monitor.status.ok
    with pytest.warns(al.DriftWarning, match=r"exits 0.000 \(calibrated 1.000\)"):
        monitor.see(run_of(0), STEPS, rows=1)
    assert EVERY < WINDOW


def test_batches_count_by_rows() -> None:
    monitor = Monitor({"exits": Range.of(RNG.integers(0, 2, 400).astype(float))})
    for _ in range(30):
        monitor.see(run_of(exits=16), STEPS, rows=32)
    status = monitor.status
    assert (status.seen, status.ok) == (960, True)
    assert status.recent is not None
    assert status.recent.exits == 0.5


RATES: dict[str, Draw] = {
    "rare": lambda n: (RNG.random(n) < 0.02).astype(float),
    "rarer": lambda n: (RNG.random(n) < 0.005).astype(float),
    "even": lambda n: (RNG.random(n) < 0.5).astype(float),
    "spread": lambda n: RNG.random(n),
    "narrow": lambda n: RNG.beta(50, 150, n),
    "skewed": lambda n: RNG.beta(0.2, 2, n),
}


@pytest.mark.parametrize("name", RATES)
def test_false_alarms_are_rare(name: str) -> None:
    """Over 1,000 sequences like those of a calibration with 60 to 300: a false alarm in at most 5 % of the cases."""
    draw, alarms, repeats = RATES[name], 0, 400
    for count in (60, 150, 300):
        for _ in range(repeats):
            expected, rates = Range.of(draw(count)), draw(1000)
            sums = np.concatenate([[0], np.cumsum(rates)])
            ends = np.arange(WINDOW, 1001, EVERY)
            means = (sums[ends] - sums[ends - WINDOW]) / WINDOW
            alarms += not all(expected.holds(float(mean), WINDOW) for mean in means)
    assert alarms / (3 * repeats) < 0.05


@pytest.mark.parametrize("shift", [0.3, 0.6])
def test_drift_is_found(shift: float) -> None:
    expected = Range.of(RATES["narrow"](200))
    assert not expected.holds(0.25 + shift, WINDOW)


def streaming(expected: dict[str, Range], batch: int = 1) -> al.Stream:
    """A stream of an LSTM whose policy a calibration would have watched so."""
    torch.manual_seed(0)
    lstm = al.AdaptiveLSTM(6, 24, 2).eval()
    lstm.plan = replace(lstm.plan, policy=al.Delta.uniform(0.002), expected_rates=expected)
    return al.stream(lstm, batch_size=batch)


def frames(count: int, speed: float, batch: int = 1) -> torch.Tensor:
    """Features [T, B, I] that change by about so much per timestep."""
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(count, batch, 6, generator=generator) * speed).cumsum(0).sin()


def feed(stream: al.Stream, x: torch.Tensor, chunk: int) -> None:
    """Advance by x [T, B, I] in chunks; 0: step by step."""
    for part in x.split(chunk or 1):
        if chunk:
            stream.run(part)
        else:
            stream.step(part[0])


CALM = {"activity": Range(0.18, 0.05, 300), "ran": Range(1.0, 0.0, 300), "exits": Range(0.0, 0.0, 300)}


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("chunk", [0, 1, 50, 3000])
def test_a_stream_that_never_ends_is_looked_at(chunk: int, batch: int) -> None:
    stream = streaming(CALM, batch)
    with pytest.warns(al.DriftWarning, match=r"timesteps of a stream .* activity 0\.\d+ \(calibrated 0.180\)") as told:
        feed(stream, frames(6000, 1.0, batch), chunk)
    assert len(told) == 1


def test_a_change_late_in_a_stream_is_seen() -> None:
    stream = streaming(CALM)
    for x in frames(3000, 0.001):  # hardly anything moves: less work than in calibration is no alarm while it runs
        stream.step(x)
    with pytest.warns(al.DriftWarning):
        feed(stream, frames(5000, 1.0), 0)


def test_a_stream_as_calibrated_stays_quiet() -> None:
    with streaming({"activity": Range(1.0, 0.05, 300)}) as stream:  # more than all cannot be
        for x in frames(3000, 1.0):
            stream.step(x)
        stream.reset()
        stream.run(frames(2000, 1.0))
        stream.state = stream.state
        stream.run(frames(2000, 1.0))


def test_looks_at_a_sequence_that_has_ended_do_not_count() -> None:
    stream, x = streaming(CALM), frames(ENOUGH * LOOK, 1.0)
    stream.run(x[:LOOK])
    for part in x[LOOK:].split(LOOK):
        stream.run(part)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stream.reset()
        stream.run(x[:LOOK])
        stream.run(x[:LOOK])  # the first of the new sequence are looked at
    with pytest.warns(al.DriftWarning):
        feed(stream, frames(2 * ENOUGH * LOOK, 1.0), LOOK)
