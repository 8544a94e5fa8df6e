"""What ``al.compress_within`` chooses for every model."""

from functools import partial

from .. import plots, words
from ..blocks import Block, Figure, Panel, Section, Table, as_table, table
from ..records import Record, Results

BYTES = 0.30  # of float32: the target of eval.within_budget


def _draw(results: Results) -> list[Block]:
    records = results.of("within_budget")
    return [_figure(records), as_table(_table(records))]


SECTION = Section(
    "within_budget",
    "Prune and quantize for me",
    "`al.compress_within` chooses precision and sparsity by itself, so that the output changes by no more than a "
    "budget. Shown is the loosest budget that keeps the task: every task figure within a hundredth of its value (the "
    "equal error rate within 0.002); without labelled data, a distance from the original of at most 0.01.",
    ("within_budget",),
    _draw,
)


def _figure(records: tuple[Record, ...]) -> Figure:
    marks = [
        (r["group"], plots.Mark("", r["bytes"] * 100, 0, r["bytes"] * 100, f"{r['bytes']:.0%}, {r['verdict']}"))
        for r in sorted(records, key=lambda r: float(r["bytes"]))
    ]
    alt = "Bytes after compress_within, of float32: " + "; ".join(f"{name} {mark.words}" for name, mark in marks)
    draw = partial(plots.dots, marks, title="Bytes, of float32", unit="%", log=False, line=BYTES * 100)
    return Figure(
        (Panel(alt, draw),),
        "Further left is smaller. PASS: left of the dashed line, and the task is kept.",
        records,
    )


def _table(records: tuple[Record, ...]) -> Table:
    header = ["model", "chosen", "bytes", "task figures, original", "compressed", "distance", "verdict"]
    rows = [
        [
            r["group"],
            r["setting"],
            words.percent(r["bytes"]),
            *(", ".join(f"{n} {words.number(v)}" for n, v in r[which].items()) for which in ("dense", "task")),
            words.number(r["distance"]),
            r["verdict"] + (f": {r['why']}" if r["why"] else ""),
        ]
        for r in records
    ]
    caption = f"PASS: at most {BYTES:.0%} of the bytes of float32, and the task is kept. Data are thinned."
    return table(header, rows, caption=caption, records=records)
