"""What a demo found out, as plain values that a table, a figure or a JSON record can be made of."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..bench import Ratio, Timing


@dataclass(frozen=True)
class Row:
    """One contender.

    score: quality on the test inputs, see `Task.score`; agreement: with the original on the same inputs.
    activity: share of the multiply-accumulates of a dense run that were done, 0 to 1.
    sequence, step: seconds for a whole sequence in one call, and for one step of a stream.
    sequence_gain, step_gain: how many times as long the original takes.
    """

    name: str
    score: float
    agreement: float
    activity: float
    sequence: Timing
    step: Timing
    sequence_gain: Ratio
    step_gain: Ratio

    def as_dict(self) -> dict[str, object]:
        """Plain numbers for a JSON record; times in seconds."""
        plain: dict[str, object] = {"name": self.name, "score": self.score, "agreement": self.agreement}
        timed = {name: getattr(self, name).as_dict() for name in ("sequence", "step", "sequence_gain", "step_gain")}
        return {**plain, "activity": self.activity, **timed}


@dataclass(frozen=True)
class Trial:
    """One threshold of the grid: agreement on the fit inputs, which decides; score and the rest on the test inputs."""

    tau: float
    fit_agreement: float
    score: float
    activity: float
    sequence: Timing

    def as_dict(self) -> dict[str, object]:
        """Plain numbers for a JSON record; times in seconds."""
        plain: dict[str, object] = {"tau": self.tau, "fit_agreement": self.fit_agreement, "score": self.score}
        return {**plain, "activity": self.activity, "sequence": self.sequence.as_dict()}


@dataclass(frozen=True)
class Outcome:
    """All of one demo.

    title, score_name, agreement_name, min_agreement: see `Task`.
    rows: the contenders, the original first.
    trials: the thresholds that were tried, rising; tau: the chosen one, 0 if none was good enough.
    moved: per layer, [T, I + H] True where a column of [x ; h] was sent at a step of the shown input; hidden: its H.
    picture: [R, T] that input as a person would look at it.
    sequences: number of test inputs; steps: their length; machine: see `bench.machine`.
    """

    title: str
    score_name: str
    agreement_name: str
    min_agreement: float
    rows: tuple[Row, ...]
    trials: tuple[Trial, ...]
    tau: float
    moved: tuple[NDArray[np.bool_], ...]
    hidden: int
    picture: NDArray[np.float32]
    sequences: int
    steps: int
    machine: dict[str, object]

    def as_dict(self) -> dict[str, object]:
        """Everything but the pictures, for `--json`."""
        names = ("title", "score_name", "agreement_name", "min_agreement", "tau", "sequences", "steps", "machine")
        plain = {name: getattr(self, name) for name in names}
        return {
            **plain,
            "rows": [row.as_dict() for row in self.rows],
            "trials": [trial.as_dict() for trial in self.trials],
        }
