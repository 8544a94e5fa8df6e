"""Speed with random weights and nothing skipped: the same arithmetic in every runtime."""

from functools import partial

from .. import plots, words
from ..blocks import Block, Figure, Heading, Panel, Section, Table, as_table, table
from ..records import Record, Results

MODES = {"whole": "100 steps in one call", "stream": "one step per call", "tiny": "one step of a tiny layer"}


def _draw(results: Results) -> list[Block]:
    blocks: list[Block] = []
    for mode, title in MODES.items():
        if some := results.of("latency", mode):
            blocks += [Heading(title.capitalize()), _figure(some), as_table(_table(some))]
    return blocks


SECTION = Section(
    "latency",
    "Dense speed, nothing skipped",
    "The speed when no input helps: random weights, batch 1, every column computed. Int8 here is only speed; its "
    "effect on a model's quality is shown under quality against time.",
    ("latency",),
    _draw,
)


def _figure(records: tuple[Record, ...]) -> Figure:
    panels, lacking = [], []
    for r in records:
        usable = {
            n: t for n, t in r["seconds"].items() if all(words.usable(t.get(k)) for k in ("median", "p25", "p75"))
        }
        lacking += [f"{name} on {r['case']}" for name in r["seconds"] if name not in usable]
        marks = [
            (name, plots.Mark(name, t["median"], t["p25"], t["p75"], words.seconds(t["median"])))
            for name, t in sorted(usable.items(), key=lambda item: item[1]["median"])
        ]
        alt = f"Time on stack {r['case']}: " + "; ".join(f"{name} {m.words}" for name, m in marks)
        title = f"Stack {r['case'].strip('()')}"
        panels.append(Panel(alt, partial(plots.dots, marks, title=title, unit="time of a call", clock=True)))
    return Figure(
        tuple(panels),
        "Median time per call with quartiles; further left is faster. Titles: inputs, hidden units, layers.",
        records,
        left_out=", ".join(lacking),
    )


def _table(records: tuple[Record, ...]) -> Table:
    rows = [
        [
            r["case"],
            f"*{name}" if name.startswith("adaptive") else name,
            words.seconds(t["median"]),
            f"{words.seconds(t.get('p25'))} to {words.seconds(t.get('p75'))}",
            words.times(words.speed(r["seconds"].get("torch"), t)),
        ]
        for r in records
        for name, t in sorted(r["seconds"].items(), key=lambda item: item[1]["median"])
    ]
    header = ["stack (I, H, L)", "contender", "median", "quartiles", "against torch"]
    return table(header, rows, caption=f"Random weights, batch 1, {MODES[records[0]['group']]}.", records=records)
