"""The outcome of a demo as plain text."""

from ..bench import format_seconds
from ..text import aligned, place, spread
from .outcome import Outcome, Row


def render(outcome: Outcome) -> str:
    """A table of the contenders, and below it how to read it."""
    quality = (outcome.score_name, outcome.agreement_name, "activity")
    header = ["", *quality, "sequence", "torch / this", "step", "torch / this"]
    return f"""{outcome.title}

{aligned([header, *(_cells(row) for row in outcome.rows)])}

{outcome.score_name}, {outcome.agreement_name} (as torch) and activity (share of the multiply-accumulates done):
  on {outcome.sequences} inputs that nothing was fitted on.
sequence, step: time of the LSTM alone for {outcome.steps} steps in one call, and for one step of a stream; batch 1,
  {place(outcome.machine)}.
torch / this: how many times as long torch takes; median (quartiles) of paired rounds.
delta: a column is computed when its operand moved further than a threshold. Its scale {outcome.tau:g} is the largest of
  {len(outcome.trials)} up to which "{outcome.agreement_name}" is at least {outcome.min_agreement:g} on other inputs."""


def _cells(row: Row) -> list[str]:
    return [
        row.name,
        f"{row.score:.4f}",
        f"{row.agreement:.4f}",
        f"{row.activity:.2f}",
        format_seconds(row.sequence.median),
        spread(row.sequence_gain),
        format_seconds(row.step.median),
        spread(row.step_gain),
    ]
