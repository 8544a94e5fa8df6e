"""What a monitor is told of a stream: something now and then while it runs, all of it at its end. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable

from ..policies import Parts
from ..types import Counts
from .monitor import LOOK, Monitor


class Watched:
    """A stream as a monitor sees it.

    A stream may exit at its last timestep, where a sequence is not checked: exits in time are no sign of drift.

    Args:
        monitor: or None: nobody looks.
        policy: of the stream.
        rows: that it is taken for.
        counted: its timesteps, of all rows together, and what was counted in them.
    """

    def __init__(self, monitor: Monitor | None, policy: Parts, rows: int, counted: Callable[[], tuple[int, Counts]]):
        self._monitor = None if policy.time_exit is not None else monitor
        self._watch = None if self._monitor is None else self._monitor.watch(rows)
        self._rows, self._counted, self._unseen = rows, counted, 0

    def __bool__(self) -> bool:
        return self._watch is not None

    def advanced(self, steps: int) -> None:
        """So many timesteps more; every LOOK of them one look is taken. Called first, as warnings may be errors."""
        self._unseen += steps
        if self._watch is not None and self._unseen >= LOOK:
            self._unseen = 0
            timesteps, counts = self._counted()
            self._watch.look(counts, timesteps)

    def ended(self) -> None:
        """The sequences in all rows have ended."""
        if self._monitor is not None:
            timesteps, counts = self._counted()
            if timesteps:
                self._monitor.see(counts, timesteps, self._rows)
