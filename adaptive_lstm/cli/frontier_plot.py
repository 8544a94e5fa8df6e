"""A calibration as a figure: the loss and cost of every candidate, and the certified one.

Needs matplotlib: `pip install 'adaptive-lstm[demo]'`.
"""

from pathlib import Path
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ..calibration.calibrate import Calibration
from .frontier import certified_point, families, pareto, risk_on_axis, risk_scale

# Okabe and Ito's palette, safe for colour-blind readers.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442")
SHAPES = ("o", "s", "^", "v", "D")  # the next one when all colours are used
TITLE_WIDTH = 70  # characters
CROWDED = 5  # with so many groups the legend is put beside the axes
LIMIT_COLOUR, CERTIFIED_COLOUR = "#c1121f", "#111111"
TOP = 3.0  # end of the loss axis, in limits; candidates with a larger loss are drawn on the upper edge
LOG_BELOW = 0.1  # the cost axis is logarithmic if the lowest cost is below this


def draw(calibration: Calibration, path: Path, *, cost: str, title: str) -> None:
    """Write the figure.

    Args:
        calibration: to draw.
        path: .png, .pdf or .svg.
        cost: what its costs are, in words.
        title: of the figure.
    """
    figure = Figure(figsize=(11, 5.8), layout="constrained")
    FigureCanvasAgg(figure)  # no display, and no global state of pyplot
    draw_on(figure.add_subplot(), calibration, cost=cost)
    figure.suptitle(title)
    figure.savefig(path, dpi=130)


def draw_on(axes: Axes, calibration: Calibration, *, cost: str) -> None:
    """Draw on axes of a larger figure."""
    name, limit, factors = risk_scale(calibration)
    top = TOP * limit
    groups: dict[str, list[tuple[float, float]]] = {}
    for point in calibration.frontier:
        place = (point.cost, min(risk_on_axis(point.search_risks, factors), top))
        groups.setdefault(families(point), []).append(place)
    for i, (group, places) in enumerate(sorted(groups.items(), key=lambda item: (item[0] != "Dense", item[0]))):
        turn, place_in_turn = divmod(i - 1, len(COLOURS))
        colour, shape = ("black", "o") if group == "Dense" else (COLOURS[place_in_turn], SHAPES[turn % len(SHAPES)])
        costs, risks = zip(*places, strict=True)
        axes.scatter(costs, risks, s=34, color=colour, marker=shape, alpha=0.75, linewidth=0, label=_in_words(group))
    best = [(point.cost, min(risk_on_axis(point.search_risks, factors), top)) for point in pareto(calibration)]
    axes.plot(
        *zip(*best, strict=True), color="0.55", linewidth=1, drawstyle="steps-post", zorder=1, label="best candidates"
    )
    axes.axhline(limit, color=LIMIT_COLOUR, linestyle="--", linewidth=1.2, label=f"limit {limit:g}")
    tested = [(p.cost, risk_on_axis(p.search_risks, factors)) for p in calibration.frontier if p.test_risks is not None]
    if tested:
        costs, risks = zip(*tested, strict=True)
        axes.scatter(costs, risks, s=95, facecolor="none", edgecolor="0.35", linewidth=1, label="tested")
    _mark(axes, calibration, factors)
    if min(point.cost for point in calibration.frontier) < LOG_BELOW:
        logarithmic(axes, (1, 2, 5))
    else:
        axes.set_xlim(left=0)
    axes.set_ylim(-0.04 * top, 1.04 * top)
    count = calibration.certificate.sequences["search"]["count"]
    axes.set(xlabel=f"{cost}, share of the model without skipping", ylabel=f"{name}, mean of {count} search sequences")
    axes.grid(alpha=0.25)
    if len(groups) < CROWDED:
        axes.legend(loc="upper right", fontsize="small", framealpha=0.9)
    else:
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize="small", frameon=False)


def logarithmic(axes: Axes, marked: tuple[float, ...]) -> None:
    """Make the x axis logarithmic, with plain numbers at the ``marked`` multiples of powers of ten."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=marked))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _mark(axes: Axes, calibration: Calibration, factors: tuple[float, ...]) -> None:
    """Draw the certified candidate: a star, and below or above it its test loss with the upper bound."""
    point, record = certified_point(calibration), calibration.certificate
    if point is None or point.test_risks is None:
        axes.set_title(f"candidates: nothing certified at confidence {record.confidence:g}", fontsize="medium")
        return
    size = record.sequences["test"]["count"]
    mean = risk_on_axis(point.test_risks, factors)
    above = risk_on_axis([float(one["bound"]) for one in record.losses], factors) - mean
    axes.plot(
        point.cost, risk_on_axis(point.search_risks, factors), "*", markersize=17, color=CERTIFIED_COLOUR,
        markeredgecolor="white", label="certified", zorder=4,
    )  # fmt: skip
    axes.errorbar(
        point.cost, mean, yerr=np.array([[0.0], [above]]), marker="D", markersize=6, color=CERTIFIED_COLOUR, capsize=5,
        label=f"its loss on {size} test sequences\nand {record.confidence:.0%} upper bound", zorder=3,
    )  # fmt: skip
    axes.set_title(fill("candidates; certified: " + point.name, TITLE_WIDTH), fontsize="medium")


def _in_words(group: str) -> str:
    """A label for readers: "exit in time" for "ExitInTime", "nothing skipped" for "Dense"."""
    if group == "Dense":
        return "nothing skipped"
    text = "".join(f" {c.lower()}" if c.isupper() else c for c in group)
    return " ".join(text.split())
