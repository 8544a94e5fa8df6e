"""What pruning and quantization cost and bring."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from .. import plots, words
from ..blocks import Block, Figure, Panel, Section, Table, as_table, by_name, table
from ..records import Record, Results


def _draw(results: Results) -> list[Block]:
    records = results.of("compression")
    done = [r for r in records if "refused" not in r]
    return [_figure(done, records), as_table(_table(done))] if done else []


SECTION = Section(
    "compression",
    "Compression",
    "Weights are removed or stored with fewer bits once, without a gradient step. Fidelity is one minus the distance "
    "between the outputs of the compressed model and of the original, on held-out inputs: 1 means nothing changed.",
    ("compression",),
    _draw,
)


def _figure(done: Sequence[Record], records: Sequence[Record]) -> Figure:
    panels = []
    for model, some in by_name(done).items():
        points = [(r["bytes"], r["fidelity"], str(r["row"])) for r in some if words.usable(r["fidelity"])]
        alt = f"{model}, fidelity over bytes: " + "; ".join(f"{n} {x:.0%} of the bytes, {y:.4f}" for x, y, n in points)
        axes: dict[str, Any] = {"across": "bytes, of float32", "up": "fidelity"}
        panels.append(Panel(alt, partial(plots.cloud, points, title=model, **axes, percent="x")))
    return Figure(
        tuple(panels),
        "Up and to the left is better: fewer bytes at the same outputs. Triangles are int8, squares bf16, circles "
        "float32. The vertical axes differ.",
        tuple(records),
        layout="two",
        left_out="; ".join(f"{r['group']} {r['row']} (refused: {r['refused']})" for r in records if "refused" in r),
    )


def _table(done: Sequence[Record]) -> Table:
    header = ["model", "compressed", "fidelity", "task figures", "bytes", "zeros", "step", "against exact fp32",
              "against its precision unpruned"]  # fmt: skip
    rows = [
        [
            model,
            r["row"],
            words.number(r["fidelity"]),
            ", ".join(f"{name} {words.number(value)}" for name, value in r["task"].items()),
            words.percent(r["bytes"]),
            words.percent(r["zeros"]),
            words.seconds(r["seconds"]),
            words.times(r["faster"]),
            words.times(r["faster_than_unpruned"]) if r["faster_than_unpruned"] is not None else "",
        ]
        for model, some in by_name(done).items()
        for r in some
    ]
    caption = "Bytes as stored, as a share of float32; a step is one streaming step of the slowest LSTM of the model."
    return table(header, rows, caption=caption, records=done)
