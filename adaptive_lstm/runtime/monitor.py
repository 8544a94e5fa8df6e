"""Watching a calibrated LSTM at work: does it still skip as it did when its certificate was made?

A certificate holds for inputs like those of the calibration. Whether inputs have changed shows in how much is
skipped, without labels: a mean over recent sequences that lies far outside what calibration saw raises one warning. A
stream that never ends is looked at while it runs.
"""

from __future__ import annotations

import math
import operator
import warnings
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from ..codec import short_repr
from ..types import ColumnCounts, Counts, RunStats, activity, ran

WINDOW = 64  # sequences that a mean is taken over
EVERY = 16  # sequences between two checks of it
LOOK = 256  # timesteps of a running stream between two looks at it
STRETCH, ENOUGH = 16, 4  # looks that a mean is taken over, and those that it takes at least
STREAM_WORTH = 4  # sequences that a running stream counts as: one source varies less than many, and may lie off centre
WIDTH = 5.0  # standard errors that a mean may be off; rare exits come in heavy tails
SLACK = 0.02  # and this much more


class DriftWarning(UserWarning):
    """The inputs make an LSTM skip more or less than in calibration, so its certificate may not hold for them."""


@dataclass(frozen=True)
class Range:
    """Mean and standard deviation of a rate in 0..1 over the ``count`` runs of a calibration."""

    mean: float
    deviation: float
    count: int

    @staticmethod
    def of(values: npt.NDArray[np.float64]) -> Range:
        """From one value per run; a quarter joins the sum of squares, as what never varied yet may do so later."""
        squares = float(((values - values.mean()) ** 2).sum())
        return Range(float(values.mean()), math.sqrt((0.25 + squares) / (len(values) + 1)), len(values))

    def holds(self, mean: float, count: int) -> bool:
        """Whether the mean over ``count`` other runs agrees with this range."""
        return abs(mean - self.mean) <= WIDTH * self.deviation * math.sqrt(1 / count + 1 / self.count) + SLACK


@dataclass(frozen=True)
class Rates:
    """The watched rates, each in 0..1.

    ``activity``: share of columns that were computed.
    ``ran``: share of the layers' timesteps with any matrix work.
    ``exits``: share of rows that exited.
    ``strain``: at the seams of split sequences, how far warmed-up states were from what is tolerated (``Seams``).
    """

    activity: float
    ran: float
    exits: float
    strain: float = 0.0


RATES = tuple(field.name for field in fields(Rates))


def rates_of(counts: Counts | RunStats, timesteps: int, rows: int) -> tuple[float, ...]:
    """``RATES`` of a run of so many batch rows times timesteps, of ``rows`` sequences."""
    exits = counts.exits / max(rows, 1)
    return activity(counts.columns), ran(counts.columns, timesteps), exits, counts.seams.mean_strain


