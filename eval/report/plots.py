"""The forms of figure that the report draws: each takes plain values and returns one small SVG.

Nothing is read or computed here. Panels are narrow, so that a page can put three beside each other or one under the
other on a phone. Text stays text. A contender has one colour wherever it appears (Paul Tol's and Okabe-Ito's hues,
darkened until they can be read as text); its precision is the shape of its marker.
"""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from .plot_labels import Name, at_ends, beside

OURS, INK = "#0058a8", "#33373d"
FAMILIES = {  # first words of a contender's name -> colour
    "torch": "#5a5f66",
    "ort": "#b34e00",
    "onnx": "#b34e00",
    "openvino": "#00714c",
    "ncnn": "#9a2f6d",
    "tract": "#7d6200",
    "mnn": "#5b3fa0",
    "opencv": "#9c2b2b",
    "litert": "#00707d",
}
TINTS = (OURS, "#b34e00", "#00714c", "#9a2f6d", "#00707d", "#5a5f66", "#7d6200")  # for lines that are no contenders
MARKERS = {"int8": "^", "bf16": "s"}  # fp32: a circle
SENT = LinearSegmentedColormap.from_list("sent", ["#f4f5f7", "#9db9d6", "#0b3a66"])
FONT = 8.5
DPI = 72  # of SVG: a point is a pixel, also for labels that are placed by pixels
STYLE: Any = {  # matplotlib wants the type of every key
    "font.size": FONT,
    "font.family": "DejaVu Sans",
    "svg.fonttype": "none",
    "svg.hashsalt": "adaptive-lstm",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a9099",
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": "#5a5f66",
    "ytick.color": "#5a5f66",
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "grid.color": "#e9ebee",
    "grid.linewidth": 0.7,
}


@dataclass(frozen=True)
class Mark:
    """A value in a row of dots, with the ends of its whisker, and the words beside it."""

    who: str
    value: float
    low: float
    high: float
    words: str


@dataclass(frozen=True)
class Series:
    """A line: its direct label, its colour, and its points."""

    name: str
    tint: str
    xs: Sequence[float]
    ys: Sequence[float]
    dashed: bool = False


def colour(who: str) -> str:
    """Of a contender, by the first word of its name; this project's runtime has any other name."""
    first = who.lower().replace("-", " ").split(" ")[0] if who else ""
    return next((tint for family, tint in FAMILIES.items() if first.startswith(family)), OURS)


def marker(who: str) -> str:
    """Of a contender: a circle in float32, a triangle in int8, a square in bf16, a diamond where it skips."""
    if any(word in who for word in ("delta", "certified", "skip", "exit", "hold")):
        return "D"
    return next((shape for word, shape in MARKERS.items() if word in who), "o")


