"""How soon a stack forgets where it started, as measured on the fit split of a calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .split_time import StartStates

MIN_TOLERANCE = 2.0**-20
"""A residual below is none: with integers warmed-up states come to be equal, and a tolerance of 0 repeats all."""


@dataclass(frozen=True, eq=False)
class Forgetting:
    """The states of one stack at the seams of sequences that were split.

    ``longest``: timesteps of the longest sequence.
    ``mean``: the mean of the states that it had reached.
    ``from_zeros``, ``from_mean``: by timesteps of the warm-up, the largest residual of every cell.
    """

    longest: int
    mean: StartStates
    from_zeros: Mapping[int, tuple[float, ...]]
    from_mean: Mapping[int, tuple[float, ...]]

    def tolerance(self, warm_up: int, *, mean: bool) -> tuple[float, ...]:
        """What was seen after such a warm-up, or the next shorter one that was measured."""
        seen = self.from_mean if mean else self.from_zeros
        at = max((w for w in seen if w <= warm_up), default=min(seen))
        return tuple(max(residual, MIN_TOLERANCE) for residual in seen[at])
