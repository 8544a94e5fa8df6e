"""Simulates the delta rule at a grid of thresholds: how often each column is sent, and the mean square of what is not.

The rule of ``policies/delta.py``, "send when |value - sent| > threshold", runs on recorded values of the dense run, for
all columns and thresholds at once. A run that skips follows a trajectory of its own: the curves rank thresholds and
estimate the work; the quality of a choice is measured by running it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..codec import short_repr
from ..types import DoubleArray, FloatArray

# In units of 1 / rms of the column's weights: such a change of the value moves the gate pre-activations by 1 in root
# mean square. This needs no data and no bound on the values, so raw features and projections have a grid as h has.
GRID = np.concatenate([[0.0], np.geomspace(1e-4, 3.2, 24)])
_DEAD = 1e-3  # of the mean: columns with smaller weights share the grid of one with these
_BLOCK = 2**18  # values in flight: what stays in a core's cache


@short_repr
@dataclass(frozen=True, eq=False)
class Curves:
    """Cost and error of C columns at K thresholds each; the first threshold is 0, the others grow.

    ``thresholds`` [K, C]: in units of the value.
    ``activity`` [K, C]: share of the steps at which the column is sent.
    ``residual`` [K, C]: mean of (value - sent)^2 over all steps.
    """

    thresholds: FloatArray
    activity: DoubleArray
    residual: DoubleArray

    def part(self, columns: slice) -> Curves:
        """The curves of some of the columns."""
        return Curves(self.thresholds[:, columns], self.activity[:, columns], self.residual[:, columns])

    def thresholds_at_price(self, price: DoubleArray) -> FloatArray:
        """Thresholds [C] with the least ``activity + price * residual``, the smallest among equals; price [C]."""
        best = np.argmin(self.activity + price * self.residual, axis=0)
        chosen: FloatArray = self.thresholds[best, np.arange(len(best))]
        return chosen

    def activity_at(self, thresholds: FloatArray) -> DoubleArray:
        """Activity [C] at any thresholds [C]: linear between those of the grid, as at the last one beyond it."""
        columns = zip(thresholds, self.thresholds.T, self.activity.T, strict=True)
        return np.array([np.interp(threshold, grid, activity) for threshold, grid, activity in columns])


def threshold_grid(weight: FloatArray) -> FloatArray:
    """The thresholds [K, C] to measure for a matrix ``weight`` [rows, C]."""
    rms = np.sqrt(np.mean(weight.astype(np.float64) ** 2, axis=0))
    unit = 1.0 / np.maximum(rms, _DEAD * rms.mean() or 1.0)
    grid: FloatArray = (GRID[:, None] * unit).astype(np.float32)
    return grid


@torch.no_grad()
def simulate_delta(steps: Sequence[torch.Tensor], thresholds: FloatArray) -> tuple[DoubleArray, DoubleArray]:
    """Run the delta rule over sequences that start with nothing sent.

    Args:
        steps: values [n, C] in the order in which they are computed; row b of each is sequence b. n either never grows
            (sequences end) or never falls (sequences join in, as in the reverse direction of packed rows).
        thresholds: [K, C].

    Returns:
        How many values were sent, and the sum of (value - sent)^2 over all values: [K, C] each.
    """
    most = max(len(values) for values in steps)
    width = max(1, _BLOCK // (most * len(thresholds)))
    parts = [
        _simulated([values[:, start : start + width] for values in steps], thresholds[:, start : start + width], most)
        for start in range(0, thresholds.shape[1], width)
    ]
    sent, squares = zip(*parts, strict=True)
    return np.concatenate(sent, axis=1), np.concatenate(squares, axis=1)


def _simulated(steps: Sequence[torch.Tensor], thresholds: FloatArray, most: int) -> tuple[DoubleArray, DoubleArray]:
    dtype = torch.promote_types(steps[0].dtype, torch.float32)
    limit = torch.from_numpy(thresholds).to(steps[0].device, dtype)
    sent, change, fires, count, squares = limit.new_zeros(5, most, *limit.shape)
    started = 0
    for values in steps:
        n = len(values)
        value = values.to(dtype)[:, None]  # [n, 1, C] against [n, K, C]
        if n > started:  # the first step of a sequence sends all that is not zero, as the executors do
            sent[started:n] = value[started:]
            count[started:n] += value[started:] != 0
            started = n
        torch.sub(value, sent[:n], out=change[:n])
        torch.gt(change[:n].abs_(), limit, out=fires[:n])
        count[:n] += fires[:n]
        sent[:n].lerp_(value, fires[:n])  # weights of exactly 0 and 1 take either end as it is
        torch.sub(value, sent[:n], out=change[:n])
        squares[:n].addcmul_(change[:n], change[:n])
    return count.double().sum(0).cpu().numpy(), squares.double().sum(0).cpu().numpy()
