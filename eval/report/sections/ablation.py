"""What every idea contributes, alone and together with the others."""

from collections.abc import Sequence
from functools import partial
from itertools import cycle
from typing import Any

from .. import plots, words
from ..blocks import Block, Figure, Heading, Panel, Section, Table, as_table, by_name, table
from ..records import Record, Results

LINES = {  # ideas with strengths from careful to bold: a line per kind
    "thresholds": "Thresholds of delta columns",
    "policies": "Policies, each alone",
}
CLOUDS = {"pruning": "Compensation for pruned weights", "precision": "Precision", "ladder": "Step by step"}
FLOOR = 1e-6  # distances below this are drawn here: the axis is logarithmic


def _draw(results: Results) -> list[Block]:
    records = results.of("ablation")
    refused = [r for r in records if "refused" in r]
    blocks: list[Block] = []
    for model, done in by_name([r for r in records if "refused" not in r], "model").items():
        why = [f"{r['variant']} (refused: {r['refused']})" for r in refused if r["model"] == model]
        blocks += [Heading(model), _figure(done, why), as_table(_table(done))]
    return blocks


SECTION = Section(
    "ablation",
    "What does each idea contribute?",
    "Every idea with and without: the same model, judged on held-out sequences. An idea earns its place if it lies "
    "lower, closer to the original, at the same work or the same bytes.",
    ("ablation",),
    _draw,
)


def _figure(records: Sequence[Record], refused: list[str]) -> Figure:
    panels = [*map(partial(_lines, records), LINES), *map(partial(_cloud, records), CLOUDS)]
    return Figure(
        tuple(panel for panel in panels if panel is not None),
        "Down and to the left is better: closer to the original with less work or fewer bytes. Lines run from careful "
        "to bold settings of one idea.",
        tuple(records),
        layout="two",
        left_out="; ".join(refused),
    )


def _lines(records: Sequence[Record], idea: str) -> Panel | None:
    some = [r for r in records if r["group"] == idea and "track" in r["settings"] and words.usable(r["distance"])]
    series = []
    for tint, track in zip(cycle(plots.TINTS), dict.fromkeys(r["settings"]["track"] for r in some), strict=False):
        of = sorted((r for r in some if r["settings"]["track"] == track), key=lambda r: r["done"])
        series.append(plots.Series(track, tint, [r["done"] for r in of], [max(r["distance"], FLOOR) for r in of]))
    if not series:
        return None
    alt = f"{LINES[idea]}, distance over work done: " + "; ".join(
        f"{s.name} " + ", ".join(f"{x:.0%} {y:.2g}" for x, y in zip(s.xs, s.ys, strict=True)) for s in series
    )
    axes: dict[str, Any] = {"across": "multiply-accumulates done", "up": f"{records[0]['distance_name']} (log)"}
    return Panel(alt, partial(plots.lines, series, title=LINES[idea], **axes, log="y", percent="x"))


def _cloud(records: Sequence[Record], idea: str) -> Panel | None:
    some = [r for r in records if r["group"] == idea and words.usable(r["distance"])]
    if not some:
        return None
    points = [(r["bytes"], max(r["distance"], FLOOR), r["variant"]) for r in some]
    alt = f"{CLOUDS[idea]}, distance over bytes: " + "; ".join(
        f"{name} {x:.0%} of the bytes, {y:.2g}" for x, y, name in points
    )
    axes: dict[str, Any] = {"across": "bytes, of float32", "up": f"{records[0]['distance_name']} (log)"}
    return Panel(alt, partial(plots.cloud, points, title=CLOUDS[idea], **axes, percent="x", log="y"))


def _table(records: Sequence[Record]) -> Table:
    header = ["idea", "variant", "distance", "loss", "limit", "work done", "bytes", "whole, against torch",
              "whole, against base", "step, against base"]  # fmt: skip
    rows = [
        [
            r["group"],
            r["variant"],
            words.number(r["distance"], 3),
            words.number(r["loss"], 3),
            f"{r['max_loss']:g}",
            words.percent(r["done"]),
            words.percent(r["bytes"]),
            *(_speed(r, kind, base) for kind, base in (("whole", "torch"), ("whole", "base"), ("step", "base"))),
        ]
        for r in records
    ]
    caption = (
        f"Distance: {records[0]['distance_name']}. Base: the same precision with nothing pruned or skipped. Work and "
        "bytes are shares of the float32 model's."
    )
    return table(header, rows, caption=caption, records=records)


def _speed(r: Record, kind: str, base: str) -> str:
    """A blank for models that have no single LSTM that can stream."""
    return words.times(words.quoted(r["speed"][kind][base])) if kind in r["speed"] else ""
