"""The outcome of a demo as plain text."""

from ...bench import format_seconds, spread
from ..frontier import proof
from ..tables import aligned, place
from .outcome import Outcome, Row


def render(outcome: Outcome) -> str:
    """A table of the contenders, how to read it, and the certificate."""
    quality = (outcome.score_name, outcome.agreement_name, "macs")
    header = ["", *quality, "sequence", "torch / this", "step", "torch / this"]
    return f"""{outcome.title}

{aligned([header, *(_cells(row) for row in outcome.rows)])}

{outcome.score_name}, {outcome.agreement_name} (as torch) and macs (share of the multiply-accumulates done):
  on {outcome.sequences} {outcome.unit} that neither trained nor fitted anything.
sequence, step: time of the LSTM alone for {outcome.steps} steps in one call, and for one step of a stream; batch 1,
  {place(outcome.machine)}.
torch / this: how many times as long torch takes; median (quartiles) of paired rounds.

{_certificate(outcome)}"""


def _certificate(outcome: Outcome) -> str:
    text = proof(outcome.calibration.certificate, outcome.unit)
    return f"{text}\n{outcome.caution}" if outcome.caution else text


def _cells(row: Row) -> list[str]:
    return [
        row.name,
        f"{row.score:.4f}",
        f"{row.agreement:.4f}",
        f"{row.macs:.2f}",
        format_seconds(row.sequence.median),
        spread(row.sequence_gain),
        format_seconds(row.step.median),
        spread(row.step_gain),
    ]
