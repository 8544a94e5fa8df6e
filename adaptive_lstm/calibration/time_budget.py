"""How long a calibration may take, and which of its steps get how much of that."""

from __future__ import annotations

import math
from typing import Any

from ..errors import CalibrationError
from ..progress import Deadline, duration, time_limit


class TimeBudget(Deadline):
    """So many seconds from now on; None: as long as it takes.

    Raises:
        InputError: not a number of seconds above 0.
    """

    def __init__(self, seconds: Any):
        super().__init__(time_limit(seconds))

    def require(self, least: float) -> None:
        """Raise ``CalibrationError`` unless at least so many seconds are left."""
        if self.left < least:
            raise CalibrationError(
                f"seconds: got {self.seconds:g}, but this model and these sequences need at least about "
                f"{duration(self.spent + least)}; give more time or fewer sequences"
            )

    def part(self, reserved: float = math.inf) -> Deadline:
        """For one step: what is left now, less a reserve for what follows, but at least half of it."""
        left = self.left
        return Deadline(left if math.isinf(left) else max(left - reserved, left / 2))
