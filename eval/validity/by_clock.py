"""The order in which ``calibrate`` tests candidates when it believes a clock, for candidates with known risks.

The finalists are picked, timed and put in order by ``calibrate``'s own code; only the clock is simulated. What it says
differs from what the search predicted, by family and from one measurement to the next, and no loss of the test split
has a part in it.
"""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from adaptive_lstm.calibration.candidates import Candidate, Settings
from adaptive_lstm.calibration.evaluation import Outcome
from adaptive_lstm.calibration.finalists import time_finalists
from adaptive_lstm.calibration.search import Scored
from adaptive_lstm.calibration.steps import Found, Run
from adaptive_lstm.calibration.time_budget import TimeBudget
from adaptive_lstm.calibration.time_share import TimeShare
from adaptive_lstm.policies import SkipTimesteps, Sweep

MIN_GAIN = 0.05
JITTER, QUARTILES = 0.03, 0.02  # of a measured time: spread of its median, and distance of its quartiles
SWEEPS = 3  # candidates take turns in belonging to so many families
OVERHEAD = (0.0, 0.15, 0.3)  # time that the policies of each family take themselves, as a share of the dense run

FloatArray = npt.NDArray[np.float64]


def true_time(cost: FloatArray) -> FloatArray:
    """[K] share of the time of candidates that leave a share ``cost`` of the work."""
    time: FloatArray = cost + np.array(OVERHEAD)[np.arange(len(cost)) % SWEEPS]
    return time


def order_by_clock(cost: FloatArray, estimate: FloatArray, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """Indices of the candidates to test, in their order.

    Args:
        cost: [K] share of the work, which is also what the search predicts of the time.
        estimate: [K] risk on the search split, as a multiple of its limit.
        rng: of the clock.
    """
    count = len(cost)
    sweeps = [Sweep(f"family {f}", f"family {f}", tuple(range(1, count + 1)), _settings) for f in range(SWEEPS)]
    place = [k / (count - 1) for k in range(count)]
    scored = [_scored(Candidate(((sweeps[k % SWEEPS], place[k]),)), cost[k], estimate[k]) for k in range(count)]
    time = true_time(cost)
    run = SimpleNamespace(
        compressed=False,
        names=["lstm"],
        bar=SimpleNamespace(note=lambda text: None),
        stopwatch=lambda use: SimpleNamespace(time=lambda settings: _measured(time[_index(settings)], rng)),
    )
    found = Found(scored, {s.candidate.key: float(c) for s, c in zip(scored, cost, strict=True)}, [])
    timed = time_finalists(cast(Run, run), found, "sequence", MIN_GAIN, TimeBudget(None))
    index = {s.candidate.key: k for k, s in enumerate(scored)}
    return np.array([index[s.candidate.key] for s in timed.found.front], dtype=np.intp)


def _settings(strength: float) -> Settings:
    """A policy that carries the number of its candidate."""
    return {"lstm": SkipTimesteps(cap=round(strength))}


def _index(settings: Settings) -> int:
    policy = settings["lstm"]
    assert isinstance(policy, SkipTimesteps)
    return policy.cap - 1


def _scored(candidate: Candidate, cost: float, ratio: float) -> Scored:
    outcome: Any = SimpleNamespace(macs_share=float(cost))
    return Scored(candidate, cast(Outcome, outcome), (float(ratio),), float(ratio), float(ratio))


def _measured(time: float, rng: np.random.Generator) -> TimeShare:
    median = float(time * np.exp(JITTER * rng.standard_normal()))
    low, high = median * (1 - QUARTILES), median * (1 + QUARTILES)
    return TimeShare(median, low, high, 15, use="sequence", threads=1, isa="simulated", cpu="simulated")
