"""Does a skipped column save its time?"""

from functools import partial
from itertools import cycle
from typing import Any

from .. import plots, words
from ..blocks import Block, Figure, Panel, Section, Table, table
from ..records import Record, Results


def _draw(results: Results) -> list[Block]:
    records = results.of("latency", "delta")
    return [_figure(records), _table(records)] if records else []


SECTION = Section(
    "delta",
    "Does skipping pay in proportion?",
    "Every operand of every layer is made to send a chosen share of its columns. If skipping pays in full, half the "
    "columns take half the time of all of them, above the time of a run that sends none.",
    ("latency",),
    _draw,
)


def _points(r: Record) -> list[Record]:
    """The judged activities, from none to all, whose ratio may be quoted."""
    kept = [one for one in r["targets"] if one["who"] != "dense" and words.usable(one["column_part"])]
    return sorted(kept, key=lambda one: one["activity"])


def _figure(records: tuple[Record, ...]) -> Figure:
    panels = []
    for mode, title in (("whole", "Whole sequence"), ("stream", "Streaming step")):
        some = [(r["case"].removesuffix(f" {mode}"), _points(r)) for r in records if r["case"].endswith(mode)]
        series = [
            plots.Series(name, tint, [p["activity"] for p in points], [p["column_part"] for p in points])
            for tint, (name, points) in zip(cycle(plots.TINTS), some, strict=False)
            if points
        ]
        if not series:
            continue
        alt = f"{title}: share of the column time over share of columns sent: " + "; ".join(
            f"{s.name} " + ", ".join(f"{x:.0%} of columns {y:.0%} of time" for x, y in zip(s.xs, s.ys, strict=True))
            for s in series
        )
        axes: dict[str, Any] = {"across": "columns computed", "up": "time, of all columns"}
        panels.append(Panel(alt, partial(plots.lines, series, title=title, **axes, ideal=True, percent="xy")))
    na = [f"{r['case']} {one['who']}" for r in records for one in r["targets"] if one["verdict"] == words.NA]
    return Figure(
        tuple(panels),
        "int8 stacks with random weights, batch 1. On the dashed diagonal a skipped column saves exactly its time; the "
        "distance above it is the cost of finding the changed columns and of visiting them in another order.",
        records,
        layout="two",
        left_out=", ".join(na),
    )


def _table(records: tuple[Record, ...]) -> Table:
    header = ["stack (I, H, L)", "columns computed", "median time", "time, of all columns", "of int8 without skipping"]
    rows = [
        [r["case"], words.percent(one["activity"], 1), words.seconds(r["seconds"][one["who"]]["median"]),
         words.percent(one["column_part"]), words.percent(one["share"]["median"])]
        for r in records
        for one in _points(r)
    ]  # fmt: skip
    caption = (
        "The last column compares with the same int8 stack without a policy, which visits all columns in the order "
        "that is fastest then."
    )
    return table(header, rows, caption=caption, records=records)
