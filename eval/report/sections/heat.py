"""Where one input lets the model rest: layers, columns and timesteps that were skipped."""

import numpy as np

from eval.heatmap import unpack
from eval.report import plots

from .. import page, words
from ..records import Record, Results

TITLE = "What is skipped, where and when"


def build(results: Results) -> page.Section:
    records = results.of("heatmap")
    body = [
        page.paragraph(
            "One input of each model, read step by step by the policy that was certified for it. Where the input "
            "hardly changes, most columns of the weight matrices need not be visited; where it does, they are. "
            "x is what a layer reads from below, h its own state of the step before."
        )
    ]
    if not records:
        return page.Section("heat", TITLE, (*body, page.missing("heatmap")))
    body += [page.figure([(_alt(r), draw(r))], caption=_caption(r), records=[r], layout="one") for r in records]
    return page.Section("heat", TITLE, tuple(body))


def draw(record: Record) -> str:
    """The figure of one record; README shows one too."""
    rows, columns = {}, {}
    hidden = record["hidden"]
    for row, packed in zip(record["rows"], record["columns"], strict=True):
        sent = unpack(packed)
        width = sent.shape[1] - hidden
        for operand, block in (("x", sent[:, :width]), ("h", sent[:, width:])):
            name = f"layer {row['layer']}: {operand}"
            rows[name], columns[name] = row[operand], block
    return plots.heat(
        np.asarray(record["picture"], np.float64), rows, columns, left=record["left"], title=record["title"]
    )


def _mean(record: Record) -> float:
    return float(np.mean(record["done"]))


def _alt(record: Record) -> str:
    told = "; ".join(
        f"layer {row['layer']} x {words.percent(float(np.mean(row['x'])))}, h {words.percent(float(np.mean(row['h'])))}"
        for row in record["rows"]
    )
    return f"Skip heat map of {record['title']}. Mean share of columns computed: {told}."


def _caption(r: Record) -> str:
    how = "certified" if r["certified"] else "nothing could be certified, so nothing is skipped"
    return (
        f"Policy: {r['policy']} ({how}: {r['loss']} at most {r['max_loss']:g}, confidence {r['confidence']:g}). "
        f"{words.percent(_mean(r))} of the multiply-accumulates of the {len(r['done'])} steps were done; {r['left']} "
        "steps were read before the answer. Top: the input. Middle: the share of an operand's columns that each step "
        "computed, as the stream of the int8 model counted it. Bottom: every single column, dark where it was "
        "computed, as the reference executor tells it for the exact weights. White streaks are columns that rest."
    )
