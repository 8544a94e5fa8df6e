"""Where one input lets the model rest: layers, columns and timesteps that were skipped."""

from functools import partial

import numpy as np

from eval.heatmap import unpack

from .. import plots, words
from ..blocks import Block, Figure, Panel, Section
from ..records import Record, Results


def _draw(results: Results) -> list[Block]:
    return [Figure((Panel(_alt(r), partial(plot, r)),), _caption(r), (r,), layout="one") for r in results.of("heatmap")]


SECTION = Section(
    "heat",
    "What is skipped, where and when",
    "One input of each model, read step by step by the policy that was certified for it. Where the input hardly "
    "changes, most columns of the weight matrices need not be visited; where it does, they are. x is what a layer "
    "reads from below, h its own state of the step before.",
    ("heatmap",),
    _draw,
)


def plot(record: Record) -> str:
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


def _alt(record: Record) -> str:
    shares = "; ".join(
        f"layer {row['layer']} x {words.percent(float(np.mean(row['x'])))}, h {words.percent(float(np.mean(row['h'])))}"
        for row in record["rows"]
    )
    return f"Skip heat map of {record['title']}. Mean share of columns computed: {shares}."


def _caption(r: Record) -> str:
    how = "certified" if r["certified"] else "nothing could be certified, so nothing is skipped"
    return (
        f"Policy: {r['policy']} ({how}: {r['loss']} at most {r['max_loss']:g}, confidence {r['confidence']:g}). "
        f"{words.percent(float(np.mean(r['done'])))} of the multiply-accumulates of the {len(r['done'])} steps were "
        f"done; {r['left']} steps were read before the answer. Top: the input. Middle: the share of an operand's "
        "columns that each step computed, as the stream of the int8 model counted it. Bottom: every single column, "
        "dark where it was computed, as the reference executor lists it for the exact weights. White streaks are "
        "columns that rest."
    )
