"""How time grows with width, depth and length, and the fixed cost of a call."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from .. import plots, words
from ..blocks import Block, Figure, Panel, Section, Table, as_table, contender, table, unavailable
from ..records import Record, Results

AXES = {  # group -> (title, field on the axis, its words)
    "width": ("Width: one layer, 100 steps", "H", "hidden units (log)"),
    "depth": ("Depth: 256 units, 100 steps", "L", "layers"),
    "length": ("Length", "T", "timesteps (log)"),
}


def _draw(results: Results) -> list[Block]:
    records, fixed = results.of("scaling", *AXES), results.of("scaling", "fixed")
    return [_figure(records), *([_fixed(fixed)] if fixed else []), as_table(_table(records))]


SECTION = Section(
    "scaling",
    "How time grows with size and length",
    "Whole sequences with random weights, batch 1. A line through time over length separates the cost of a timestep "
    "from the cost of a call before it does any work.",
    ("scaling",),
    _draw,
)


def _figure(records: Sequence[Record]) -> Figure:
    return Figure(
        tuple(panel for group in AXES for panel in _panels(group, records)),
        "Axes are logarithmic: parallel lines are a constant ratio, and a line that flattens to the left pays for "
        "calls, not for work.",
        tuple(records),
        layout="two",
        left_out="; ".join(unavailable(records)),
    )


def _panels(group: str, records: Sequence[Record]) -> Iterator[Panel]:
    title, field, words_of_axis = AXES[group]
    some = [r for r in records if r["group"] == group and words.usable(r["seconds"]["median"])]
    # Only lengths are taken on stacks of several widths: they get a panel each.
    for hidden in sorted({r["H"] for r in some}) if group == "length" else [None]:
        of = [r for r in some if hidden is None or r["H"] == hidden]
        series = []
        for name in dict.fromkeys(r["contender"] for r in of):
            mine = sorted((r for r in of if r["contender"] == name), key=lambda r: r[field])
            times = [r["seconds"]["median"] for r in mine]
            series.append(plots.Series(name, plots.colour(name), [r[field] for r in mine], times))
        if not series:
            continue
        shown = title if hidden is None else f"{title}: {of[0]['L']} layers of {hidden} units"
        alt = f"{shown}, time of a call: " + "; ".join(
            f"{s.name} {words.seconds(s.ys[0])} at {s.xs[0]} to {words.seconds(s.ys[-1])} at {s.xs[-1]}" for s in series
        )
        axes: dict[str, Any] = {"across": words_of_axis, "up": "time of a call (log)"}
        log = "y" if group == "depth" else "xy"
        yield Panel(alt, partial(plots.lines, series, title=shown, **axes, log=log, clock=True))


def _fixed(records: Sequence[Record]) -> Table:
    rows = [
        [
            f"{r['I']}, {r['H']}, {r['L']}",
            contender(r),
            words.seconds(r["fixed"]["median"]) if r["fixed"]["meaningful"] else words.NA,
            words.seconds(r["per_step"]["median"]),
            words.percent(r["misfit"]),
        ]
        for r in records
    ]
    header = ["stack (I, H, L)", "contender", "fixed cost of a call", "a timestep", "largest error of the line"]
    caption = "The line that fits time over length; n/a: the fixed cost cannot be separated from noise."
    return table(header, rows, caption=caption, records=records)


def _table(records: Sequence[Record]) -> Table:
    header = ["question", "contender", "I, H, L", "steps", "time of a call", "per layer and step", "against torch"]
    rows = [
        [
            r["group"],
            contender(r),
            f"({r['I']}, {r['H']}, {r['L']})",
            r["T"],
            words.seconds(r["seconds"]["median"]),
            words.seconds(r["per_cell_step"]),
            words.times(words.quoted(r["speed"].get("torch"))),
        ]
        for r in records
    ]
    return table(header, rows, caption="Random weights, batch 1.", records=records)