@short_repr
@dataclass(frozen=True)
class MonitorStatus:
    """What a monitor has seen.

    ``seen``: sequences so far.
    ``recent``: mean rates of the last 64; None before the first.
    ``expected``: ranges of the rates in calibration.
    ``outside``: names of the rates that are out of range.
    """

    seen: int
    recent: Rates | None
    expected: Mapping[str, Range]
    outside: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether all rates are within their ranges; True until enough sequences were seen."""
        return not self.outside


class Monitor:
    """Compares the runs of one LSTM with the calibrated ranges; warns once.

    Args:
        expected: range of the ``Rates`` per run, by name, as calibration saw them.
    """

    def __init__(self, expected: Mapping[str, Range]):
        self.expected = dict(expected)
        self.warned = False
        self._seen = 0
        self._checked = 0
        self._recent: deque[tuple[float, ...]] = deque(maxlen=WINDOW)

    def see(self, counts: Counts, timesteps: int, rows: int) -> None:
        """Take one run into account: what it counted in so many batch rows times timesteps, of ``rows`` sequences."""
        active, run, exits, strain = rates_of(counts, timesteps, rows)
        self.take(active, run, exits, rows, strain)

    def take(self, activity: float, ran: float, exits: float, rows: int, strain: float = 0.0) -> None:
        """Take the rates of one run of ``rows`` sequences into account."""
        self._seen += rows
        one = activity, ran, exits, strain
        if rows == 1:
            self._recent.append(one)
        else:
            self._recent.extend([one] * min(rows, WINDOW))
        if self.warned or self._seen < max(WINDOW, self._checked + EVERY):
            return
        self._checked = self._seen
        status = self.status
        if status.recent is not None and status.outside:
            found = {name: getattr(status.recent, name) for name in status.outside}
            self._warn(f"over the last {WINDOW} sequences", found)

    def watch(self, rows: int) -> StreamWatch:
        """Looks at a stream of so many rows while it runs."""
        return StreamWatch(self.expected, rows, self._warn)

    def _warn(self, where: str, found: Mapping[str, float]) -> None:
        """Warn of rates outside their range, once."""
        if self.warned:
            return
        self.warned = True
        off = ", ".join(
            f"{name} {rate:.3f} (calibrated {self.expected[name].mean:.3f})" for name, rate in found.items()
        )
        warnings.warn(
            f"adaptive_lstm: {where} the LSTM skips unlike in calibration: {off}. The inputs have changed, and the "
            "certificate may not hold for them; calibrate again on recent inputs, or set policy = Dense().",
            DriftWarning,
            stacklevel=3,
        )

    @property
    def status(self) -> MonitorStatus:
        """What was seen so far."""
        if not self._recent:
            return MonitorStatus(0, None, self.expected, ())
        recent = Rates(*(float(v) for v in np.mean(self._recent, axis=0)))
        enough = self._seen >= WINDOW
        outside = tuple(
            name
            for name, expected in self.expected.items()
            if enough and not expected.holds(getattr(recent, name), len(self._recent))
        )
        return MonitorStatus(self._seen, recent, self.expected, outside)


class StreamWatch:
    """Looks at one running stream every LOOK timesteps.

    It tells of more work than in calibration only: sequences of a calibration start anew, and a start sends everything,
    so a long stream may well do less. What a stream did in all is compared at its end.

    Args:
        expected: as for ``Monitor``.
        rows: of the stream.
        warn: called with where and which rates are too high.
    """

    def __init__(self, expected: Mapping[str, Range], rows: int, warn: Callable[[str, Mapping[str, float]], None]):
        self._rows = rows
        self._expected = {name: one for name, one in expected.items() if name in ("activity", "ran")}
        self._warn = warn
        self._before: tuple[int, tuple[ColumnCounts, ...]] = (0, ())
        self._recent: deque[tuple[float, float]] = deque(maxlen=STRETCH)

    def look(self, counts: Counts, timesteps: int) -> None:
        """What was counted since the stream was opened or reset, in so many batch rows times timesteps."""
        before, columns = self._before
        self._before = timesteps, counts.columns
        if timesteps <= before:  # it was reset
            self._recent.clear()
            return
        start = columns or (ColumnCounts(0, 0, 0, 0, 0, 0),) * len(counts.columns)
        done = [ColumnCounts(*map(operator.sub, now, old)) for now, old in zip(counts.columns, start, strict=True)]
        one = (activity(done), ran(done, timesteps - before))
        self._recent.extend([one] * min(round((timesteps - before) / (LOOK * self._rows)), STRETCH))
        if len(self._recent) < ENOUGH:
            return
        means = dict(zip(("activity", "ran"), np.mean(self._recent, axis=0).tolist(), strict=True))
        high = {
            name: means[name]
            for name, one in self._expected.items()
            if means[name] > one.mean and not one.holds(means[name], STREAM_WORTH)
        }
        if high:
            self._warn(f"in the last {len(self._recent) * LOOK:,} timesteps of a stream", high)
