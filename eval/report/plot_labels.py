"""Names beside points and lines, where they cover nothing: figures that need no legend. Part of ``plots.py``.

Places are in pixels of a figure whose layout is done; the axes stay where they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

FAINT = "#c9cdd3"


@dataclass(frozen=True)
class Name:
    """What to write in which colour, and the point in data coordinates that it belongs to."""

    text: str
    tint: str
    x: float
    y: float


def at_ends(axes: Axes, ends: Sequence[Name], size: float) -> None:
    """Every line's name beside the axes at the height of its end, moved apart where they would overlap."""
    box = axes.get_window_extent()
    wanted = axes.transData.transform([(one.x, one.y) for one in ends])[:, 1]
    order, gap = np.argsort(wanted), size * 1.3
    heights = wanted[order]
    for _ in range(60):
        for i in range(1, len(heights)):
            short = gap - (heights[i] - heights[i - 1])
            if short > 0:
                heights[i - 1] -= short / 2
                heights[i] += short / 2
    heights += max(0.0, box.y0 - heights[0])  # the numbers of the axis are below,
    heights -= max(0.0, heights[-1] - box.y1)  # and the title is above
    for height, index in zip(heights, order, strict=True):
        one = ends[index]
        axes.annotate(one.text, (one.x, one.y), xytext=(1.04, (height - box.y0) / box.height),
                      textcoords="axes fraction", va="center", fontsize=size, color=one.tint,
                      annotation_clip=False,
                      arrowprops={"arrowstyle": "-", "color": FAINT, "linewidth": 0.6, "shrinkB": 4})  # fmt: skip


def beside(axes: Axes, names: Sequence[Name], size: float) -> None:
    """A name beside every point, where it covers no other name and no point; a thin line leads back if it is far."""
    figure = axes.figure
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()
    inside = axes.get_window_extent()
    places = axes.transData.transform([(one.x, one.y) for one in names])
    taken = [(x - 4.0, y - 4.0, x + 4.0, y + 4.0) for x, y in places]
    for place, one in sorted(zip(places, names, strict=True), key=lambda item: float(item[0][0])):
        text = axes.annotate(one.text, (one.x, one.y), xytext=(0, 0), textcoords="offset pixels", fontsize=size,
                             color=one.tint, ha="left", va="center", annotation_clip=False)  # fmt: skip
        text.set_in_layout(False)  # the axes stay where they are
        extent = text.get_window_extent()
        shifts = _offsets(extent.width)
        half = np.array([0.0, -extent.height / 2, extent.width, extent.height / 2])
        boxes = np.hstack([shifts, shifts]) + half + np.tile(place, 2)
        chosen = int(np.argmin(_costs(boxes, shifts, np.array(taken), inside)))
        text.set_position((float(shifts[chosen, 0]), float(shifts[chosen, 1])))
        low_x, low_y, high_x, high_y = (float(v) for v in boxes[chosen])
        taken.append((low_x, low_y, high_x, high_y))
        near = np.clip(place, (low_x, low_y), (high_x, high_y)) - place
        if float(np.abs(near).max()) > 7:
            arrow = {"arrowstyle": "-", "color": one.tint, "alpha": 0.45, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
            start = float(near[0]), float(near[1])
            line = axes.annotate("", (one.x, one.y), xytext=start, textcoords="offset pixels", arrowprops=arrow)
            line.set_in_layout(False)


def _offsets(width: float) -> npt.NDArray[np.float64]:
    """[N, 2] the possible places of a name of that width: the left end of its middle line, from the point."""
    sideways = (-width / 2, 6.0, -6.0 - width, 20.0, -20.0 - width, 45.0, -45.0 - width)
    rings = [(dx, sign * step) for step in range(0, 130, 4) for sign in (1, -1) for dx in sideways]
    return np.array([(6.0, 0.0), (-6.0 - width, 0.0), *rings])


def _costs(
    boxes: npt.NDArray[np.float64], shifts: npt.NDArray[np.float64], taken: npt.NDArray[np.float64], inside: Bbox
) -> npt.NDArray[np.float64]:
    """[N] distance from the point, and a fine for what a name would cover and for where it would stick out.

    boxes: [N, 4] x0, y0, x1, y1 of the name; shifts: [N, 2]; taken: [M, 4] boxes of points and of other names.
    """
    low, high = boxes[:, None, :2] - 1, boxes[:, None, 2:] + 1
    covered = ((low < taken[None, :, 2:]) & (high > taken[None, :, :2])).all(-1).sum(-1)
    outside = np.maximum(0, [inside.x0, inside.y0] - boxes[:, :2]) + np.maximum(
        0, boxes[:, 2:] - [inside.x1, inside.y1]
    )
    cost: npt.NDArray[np.float64] = (
        np.abs(shifts[:, 1]) + 0.3 * np.abs(shifts[:, 0]) + 1000.0 * covered + 30.0 * outside.sum(-1)
    )
    return cost
