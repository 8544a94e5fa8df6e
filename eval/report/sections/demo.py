"""What the demo of the package printed: four ways to run one model, and what certified skipping gained."""

from typing import Any

from .. import words
from ..blocks import Block, Paragraph, Section, Table, table
from ..records import Record, Results


def _draw(results: Results) -> list[Block]:
    return [block for r in results.of("demo") for block in (Paragraph(verdict(r)), _table(r))]


SECTION = Section(
    "demo",
    "What does the demo show?",
    "The demo runs a small trained model in four ways, on inputs that nothing was trained, fitted, chosen or timed on. "
    "The last one skips what a calibration by time, with all its defaults, chose and certified.",
    ("demo",),
    _draw,
)


def verdict(r: Record) -> str:
    """What skipping gained against int8 that skips nothing, in a sentence."""
    if r["sequence_gain"] is None:
        return f"{r['title']}: nothing was certified that saves time."
    (loss,) = r["certificate"]["losses"]
    return (
        f"{r['title']}: {_gain(r['sequence_gain'])} as fast as int8 that skips nothing, in a stream "
        f"{_gain(r['stream_gain'])}, with a {loss['name'].replace('_', ' ')} of at most {loss['limit']:g} certified at "
        f"confidence {r['certificate']['confidence']:g} ({r['certificate']['policy']})."
    )


def _gain(ratio: dict[str, Any]) -> str:
    return f"{words.times(ratio['median'])} ({ratio['p25']:.2f} to {ratio['p75']:.2f})"


def _table(r: Record) -> Table:
    header = ["", r["score_name"], r["agreement_name"], "work", "sequence", "against torch", "step", "against torch"]
    rows = [
        [
            row["name"],
            f"{row['score']:.4f}",
            f"{row['agreement']:.4f}",
            words.percent(row["macs"]),
            words.seconds(row["sequence"]["median"]),
            words.times(row["sequence_gain"]["median"]),
            words.seconds(row["step"]["median"]),
            words.times(row["step_gain"]["median"]),
        ]
        for row in r["rows"]
    ]
    caption = f"{r['sequences']} {r['unit']} of {r['steps']} steps; times are of the LSTM alone, batch 1."
    return table(header, rows, caption=caption, records=[r])
