"""Which saliency finds the weights that matter least."""

from functools import partial
from typing import Any

from .. import plots, words
from ..blocks import Block, Figure, Panel, Section, Table, as_table, by_name, table
from ..records import Record, Results

FLOOR = 1e-5  # losses below this are drawn here: the axis is logarithmic
HUES = {0: plots.TINTS[5], 1: plots.TINTS[1], 2: plots.TINTS[0]}  # order of a score -> grey, orange, blue


def _draw(results: Results) -> list[Block]:
    records = results.of("taxonomy")
    return [_figure(records), as_table(_table(records))]


SECTION = Section(
    "taxonomy",
    "Which saliency finds the weights to prune?",
    "Unstructured pruning with one global cut, by scores of order zero (magnitude), one and two, with and without a "
    "refit of the remaining weights; the distance from the original is taken on held-out sequences.",
    ("taxonomy",),
    _draw,
)


def _figure(records: tuple[Record, ...]) -> Figure:
    panels = []
    for model, some in by_name(records).items():
        series = [
            plots.Series(
                r["case"], HUES[r["order"]], list(r["sparsity"]), [max(v, FLOOR) for v in r["losses"]], not r["refit"]
            )
            for r in some
            if all(words.usable(v) for v in r["losses"])
        ]
        alt = f"{model}, distance from the original over share removed: " + "; ".join(
            f"{s.name} {s.ys[0]:.2g} at {s.xs[0]:.0%} to {s.ys[-1]:.2g} at {s.xs[-1]:.0%}" for s in series
        )
        axes: dict[str, Any] = {
            "across": "share of weights removed",
            "up": f"{some[0].get('distance', 'distance')} (log)",
        }
        panels.append(Panel(alt, partial(plots.lines, series, title=model, **axes, log="y", percent="x")))
    return Figure(
        tuple(panels),
        "Lower is better. Grey: zero order (magnitude); orange: first order; blue: second order. Solid: the remaining "
        "weights were refitted; dashed: they were not.",
        records,
        layout="two",
    )


def _table(records: tuple[Record, ...]) -> Table:
    sparsities = sorted({s for r in records for s in r["sparsity"]})
    rows = []
    for r in records:
        losses = dict(zip(r["sparsity"], r["losses"], strict=True))
        refit = "yes" if r["refit"] else "no"
        rows.append(
            [r["group"], r["saliency"], r["order"], refit, *(words.number(losses.get(s), 3) for s in sparsities)]
        )
    header = ["model", "saliency", "order", "refit", *(f"distance, {s:.0%} removed" for s in sparsities)]
    distances = dict.fromkeys(f"{r['group']}: {r.get('distance', 'distance')}" for r in records)
    return table(header, rows, caption=f"Distances. {'; '.join(distances)}.", records=records)
