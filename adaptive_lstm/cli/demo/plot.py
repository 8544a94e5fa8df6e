"""The outcome of a demo as a figure of two panels: time against quality, and what was computed when for one input.

Needs matplotlib: `pip install 'adaptive-lstm[demo]'`.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from ..frontier_plot import logarithmic
from .outcome import DemoOutcome

MARKERS = {"torch": "s", "adaptive exact": "o", "adaptive int8": "^", "adaptive certified": "*"}
SENT = ListedColormap(["#f1efe8", "#1b4965"])
BORDER = "#d1495b"
BELOW, ABOVE = 2.2, 0.4  # how far the axis of scores reaches from the original's, in times the loss that is allowed


def draw(outcome: DemoOutcome, path: Path) -> None:
    """Write the figure to `path`, a .png, .pdf or .svg file."""
    figure = Figure(figsize=(14, 6.2), layout="constrained")
    FigureCanvasAgg(figure)  # no display, and no global state of pyplot
    figure.suptitle(f"{outcome.title}\n{outcome.verdict}")
    halves = figure.add_gridspec(1, 2, width_ratios=(1, 1.25))
    _time_against_quality(figure.add_subplot(halves[0]), outcome)
    rows = halves[1].subgridspec(3, 1, height_ratios=(1.2, 4, 1.3))
    steps = figure.add_subplot(rows[2])
    _share_sent(steps, outcome)
    _columns_sent(figure.add_subplot(rows[1], sharex=steps), outcome)
    _picture(figure.add_subplot(rows[0], sharex=steps), outcome)
    figure.savefig(path, dpi=130)


def _time_against_quality(axes: Axes, outcome: DemoOutcome) -> None:
    """Every contender; the dashed line is how far the certificate lets the score fall."""
    for row in outcome.rows:
        time = np.array([row.sequence.p25, row.sequence.median, row.sequence.p75]) * 1e3
        axes.errorbar(
            time[1],
            row.score,
            xerr=[[time[1] - time[0]], [time[2] - time[1]]],
            marker=MARKERS.get(row.name, "o"),
            markersize=16 if row is outcome.rows[-1] else 9,
            linestyle="",
            label=f"{row.name}: {time[1]:.3g} ms, {row.macs:.0%} of the work",
        )
    loss = outcome.calibration.certificate.losses[0]
    score, limit = outcome.rows[0].score, float(loss["limit"])
    axes.axhline(score - limit, color=BORDER, linestyle="--", linewidth=1.2, label=f"limit: {limit:g} below torch")
    axes.set_ylim(score - BELOW * limit, score + ABOVE * limit)
    logarithmic(axes, (1, 1.5, 2, 3, 5, 7))
    axes.set(xlabel=f"ms per sequence of {outcome.steps} steps, one thread (log scale)", ylabel=outcome.score_name)
    axes.set_title(f"quality against time on {outcome.sequences} test {outcome.unit}", fontsize="medium")
    axes.grid(alpha=0.25)
    axes.legend(loc="lower left", fontsize="small")


def _picture(axes: Axes, outcome: DemoOutcome) -> None:
    axes.imshow(outcome.picture, aspect="auto", cmap="gray", extent=_extent(outcome, len(outcome.picture)))
    axes.tick_params(labelbottom=False)
    axes.set(yticks=[], ylabel="input")
    axes.set_title("one input (top), and which columns of [x ; h] each step computes (dark)", fontsize="medium")
    _mark_exit(axes, outcome)


def _columns_sent(axes: Axes, outcome: DemoOutcome) -> None:
    """x and h of all layers on top of each other; dark where a column was sent."""
    sent = np.concatenate(outcome.sent, axis=1).T
    axes.imshow(
        sent, aspect="auto", cmap=SENT, vmin=0, vmax=1, interpolation="nearest", extent=_extent(outcome, len(sent))
    )
    edges, names = [0], []
    for layer, columns in enumerate(outcome.sent, start=1):
        inputs = columns.shape[1] - outcome.hidden
        edges += [edges[-1] + inputs, edges[-1] + inputs + outcome.hidden]
        names += [f"layer {layer}: x", f"layer {layer}: h"]
    for edge in edges[1:-1]:
        axes.axhline(edge, color=BORDER, linewidth=1)
    _mark_exit(axes, outcome)
    axes.tick_params(labelbottom=False)
    axes.set(yticks=[(low + high) / 2 for low, high in pairwise(edges)], yticklabels=names)


def _share_sent(axes: Axes, outcome: DemoOutcome) -> None:
    for layer, columns in enumerate(outcome.sent, start=1):
        axes.step(np.arange(len(columns)) + 0.5, columns.mean(axis=1), where="mid", label=f"layer {layer}")
    axes.set(ylim=(0, 1.6), yticks=[0, 0.5, 1], ylabel="computed", xlabel="step")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper right", ncols=len(outcome.sent))


def _mark_exit(axes: Axes, outcome: DemoOutcome) -> None:
    """A line at the early exit, if there was one."""
    if outcome.exited_at < outcome.steps:
        axes.axvline(outcome.exited_at, color=BORDER, linestyle="--", linewidth=1.5)
        axes.annotate(
            "exit", (outcome.exited_at, 1), xycoords=("data", "axes fraction"), xytext=(3, -3),
            textcoords="offset points", color=BORDER, va="top", fontsize="small",
        )  # fmt: skip


def _extent(outcome: DemoOutcome, height: int) -> tuple[float, float, float, float]:
    """Image coordinates in which step t covers t to t + 1 and row r covers r to r + 1, downwards."""
    return (0.0, float(outcome.steps), float(height), 0.0)
