"""What splitting long sequences in time saves on real models, and what it changes."""

from collections.abc import Iterator

from eval.split_time import NEAR, ROWS, verdict

from .. import words
from ..blocks import Block, Section, table
from ..records import Record, Results


def _draw(results: Results) -> list[Block]:
    records = results.of("split_time")
    header = ["model", "weights", "threads", "setting", "times as fast", "distance", "largest residual", "in addition",
              "rows", "goal", "verdict"]  # fmt: skip
    rows = [row for record in records for row in _rows(record)]
    caption = (
        "One sequence against itself on one thread. Distance: of outputs from those in sequence, as "
        "the model's task judges them. In addition: timesteps of warm-ups. "
        f"Rows: what {ROWS} sequences of a batch are faster each, the most that splitting can save on one thread. "
        f"The verdict is of the fastest setting at a distance of {NEAR:g} at most."
    )
    return [table(header, rows, caption=caption, records=records)]


def _rows(r: Record) -> Iterator[list[str]]:
    """A row per setting; what holds for the model stands in the first."""
    goal = "" if r["goal"] is None else words.times(r["goal"])
    for i, j in enumerate(r["judged"]):
        whole = [words.times(words.quoted(r["rows"])), goal, verdict(r)] if i == 0 else ["", "", ""]
        yield [
            r["group"],
            r["precision"],
            str(r["threads"]),
            j["setting"],
            words.times(words.quoted(j["speed"])),
            f"{j['distance']:.5f}",
            f"{j['residual']:.4f}",
            words.percent(j["extra"]),
            *whole,
        ]


SECTION = Section(
    "split_time",
    "What does splitting in time save?",
    "Real inputs of a model, joined to one long sequence, in chunks that run side by side (al.SplitTime). Models "
    "that forget soon are hardly changed by it; the speaker encoder remembers, and is here to show that.",
    ("split_time",),
    _draw,
)
