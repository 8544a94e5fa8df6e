"""Does a skipped column save its time?"""

from itertools import cycle
from typing import Any

from eval.report import plots

from .. import page, words
from ..records import Record, Results

TITLE = "Does skipping pay in proportion?"
ENDS = ("dense", "idle", "p=1")


def build(results: Results) -> page.Section:
    records = results.of("latency", "delta")
    body = [
        page.paragraph(
            "Every operand of every layer is made to send a chosen share of its columns. If skipping pays in full, "
            "half the columns take half the time of all of them, above the time of a run that sends none."
        )
    ]
    if not records:
        return page.Section("delta", TITLE, (*body, page.missing("latency")))
    return page.Section("delta", TITLE, (*body, _figure(records), _table(records)))


def _points(r: Record) -> list[Record]:
    """The judged activities, from none to all, whose ratio may be quoted."""
    kept = [one for one in r["targets"] if one["who"] != "dense" and words.usable(one["column_part"])]
    return sorted(kept, key=lambda one: one["activity"])


def _figure(records: tuple[Record, ...]) -> str:
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
        panels.append((alt, plots.lines(series, title=title, **axes, ideal=True, percent="xy")))
    na = [f"{r['case']} {one['who']}" for r in records for one in r["targets"] if one["verdict"] == words.NA]
    return page.figure(
        panels,
        caption="int8 stacks with random weights, batch 1. On the dashed diagonal a skipped column saves exactly its "
        "time; the distance above it is what finding out and visiting in another order costs.",
        records=records,
        layout="two",
        na=", ".join(na),
    )


def _table(records: tuple[Record, ...]) -> str:
    header = ["stack (I, H, L)", "columns computed", "median time", "time, of all columns", "of int8 without skipping"]
    rows = [
        [r["case"], words.percent(one["activity"], 1), words.seconds(r["seconds"][one["who"]]["median"]),
         words.percent(one["column_part"]), words.percent(one["share"]["median"])]
        for r in records
        for one in _points(r)
    ]  # fmt: skip
    return page.table(header, rows, caption="The last column compares with the same int8 stack without a policy, which "
                      "visits all columns in the order that is fastest then.")  # fmt: skip