def dots(
    marks: Sequence[tuple[str, Mark]],
    *,
    title: str,
    unit: str,
    log: bool = True,
    line: float | None = None,
    clock: bool = False,
    width: float = 3.7,
) -> str:
    """One row per (label, mark): a dot, its whisker and its value in words.

    line: a value to compare with. clock: values are seconds. width: in inches; more of it where labels are long.
    """
    with _figure(width, 0.85 + 0.235 * len(marks)) as figure:
        axes = figure.add_subplot()
        for row, (_, mark) in enumerate(marks):
            tint = colour(mark.who)
            axes.axhline(row, color="#eef0f2", linewidth=0.7, zorder=0)
            axes.plot([mark.low, mark.high], [row, row], color=tint, linewidth=1.6, alpha=0.55, solid_capstyle="butt")
            axes.plot(mark.value, row, marker(mark.who), color=tint, markersize=5.5)
            axes.annotate(mark.words, (mark.high, row), xytext=(6, 0), textcoords="offset points", va="center",
                          fontsize=FONT - 0.5, color=tint,
                          bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6})  # fmt: skip
        if line is not None:
            axes.axvline(line, color="#8a9099", linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
        values = [v for _, m in marks for v in (m.low, m.high, m.value)] + ([] if line is None else [line])
        longest = max(len(mark.words) for _, mark in marks)
        _widen(axes, min(values), max(values), log=log, room=0.45 + 0.02 * max(0, longest - 16))
        if clock:
            _clock(axes)
        axes.set_yticks(range(len(marks)), [label for label, _ in marks])
        for tick, (_, mark) in zip(axes.get_yticklabels(), marks, strict=True):
            tick.set_color(colour(mark.who))
        axes.set_ylim(len(marks) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(unit + (" (log)" if log else ""), loc="left")
        _title(figure, title)
        return _svg(figure)


def lines(
    series: Sequence[Series],
    *,
    title: str,
    across: str,
    up: str,
    log: str = "",
    ideal: bool = False,
    percent: str = "",
    clock: bool = False,
) -> str:
    """Lines with their names at their ends.

    log, percent: any of "xy". ideal: also the diagonal. clock: the upright axis is in seconds.
    """
    with _figure(4.5, 3.4) as figure:
        axes = figure.add_subplot()
        if "x" in log:
            axes.set_xscale("log")
        if "y" in log:
            axes.set_yscale("log")
        if ideal:
            axes.plot([0, 1], [0, 1], color="#8a9099", linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
            axes.text(0.16, 0.12, "paid in full", color="#6b7079", fontsize=FONT - 1, va="top")
        for one in series:
            axes.plot(one.xs, one.ys, "--" if one.dashed else "-", color=one.tint, linewidth=1.5,
                      marker=marker(one.name), markersize=4)  # fmt: skip
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        axes.set(xlabel=across, ylabel=up)
        _title(figure, title)
        if not log:
            axes.xaxis.set_major_locator(MaxNLocator(5))
        elif "x" not in log:
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=not percent))
        for axis, name in ((axes.xaxis, "x"), (axes.yaxis, "y")):
            if name in percent:
                axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
            elif name in log:
                axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
                axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
                axis.set_minor_formatter(NullFormatter())
        if clock:
            axes.yaxis.set_major_locator(LogLocator(numticks=12))
            axes.yaxis.set_major_formatter(FuncFormatter(_time))
        figure.draw_without_rendering()
        at_ends(axes, [Name(one.name, one.tint, one.xs[-1], one.ys[-1]) for one in series], FONT - 0.5)
        return _svg(figure)


def cloud(
    points: Sequence[tuple[float, float, str]], *, title: str, across: str, up: str, percent: str = "", log: str = ""
) -> str:
    """Named points; percent, log: any of "xy"."""
    with _figure(4.5, 3.9) as figure:
        axes = figure.add_subplot()
        for x, y, name in points:
            axes.plot(x, y, marker(name), color=OURS, markersize=5)
        axes.margins(0.12)
        if "y" in log:
            axes.set_yscale("log")
        axes.grid()
        axes.set_axisbelow(True)
        axes.set(xlabel=across, ylabel=up)
        _title(figure, title)
        for axis, name in ((axes.xaxis, "x"), (axes.yaxis, "y")):
            if name in percent:
                axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
        beside(axes, [Name(name, INK, x, y) for x, y, name in points], FONT - 0.8)
        return _svg(figure)


def heat(
    picture: npt.NDArray[np.float64],
    rows: Mapping[str, Sequence[float]],
    columns: Mapping[str, npt.NDArray[np.bool_]],
    *,
    left: int,
    title: str,
    height: float = 6.4,
) -> str:
    """The input above, the share of columns each step sent per operand in the middle, every single column below.

    picture: [R, T]; rows: operand -> T shares; columns: operand -> [T, N] True where a column was sent.
    """
    steps = picture.shape[1]
    with _figure(8.2, height) as figure:
        top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=(1.1, 0.22 * len(rows) + 0.3, 4))
        for axes in (top, middle, bottom):
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
        top.imshow(picture, aspect="auto", cmap="Greys", extent=(0, steps, len(picture), 0), interpolation="nearest")
        top.set(yticks=[], ylabel="input")
        _title(figure, title)
        shares = np.array(list(rows.values()))
        shown = middle.imshow(shares, aspect="auto", cmap=SENT, vmin=0, vmax=1, extent=(0, steps, len(shares), 0),
                              interpolation="nearest")  # fmt: skip
        middle.set_yticks(np.arange(len(rows)) + 0.5, list(rows))
        bar = figure.colorbar(shown, ax=[top, middle, bottom], fraction=0.025, pad=0.01, ticks=[0, 0.5, 1])
        bar.ax.set_yticklabels(["none", "half", "all"])
        bar.outline.set_visible(False)
        bar.set_label("share of the columns that a step computes")
        every = np.concatenate(list(columns.values()), axis=1).T
        bottom.imshow(every, aspect="auto", cmap=SENT, vmin=0, vmax=1, extent=(0, steps, len(every), 0),
                      interpolation="nearest")  # fmt: skip
        edges = np.cumsum([0, *(block.shape[1] for block in columns.values())])
        for edge in edges[1:-1]:
            bottom.axhline(edge, color="white", linewidth=2)
        bottom.set_yticks([(a + b) / 2 for a, b in pairwise(edges)], list(columns))
        bottom.set_xlabel("step")
        for axes in (top, middle, bottom):
            if left < steps:
                axes.axvline(left, color="#c1121f", linewidth=1.2)
        if left < steps:
            bottom.annotate(f"answered after step {left}", (left, edges[-1] / 2), xytext=(6, 0),
                            textcoords="offset points", color="#c1121f")  # fmt: skip
        return _svg(figure)


@contextmanager
def _figure(width: float, height: float) -> Iterator[Figure]:
    """A figure of so many inches in the report's style."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
        FigureCanvasSVG(figure)
        yield figure


def _title(figure: Figure, title: str) -> None:
    """At the left edge, where the room is as wide as the panel."""
    figure.suptitle(title, x=0.012, ha="left", fontsize=FONT + 1, fontweight="bold")


def _svg(figure: Figure) -> str:
    """The bare <svg> element, as wide as its place, without a name of a font that the reader may lack."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = out.getvalue()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"'DejaVu Sans'(, [^;\"]+)?", "system-ui, 'Segoe UI', Helvetica, Arial, sans-serif", text)
    return re.sub(r"(<svg[^>]*?) (?:width|height)=\"[^\"]*pt\"", r"\1", text, count=1)


def _time(value: float, _: object) -> str:
    """A time as people write it, from nanoseconds to seconds."""
    unit, word = next((u for u in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")) if value >= u[0] * 0.999), (1e-9, "ns"))
    return f"{value / unit:g} {word}"


def _clock(axes: Axes) -> None:
    """Times on a logarithmic axis."""
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 30 else (1,), numticks=12))
    axes.xaxis.set_major_formatter(FuncFormatter(_time))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_minor_locator(NullLocator())


def _widen(axes: Axes, low: float, high: float, *, log: bool, room: float) -> None:
    """``room`` for the words to the right of the dots, as a share of the reach of the values."""
    if log:
        axes.set_xscale("log")
        reach = max(high / low, 1.5)
        axes.set_xlim(low / reach**0.08, high * reach**room)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if reach < 60 else (1,), numticks=8))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.set_xlim(min(0.0, low), high + room * (high - min(0.0, low)))
        axes.xaxis.set_major_locator(MaxNLocator(5))
