"""What skipping is worth on this machine: seconds per unit of work, learned from the timings of a calibration."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from .policies import parts, sites
from .runtime import AdaptiveLSTM
from .types import RunStats, StackShape

Doubles = npt.NDArray[np.float64]

FEATURES = ("call", "timestep", "held", "dense input", "dense recurrent", "sent input", "sent recurrent", "list", "ask")


def thresholded(lstm: AdaptiveLSTM) -> frozenset[tuple[int, str]]:
    """The operands, (pair, "x" or "h"), that an LSTM's policy asks about column by column."""
    columns = parts(lstm.policy).columns
    return frozenset((site.pair, site.operand) for site in sites(lstm.stack_shape) if columns.thresholded(site))


def work_of(shape: StackShape, listed: frozenset[tuple[int, str]], stats: RunStats) -> Doubles:
    """Work of one call in the units of ``FEATURES``: calls, row steps of layers, and multiply-accumulates.

    ``listed``: the operands whose columns are asked about one by one.
    """
    gates = 4 * shape.hidden_size
    out = dict.fromkeys(FEATURES, 0.0)
    out["call"] = 1.0
    for pair, c in enumerate(stats.columns):
        out["timestep"] += c.moved
        out["held"] += stats.timesteps - c.moved
        for name, operand, sent, possible in (
            ("input", "x", c.x_sent, c.x_possible),
            ("recurrent", "h", c.h_sent, c.h_possible),
        ):
            asked = (pair, operand) in listed
            out[("sent " if asked else "dense ") + name] += gates * sent
            out["list"] += possible * (c.ran / max(stats.timesteps, 1)) if asked else 0.0
    out["ask"] = stats.policy_macs
    return np.array(list(out.values()))


class Timed(Protocol):
    """What is learned from: ``seconds`` [n] and ``work`` [n, features] of n sequences."""

    @property
    def seconds(self) -> Doubles:
        """Of every sequence."""

    @property
    def work(self) -> Doubles:
        """Of every sequence, in the units of ``FEATURES``."""


class CostTable:
    """Seconds per unit of work on this machine, learned from the timings of all runs so far.

    Non-negative least squares over the means of every run. It smooths: on a shared machine single timings mislead, and
    candidates that do the same work get the same cost.
    """

    def __init__(self) -> None:
        self._work: list[Doubles] = []
        self._seconds: list[float] = []
        self.seconds_per_unit: Doubles = np.zeros(len(FEATURES))

    def learn(self, run: Timed) -> None:
        """Take one run into account."""
        seconds = np.minimum(run.seconds, 5 * np.median(run.seconds))  # an interruption is not the code's cost
        self._work.append(run.work.mean(0))
        self._seconds.append(float(seconds.mean()))

    def fit(self) -> None:
        """Learn from all runs; relative errors count."""
        seconds = np.array(self._seconds)
        matrix = np.array(self._work) / seconds[:, None]
        scale = np.maximum(np.abs(matrix).max(0), 1e-30)
        solution, _ = nnls(matrix / scale, np.ones(len(seconds)))
        self.seconds_per_unit = solution / scale

    def seconds(self, work: Doubles) -> float:
        """Mean seconds of sequences with this work [n, features]."""
        return float(work.mean(0) @ self.seconds_per_unit)
