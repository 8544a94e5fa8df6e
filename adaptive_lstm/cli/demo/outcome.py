"""The result of a demo: plain values for the figure and JSON, and a table as text."""

import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...bench import Ratio, Timing, format_seconds, spread
from ...calibration.calibrate import Calibration
from ..frontier import certificate_text
from ..frontier import rows as candidates
from ..tables import aligned, place


@dataclass(frozen=True)
class Row:
    """One contender.

    Attributes:
        name: in the table.
        score: quality on the test inputs, see `DemoTask.score`.
        agreement: with the original's outputs on the same inputs, see `DemoTask.agreement`.
        macs: multiply-accumulates done, as a share of a dense run's, 0 to 1.
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
        """Plain numbers for JSON; times in seconds."""
        plain: dict[str, object] = {"name": self.name, "score": self.score, "agreement": self.agreement}
        timed = {name: getattr(self, name).as_dict() for name in ("sequence", "step", "sequence_gain", "step_gain")}
        return {**plain, "macs": self.macs, **timed}

    def cells(self) -> list[str]:
        """The row as text."""
        return [
            self.name,
            f"{self.score:.4f}",
            f"{self.agreement:.4f}",
            f"{self.macs:.0%}",
            format_seconds(self.sequence.median),
            str(self.sequence_gain),
            format_seconds(self.step.median),
            str(self.step_gain),
        ]


@dataclass(frozen=True)
class DemoOutcome:
    """The result of a demo.

    Attributes:
        title, unit, score_name, agreement_name, caution: see `DemoTask`.
        rows: the contenders, the original first; the certified one last, if it skips anything.
        calibration: the candidates and the certificate.
        sequence_gain, stream_gain: how many times as long int8 takes that skips nothing as the certified one, on test
            inputs; None if nothing is skipped.
        sent: per layer, [T, I + H], True if a column of [x ; h] was sent (multiplied) at a step of the shown input.
        exited_at: number of steps of the shown input that were read before the decision.
        hidden: size of h.
        picture: [R, T] the shown input as a person would look at it.
        sequences: number of test inputs.
        steps: their length.
        machine: see `bench.machine`.
    """

    title: str
    unit: str
    score_name: str
    agreement_name: str
    caution: str
    rows: tuple[Row, ...]
    calibration: Calibration
    sequence_gain: Ratio | None
    stream_gain: Ratio | None
    sent: tuple[NDArray[np.bool_], ...]
    exited_at: int
    hidden: int
    picture: NDArray[np.float32]
    sequences: int
    steps: int
    machine: dict[str, object]

    @property
    def verdict(self) -> str:
        """What skipping gained, in a sentence."""
        if self.sequence_gain is None or self.stream_gain is None:
            return "Nothing is skipped: no policy was certified that saves time."
        whole, stream = _gained(self.sequence_gain), _gained(self.stream_gain)
        return f"Skipping, certified, against int8 that skips nothing: {whole}; in a stream {stream}."

    def __str__(self) -> str:
        gain = "torch / this"
        header = ["", self.score_name, self.agreement_name, "work", "sequence", gain, "step", gain]
        certificate = certificate_text(self.calibration.certificate, self.unit)
        return f"""{self.title}

{aligned([header, *(row.cells() for row in self.rows)])}

{self.verdict}

{self.score_name}: on {self.sequences} {self.unit} that nothing was trained, fitted, chosen or timed on.
{self.agreement_name}: agreement with torch on them. work: share of the multiply-accumulates done.
sequence: time of the LSTM for {self.steps} steps in one call. step: the same steps one by one in a stream, time of
  each on average. Batch 1, {place(self.machine)}.
{gain}: how many times as long torch takes. Medians of paired rounds, with quartiles in brackets.

{certificate}{self.caution and chr(10) + self.caution}"""

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON: everything but the pictures."""
        names = ("title", "unit", "score_name", "agreement_name", "caution", "sequences", "steps", "machine")
        gains = {name: getattr(self, name) for name in ("sequence_gain", "stream_gain")}
        return {
            **{name: getattr(self, name) for name in names},
            "rows": [row.as_dict() for row in self.rows],
            **{name: gain and gain.as_dict() for name, gain in gains.items()},
            "certificate": json.loads(self.calibration.certificate.to_json()),
            "frontier": candidates(self.calibration),
        }


def _gained(gain: Ratio) -> str:
    """A gain in words; only one whose quartiles lie above 1 reads as one."""
    told = f"{spread(gain)} times as fast"
    if gain.p75 < 1:
        return f"SLOWER, {told}"
    return told if gain.p25 > 1 else f"no gain measured, {told}"
