"""What pruning and quantization cost and bring, and which score finds the weights that matter least."""

from collections.abc import Sequence
from typing import Any

from eval.report import plots

from .. import page, words
from ..records import Record, Results

TITLE = "Compression"
FLOOR = 1e-5  # losses below this are drawn here: the axis is logarithmic
HUES = {0: plots.TINTS[5], 1: plots.TINTS[1], 2: plots.TINTS[0]}  # order of a score -> grey, orange, blue


def build(results: Results) -> page.Section:
    records, scores = results.of("compression"), results.of("taxonomy")
    body = [
        page.paragraph(
            "Weights are removed or stored with fewer bits once, without a gradient step. Fidelity is one minus the "
            "distance between the outputs of the compressed model and of the original, on inputs that nothing was "
            "fitted on: 1 means nothing changed."
        )
    ]
    done = [r for r in records if "refused" not in r]
    body += (
        [_figure(done, records), page.details("As a table", _table(done))] if done else [page.missing("compression")]
    )
    body.append("<h3>Prune and quantize for me</h3>")
    recommended = results.of("recommended")
    body += [_recommended(recommended)] if recommended else [page.missing("recommended")]
    body.append("<h3>Which score tells what to prune?</h3>")
    body += [_scores(scores)] if scores else [page.missing("taxonomy")]
    return page.Section("compression", TITLE, tuple(body))


def _models(records: Sequence[Record]) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = {}
    for r in records:
        found.setdefault(r["group"], []).append(r)
    return found


def _figure(done: Sequence[Record], records: Sequence[Record]) -> str:
    panels = []
    for model, some in _models(done).items():
        points = [(r["bytes"], r["fidelity"], str(r["row"])) for r in some if words.usable(r["fidelity"])]
        alt = f"{model}, fidelity over bytes: " + "; ".join(f"{n} {x:.0%} of the bytes, {y:.4f}" for x, y, n in points)
        axes: dict[str, Any] = {"across": "bytes, of float32", "up": "fidelity"}
        panels.append((alt, plots.cloud(points, title=model, **axes, percent="x")))
    na = [f"{r['group']} {r['row']} (refused: {r['refused']})" for r in records if "refused" in r]
    return page.figure(
        panels,
        caption="Up and to the left is better: fewer bytes at the same outputs. Triangles are int8, squares bf16, "
        "circles float32. Mind that the vertical axes differ.",
        records=records,
        layout="two",
        na="; ".join(na),
    )


def _table(done: Sequence[Record]) -> str:
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
        for model, some in _models(done).items()
        for r in some
    ]
    return page.table(header, rows, caption="Bytes as stored, as a share of float32; a step is one streaming step "
                      "of the slowest LSTM of the model.")  # fmt: skip


def _recommended(records: Sequence[Record]) -> str:
    header = ["model", "what was chosen", "bytes", "task figures, original", "compressed", "distance", "verdict"]
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
    return page.table(header, rows, caption="What compress_within chooses by itself. PASS: at most 30 % of the bytes "
                      "of float32, and every task figure within a hundredth of its value (the equal error rate within "
                      ".002); without labelled data, a distance from the original of at most .01.")  # fmt: skip


def _scores(scores: Sequence[Record]) -> str:
    panels = []
    for model, some in _models(scores).items():
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
        panels.append((alt, plots.lines(series, title=model, **axes, log="y", percent="x")))
    return page.figure(
        panels,
        caption="Lower is better. Grey: zero order (magnitude); orange: first order; blue: second order. "
        "Solid: the remaining weights were refitted, dashed: they were not.",
        records=scores,
        layout="two",
    )
