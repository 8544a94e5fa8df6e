"""Predicted latency: seconds per unit of work on this machine, learned from the timings of a calibration."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy  # its submodules load at first use, as in risk.py

from ..policies import parts
from ..runtime.lstm import AdaptiveLSTM
from ..types import DoubleArray, RunStats, StackShape, sites

CHUNK = 64  # timesteps whose input side the native core computes at once where nothing prevents it


class Work(NamedTuple):
    """Work of an LSTM, in everything that takes time.

    Attributes:
        call: calls of the stack.
        timestep: timesteps at which a cell advanced its state.
        held: timesteps at which a cell was held.
        chunk: times that a cell computed the input side of several timesteps at once.
        watched: timesteps that ran in a cell which might have been held.
        dense_input: multiply-accumulates of W_ih where all columns are computed.
        dense_recurrent: the same of W_hh.
        sent_input: multiply-accumulates of W_ih where columns are chosen one by one.
        sent_recurrent: the same of W_hh.
        listed: columns that were checked one by one.
        policy: multiply-accumulates of the policy itself.
        side_by_side: all multiply-accumulates of sequences that were split in time.
    """

    call: float = 0.0
    timestep: float = 0.0
    held: float = 0.0
    chunk: float = 0.0
    watched: float = 0.0
    dense_input: float = 0.0
    dense_recurrent: float = 0.0
    sent_input: float = 0.0
    sent_recurrent: float = 0.0
    listed: float = 0.0
    policy: float = 0.0
    side_by_side: float = 0.0

    @staticmethod
    def total(calls: Iterable[Work]) -> Work:
        """Of several calls together."""
        return Work(*map(sum, zip(Work(), *calls, strict=True)))


FEATURES = Work._fields


@dataclass(frozen=True)
class ExecutionProfile:
    """How a policy makes a stack run, as far as that takes time whatever is skipped.

    Attributes:
        listed: the operands, (cell, "x" or "h"), whose columns are checked one by one.
        chunk: timesteps whose input side is computed at once.
        watched: whether layers may be held, and are checked for it at every timestep.
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


def work_of(shape: StackShape, profile: ExecutionProfile, stats: RunStats) -> Work:
    """Work of one call."""
    if stats.seams.number:
        return Work(call=1.0, side_by_side=float(stats.macs))
    gates = 4 * shape.hidden_size
    out = dict.fromkeys(FEATURES, 0.0)
    for cell, c in enumerate(stats.columns):
        out["timestep"] += c.advanced
        out["held"] += stats.timesteps - c.advanced
        out["chunk"] += math.ceil(c.ran / profile.chunk)
        out["watched"] += c.ran if profile.watched else 0.0
        for side, operand, sent, possible in (
            ("input", "x", c.x_sent, c.x_possible),
            ("recurrent", "h", c.h_sent, c.h_possible),
        ):
            listed = (cell, operand) in profile.listed
            out[("sent_" if listed else "dense_") + side] += gates * sent
            out["listed"] += possible * (c.ran / max(stats.timesteps, 1)) if listed else 0.0
    return Work(**out)._replace(call=1.0, policy=float(stats.policy_macs))


class CostTable:
    """Seconds per unit of work on this machine, learned from the timings of all runs so far.

    Non-negative least squares over the means of every run. This smooths: on a shared machine single timings mislead,
    and candidates that do the same work get the same cost.
    """

    def __init__(self) -> None:
        self._work: list[DoubleArray] = []
        self._seconds: list[float] = []
        self.seconds_per_unit: DoubleArray = np.zeros(len(FEATURES))

    def learn(self, work: DoubleArray, seconds: DoubleArray) -> None:
        """Take one run into account: work [n, features], the fields of ``Work``, and seconds [n] of its sequences."""
        self._work.append(work.mean(0))
        # An interruption is not the code's cost.
        self._seconds.append(float(np.minimum(seconds, 5 * np.median(seconds)).mean()))

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
