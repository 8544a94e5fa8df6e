"""How time grows with width, depth and length, and what a call costs before any work."""

from collections.abc import Sequence
from typing import Any

from eval.report import plots

from .. import page, words
from ..records import Record, Results
from .streaming import left_out

TITLE = "How time grows with size and length"
AXES = {  # group -> (title, field on the axis, its words)
    "width": ("Width: one layer, 100 steps", "H", "hidden units (log)"),
    "depth": ("Depth: 256 units, 100 steps", "L", "layers"),
    "length": ("Length", "T", "timesteps (log)"),
}


def build(results: Results) -> page.Section:
    records, fixed = results.of("scaling", *AXES), results.of("scaling", "fixed")
    body = [
        page.paragraph(
            "Whole sequences with random weights, batch 1. A line through time over length tells two things apart: "
            "what a timestep costs, and what a call costs before it does any work."
        )
    ]
    if not records:
        return page.Section("scaling", TITLE, (*body, page.missing("scaling")))
    body.append(_figure(records))
    if fixed:
        body.append(_fixed(fixed))
    body.append(page.details("As a table", _table(records)))
    return page.Section("scaling", TITLE, tuple(body))


def _figure(records: Sequence[Record]) -> str:
    panels = []
    for group, (title, field, words_of_axis) in AXES.items():
        some = [r for r in records if r["group"] == group and words.usable(r["seconds"]["median"])]
        # Only lengths are taken on stacks of several widths: they get a panel each.
        for hidden in sorted({r["H"] for r in some}) if group == "length" else [None]:
            of = [r for r in some if hidden is None or r["H"] == hidden]
            series = []
            for name in dict.fromkeys(r["contender"] for r in of):
                mine = sorted((r for r in of if r["contender"] == name), key=lambda r: r[field])
                times = [r["seconds"]["median"] for r in mine]
                series.append(plots.Series(name, plots.colour(name), [r[field] for r in mine], times))
            if series:
                shown = title if hidden is None else f"{title}: {of[0]['L']} layers of {hidden} units"
                alt = f"{shown}, time of a call: " + "; ".join(
                    f"{s.name} {words.seconds(s.ys[0])} at {s.xs[0]} to {words.seconds(s.ys[-1])} at {s.xs[-1]}"
                    for s in series
                )
                axes: dict[str, Any] = {"across": words_of_axis, "up": "time of a call (log)"}
                panels.append(
                    (alt, plots.lines(series, title=shown, **axes, log="y" if group == "depth" else "xy", clock=True))
                )
    return page.figure(
        panels,
        caption="Axes are logarithmic: parallel lines are a constant ratio, and a line that flattens to the left "
        "pays for calls, not for work.",
        records=records,
        layout="two",
        na="; ".join(left_out(records)),
    )


def _fixed(records: Sequence[Record]) -> str:
    rows = [
        [
            f"{r['I']}, {r['H']}, {r['L']}",
            f"*{r['contender']}" if r["ours"] else r["contender"],
            words.seconds(r["fixed"]["median"]) if r["fixed"]["meaningful"] else words.NA,
            words.seconds(r["per_step"]["median"]),
            words.percent(r["misfit"]),
        ]
        for r in records
    ]
    header = ["stack (I, H, L)", "contender", "fixed cost of a call", "a timestep", "worst miss of the line"]
    return page.table(
        header, rows, caption="The line that fits time over length; n/a: the fixed cost cannot be told from noise."
    )


def _table(records: Sequence[Record]) -> str:
    header = ["question", "contender", "I, H, L", "steps", "time of a call", "per layer and step", "against torch"]
    rows = [
        [
            r["group"],
            f"*{r['contender']}" if r["ours"] else r["contender"],
            f"({r['I']}, {r['H']}, {r['L']})",
            r["T"],
            words.seconds(r["seconds"]["median"]),
            words.seconds(r["per_cell_step"]),
            words.times(words.quoted(r["speed"].get("torch"))),
        ]
        for r in records
    ]
    return page.table(header, rows, caption="Random weights, batch 1.")
