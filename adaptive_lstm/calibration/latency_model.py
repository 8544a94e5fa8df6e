"""What skipping is worth on this machine: seconds per unit of work, learned from the timings of a calibration."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy  # as in risk.py

from ..policies import parts
from ..runtime.lstm import AdaptiveLSTM
from ..types import DoubleArray, RunStats, StackShape, sites

FEATURES = (
    *("call", "timestep", "held", "chunk", "watched"),
    *("dense input", "dense recurrent", "sent input", "sent recurrent", "list", "ask"),
)
CHUNK = 64  # timesteps whose input side the native core computes at once where nothing stands in the profile


@dataclass(frozen=True)
class ExecutionProfile:
    """How a policy makes a stack run, as far as it costs time whatever is skipped.

    ``listed``: the operands, (cell, "x" or "h"), whose columns are asked about one by one; ``chunk``: timesteps whose
    input side is computed at once; ``watched``: whether layers are asked at every timestep if they may be held.
    """

    listed: frozenset[tuple[int, str]]
    chunk: int
    watched: bool

    @staticmethod
    def of(lstm: AdaptiveLSTM) -> ExecutionProfile:
        """That of an LSTM's policy."""
        policy = parts(lstm.policy)
        listed = ((s.cell, s.operand) for s in sites(lstm.stack_shape) if policy.columns.thresholded(s))
        chunk = min(CHUNK, policy.time_exit.check_every) if policy.time_exit else CHUNK
        return ExecutionProfile(frozenset(listed), chunk, bool(policy.hold))


def work_of(shape: StackShape, profile: ExecutionProfile, stats: RunStats) -> DoubleArray:
    """Work of one call in the units of ``FEATURES``: calls, row steps and chunks of layers, multiply-accumulates."""
    gates = 4 * shape.hidden_size
    out = dict.fromkeys(FEATURES, 0.0)
    out["call"] = 1.0
    for cell, c in enumerate(stats.columns):
        out["timestep"] += c.advanced
        out["held"] += stats.timesteps - c.advanced
        out["chunk"] += math.ceil(c.ran / profile.chunk)
        out["watched"] += c.ran if profile.watched else 0.0
        for name, operand, sent, possible in (
            ("input", "x", c.x_sent, c.x_possible),
            ("recurrent", "h", c.h_sent, c.h_possible),
        ):
            asked = (cell, operand) in profile.listed
            out[("sent " if asked else "dense ") + name] += gates * sent
            out["list"] += possible * (c.ran / max(stats.timesteps, 1)) if asked else 0.0
    out["ask"] = stats.policy_macs
    return np.array(list(out.values()))


class Timed(Protocol):
    """What is learned from: ``seconds`` [n] and ``work`` [n, features] of n sequences."""

    @property
    def seconds(self) -> DoubleArray:
        """Of every sequence."""

    @property
    def work(self) -> DoubleArray:
        """Of every sequence, in the units of ``FEATURES``."""


class CostTable:
    """Seconds per unit of work on this machine, learned from the timings of all runs so far.

    Non-negative least squares over the means of every run. It smooths: on a shared machine single timings mislead, and
    candidates that do the same work get the same cost.
    """

    def __init__(self) -> None:
        self._work: list[DoubleArray] = []
        self._seconds: list[float] = []
        self.seconds_per_unit: DoubleArray = np.zeros(len(FEATURES))

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
        solution, _ = scipy.optimize.nnls(matrix / scale, np.ones(len(seconds)))
        self.seconds_per_unit = solution / scale

    def seconds(self, work: DoubleArray) -> float:
        """Mean seconds of sequences with this work [n, features]."""
        return float(work.mean(0) @ self.seconds_per_unit)
