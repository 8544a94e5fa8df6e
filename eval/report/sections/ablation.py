"""What every idea is worth by itself, and together with the others."""

from collections.abc import Sequence
from itertools import cycle
from typing import Any

from eval.report import plots

from .. import page, words
from ..records import Record, Results

TITLE = "Which idea is worth what?"
LINES = {  # ideas with strengths from careful to bold: a line per kind
    "thresholds": "Thresholds of delta columns",
    "policies": "Policies, each alone",
}
CLOUDS = {"pruning": "What is done about pruned weights", "precision": "Precision", "ladder": "Step by step"}
FLOOR = 1e-6  # distances below this are drawn here: the axis is logarithmic


def build(results: Results) -> page.Section:
    records = results.of("ablation")
    body = [
        page.paragraph(
            "Every idea with and without: the same model, judged on sequences that nothing was fitted on. An idea "
            "earns its place if it lies lower, closer to the original, at the same work or the same bytes."
        )
    ]
    done = [r for r in records if "refused" not in r]
    if not done:
        return page.Section("ablation", TITLE, (*body, page.missing("ablation")))
    for model in dict.fromkeys(r["model"] for r in done):
        mine = [r for r in done if r["model"] == model]
        refused = [
            f"{r['variant']} (refused: {r['refused']})" for r in records if "refused" in r and r["model"] == model
        ]
        body += [f"<h3>{page.text(model)}</h3>", _figure(mine, refused), page.details("As a table", _table(mine))]
    return page.Section("ablation", TITLE, tuple(body))


def _figure(records: Sequence[Record], refused: list[str]) -> str:
    panels = []
    distance = records[0]["distance_name"]
    for idea, title in LINES.items():
        some = [r for r in records if r["group"] == idea and "track" in r["settings"] and words.usable(r["distance"])]
        series = []
        for tint, track in zip(cycle(plots.TINTS), dict.fromkeys(r["settings"]["track"] for r in some), strict=False):
            of = sorted((r for r in some if r["settings"]["track"] == track), key=lambda r: r["done"])
            heights = [max(r["distance"], FLOOR) for r in of]
            series.append(plots.Series(track, tint, [r["done"] for r in of], heights))
        if series:
            alt = f"{title}, distance over work done: " + "; ".join(
                f"{s.name} " + ", ".join(f"{x:.0%} {y:.2g}" for x, y in zip(s.xs, s.ys, strict=True)) for s in series
            )
            axes: dict[str, Any] = {"across": "multiply-accumulates done", "up": f"{distance} (log)"}
            panels.append((alt, plots.lines(series, title=title, **axes, log="y", percent="x")))
    for idea, title in CLOUDS.items():
        some = [r for r in records if r["group"] == idea and words.usable(r["distance"])]
        if some:
            points = [(r["bytes"], max(r["distance"], FLOOR), r["variant"]) for r in some]
            alt = f"{title}, distance over bytes: " + "; ".join(
                f"{n} {x:.0%} of the bytes, {y:.2g}" for x, y, n in points
            )
            axes = {"across": "bytes, of float32", "up": f"{distance} (log)"}
            panels.append((alt, plots.cloud(points, title=title, **axes, percent="x", log="y")))
    return page.figure(
        panels,
        caption="Down and to the left is better: closer to the original with less work or fewer bytes. Lines run from "
        "careful to bold settings of one idea.",
        records=records,
        layout="two",
        na="; ".join(refused),
    )


def _table(records: Sequence[Record]) -> str:
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
    return page.table(header, rows, caption=f"Distance: {records[0]['distance_name']}. Base: the same precision with "
                      "nothing pruned or skipped. Work and bytes as shares of the float32 model's.")  # fmt: skip


def _speed(r: Record, kind: str, base: str) -> str:
    """A blank where the question does not arise: the model has no single LSTM that can stream."""
    return words.times(words.quoted(r["speed"][kind][base])) if kind in r["speed"] else ""
