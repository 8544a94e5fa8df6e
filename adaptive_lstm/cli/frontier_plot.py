"""The frontier of a calibration as a figure: what every candidate loses and costs, and which one is certified.

Needs matplotlib, which only the extra `demo` installs.
"""

from pathlib import Path
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ..calibration.calibrate import Calibration
from .frontier import chosen, families, height, pareto, risk_scale

# Okabe and Ito's palette, which colour-blind people can tell apart.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442")
SHAPES = ("o", "s", "^", "v", "D")  # one after the other, when all colours are used up
TITLE = 70  # characters of a line
CROWDED = 5  # groups from which on the legend stands beside the axes
LIMIT, PASSED = "#c1121f", "#111111"
TOP = 3.0  # limits that the axis of losses shows; what loses more lies on its upper edge
DECADE = 0.1  # a lowest cost below this calls for a logarithmic axis


def draw(calibration: Calibration, path: Path, *, cost: str, title: str) -> None:
    """Write the figure to `path`; its ending chooses the format (.png, .pdf, .svg). `cost`: as for `render`."""
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
        place = (point.cost, min(height(point.search_risks, factors), top))
        groups.setdefault(families(point), []).append(place)
    for i, (group, places) in enumerate(sorted(groups.items(), key=lambda item: (item[0] != "Dense", item[0]))):
        turn, place_in_turn = divmod(i - 1, len(COLOURS))
        colour, shape = ("black", "o") if group == "Dense" else (COLOURS[place_in_turn], SHAPES[turn % len(SHAPES)])
        costs, risks = zip(*places, strict=True)
        axes.scatter(costs, risks, s=34, color=colour, marker=shape, alpha=0.75, linewidth=0, label=_words(group))
    best = [(point.cost, min(height(point.search_risks, factors), top)) for point in pareto(calibration)]
    axes.plot(*zip(*best, strict=True), color="0.55", linewidth=1, drawstyle="steps-post", zorder=1, label="best")
    axes.axhline(limit, color=LIMIT, linestyle="--", linewidth=1.2, label=f"limit {limit:g}")
    tested = [(p.cost, height(p.search_risks, factors)) for p in calibration.frontier if p.test_risks is not None]
    if tested:
        costs, risks = zip(*tested, strict=True)
        axes.scatter(costs, risks, s=95, facecolor="none", edgecolor="0.35", linewidth=1, label="tested")
    _mark(axes, calibration, factors)
    if min(point.cost for point in calibration.frontier) < DECADE:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(left=0)
    axes.set_ylim(-0.04 * top, 1.04 * top)
    count = calibration.certificate.sequences["search"]["count"]
    axes.set(xlabel=f"{cost}, share of the dense model's", ylabel=f"{name} on {count} search sequences")
    axes.grid(alpha=0.25)
    if len(groups) < CROWDED:
        axes.legend(loc="upper right", fontsize="small", framealpha=0.9)
    else:
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize="small", frameon=False)


def _mark(axes: Axes, calibration: Calibration, factors: tuple[float, ...]) -> None:
    """The certified candidate: a star, and beside it the losses on the test split up to their upper bounds."""
    point, record = chosen(calibration), calibration.certificate
    if point is None or point.test_risks is None:
        axes.set_title(f"nothing certified at confidence {record.confidence:g}", fontsize="medium")
        return
    size = record.sequences["test"]["count"]
    mean = height(point.test_risks, factors)
    above = height([float(one["bound"]) for one in record.losses], factors) - mean
    axes.plot(
        point.cost, height(point.search_risks, factors), "*", markersize=17, color=PASSED, markeredgecolor="white",
        label="certified", zorder=4,
    )  # fmt: skip
    axes.errorbar(
        point.cost, mean, yerr=np.array([[0.0], [above]]), marker="D", markersize=6, color=PASSED, capsize=5,
        label=f"its loss on {size} test sequences,\nand upper bound at {record.confidence:g}", zorder=3,
    )  # fmt: skip
    axes.set_title("certified: " + fill(point.name, TITLE), fontsize="medium")


def _words(group: str) -> str:
    """A label for people: "ExitInTime" becomes "exit in time"."""
    text = "".join(f" {c.lower()}" if c.isupper() else c for c in group)
    return " ".join(text.split())
