"""How long a calibration may take, and which of its steps get how much of that."""

from __future__ import annotations

import math
from time import perf_counter
from typing import Any

from ..errors import CalibrationError, InputError
from ..progress import duration


class TimeBudget:
    """So many seconds from now on; None: as long as it takes.

    Raises:
        InputError: not a number of seconds above 0.
    """

    def __init__(self, seconds: Any):
        if not (seconds is None or (isinstance(seconds, int | float) and 0 < seconds < math.inf)):
            raise InputError(f"seconds: got {seconds!r}, expected a number above 0, or None for no limit")
        self._begun, self._seconds = perf_counter(), math.inf if seconds is None else float(seconds)

    @property
    def spent(self) -> float:
        """Seconds since the start."""
        return perf_counter() - self._begun

    @property
    def left(self) -> float:
        """Seconds that are left; infinity without a limit."""
        return self._seconds - self.spent

    def check(self, least: float) -> None:
        """Raise ``CalibrationError`` unless at least so many seconds are left."""
        if self.left < least:
            raise CalibrationError(
                f"seconds: got {self._seconds:g}, but this model and these sequences need at least about "
                f"{duration(self.spent + least)}; give more time or fewer sequences"
            )

    def share(self, reserved: float) -> Share:
        """What is left now, less a reserve for what follows, but at least half of it."""
        left = self.left
        return Share(perf_counter(), max(left - reserved, left / 2))


class Share:
    """A part of a budget, for one step.

    Args:
        begun: by ``perf_counter``.
        seconds: that it lasts.
    """

    def __init__(self, begun: float, seconds: float):
        self._begun, self._seconds = begun, seconds

    def over(self, share: float = 1.0) -> bool:
        """Whether this share of it has passed."""
        return perf_counter() - self._begun > share * self._seconds
