"""What a demo found out, as plain values that a table, a figure or a JSON record can be made of."""

import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...bench import Ratio, Timing
from ...calibration.calibrate import Calibration
from ..frontier import records


@dataclass(frozen=True)
class Row:
    """One contender.

    score: quality on the test inputs, see `Task.score`; agreement: with the original on the same inputs.
    macs: share of the multiply-accumulates of a dense run that were done, 0 to 1.
    sequence, step: seconds for a whole sequence in one call, and for one step of a stream.
    sequence_gain, step_gain: how many times as long the original takes.
    """

    name: str
    score: float
    agreement: float
    macs: float
    sequence: Timing
    step: Timing
    sequence_gain: Ratio
    step_gain: Ratio

    def as_dict(self) -> dict[str, object]:
        """Plain numbers for a JSON record; times in seconds."""
        plain: dict[str, object] = {"name": self.name, "score": self.score, "agreement": self.agreement}
        timed = {name: getattr(self, name).as_dict() for name in ("sequence", "step", "sequence_gain", "step_gain")}
        return {**plain, "macs": self.macs, **timed}


@dataclass(frozen=True)
class Outcome:
    """All of one demo.

    title, unit, score_name, agreement_name, caution: see `Task`.
    rows: the contenders, the original first; the last one is certified, if anything was.
    calibration: what was tried, and the certificate; cost: what its costs are shares of.
    moved: per layer, [T, I + H] True where a column of [x ; h] was sent at a step of the shown input; hidden: its H.
    exited_at: steps of the shown input that were read before the decision.
    picture: [R, T] that input as a person would look at it.
    sequences: number of test inputs; steps: their length; machine: see `bench.machine`.
    """

    title: str
    unit: str
    score_name: str
    agreement_name: str
    caution: str
    rows: tuple[Row, ...]
    calibration: Calibration
    cost: str
    moved: tuple[NDArray[np.bool_], ...]
    exited_at: int
    hidden: int
    picture: NDArray[np.float32]
    sequences: int
    steps: int
    machine: dict[str, object]

    def as_dict(self) -> dict[str, object]:
        """Everything but the pictures, for `--json`."""
        names = ("title", "unit", "score_name", "agreement_name", "caution", "sequences", "steps", "machine")
        return {
            **{name: getattr(self, name) for name in names},
            "rows": [row.as_dict() for row in self.rows],
            "certificate": json.loads(self.calibration.certificate.to_json()),
            "frontier": records(self.calibration),
        }
