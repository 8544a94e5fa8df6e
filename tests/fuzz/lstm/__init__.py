"""Random LSTMs, inputs and settings: the native kernels against the reference executor and ``nn.LSTM``.

``draw`` draws a case, ``model``, ``policy`` and ``tensors`` make it, ``check`` says what must hold: of whole calls
(``forward``), streams (``streams``), dtypes and modes (``surroundings``), tensors that are not plain memory
(``odd_tensors``), and calls that must be refused (``wrong``).
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from ..target import Case, Seen
from . import check, draw


class Lstm:
    """The target."""

    def draw(self, choice: random.Random) -> Case:
        """As ``Target.draw``."""
        return draw.case(choice)

    def check(self, case: Case) -> Seen:
        """As ``Target.check``."""
        return check.check(case)

    def simpler(self, case: Case) -> Iterable[Case]:
        """As ``Target.simpler``."""
        return draw.simpler(case)


TARGET = Lstm()
