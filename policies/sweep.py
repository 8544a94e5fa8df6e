"""A search sweep: settings of one family of policies in a row, from careful to bold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from ..types import StackShape
from .protocol import ColumnCurves, Policy
from .translators import DepthTranslators, TimeTranslators

if TYPE_CHECKING:
    from .forgetting import Forgetting

Settings = Mapping[str, Policy]
"""A policy by the module name of its LSTM. LSTMs that are not named skip nothing."""


class FittedTranslators(Protocol):
    """Translators of one stack (``adaptive_lstm.Translators``)."""

    @property
    def time(self) -> TimeTranslators | None:
        """For exits in time; None for a bidirectional stack."""

    @property
    def depth(self) -> DepthTranslators | None:
        """For exits in depth; None for a stack of one layer."""


@dataclass(frozen=True, eq=False)
class FitData:
    """What the fit split of a calibration gives a sweep, by the module name of the LSTM.

    ``shapes``: sizes of every stack.
    ``sensitivities``: where a family needs "sensitivity", else empty.
    ``translators``: where a family needs "translators", else empty.
    ``forgetting``: where a family needs "forgetting", of stacks that were given long sequences; else empty.
    """

    shapes: Mapping[str, StackShape]
    sensitivities: Mapping[str, ColumnCurves]
    translators: Mapping[str, FittedTranslators]
    forgetting: Mapping[str, Forgetting] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Sweep:
    """Settings of one family from careful (position 0) to bold (1).

    ``family``: sweeps of one family are alternatives; a candidate takes at most one of them.
    ``name``: unique, for tables.
    ``levels``: strengths at equal distances on the way, each a number that ``make`` turns into settings; between them
    the strength is interpolated geometrically.
    ``make``: settings of a strength.
    ``first_open_bucket``: of an exit in time, the first time bucket in which sequences may exit. Sweeps that open only
    later buckets serve conditional control and are not searched otherwise.
    ``starts``: of an exit in time, the first timestep of every bucket; else empty.
    """

    family: str
    name: str
    levels: tuple[float, ...]
    make: Callable[[float], Settings]
    first_open_bucket: int = 0
    starts: tuple[int, ...] = ()

    @property
    def positions(self) -> tuple[float, ...]:
        """Positions of the levels."""
        return tuple(i / (len(self.levels) - 1) for i in range(len(self.levels)))

    @property
    def spacing(self) -> float:
        """Distance between two levels."""
        return 1 / (len(self.levels) - 1)

    def strength(self, position: float) -> float:
        """The strength at a position: exact at the levels."""
        at = min(max(position, 0.0), 1.0) * (len(self.levels) - 1)
        low = min(int(at), len(self.levels) - 2)
        part = at - low
        return float(self.levels[low] ** (1 - part) * self.levels[low + 1] ** part)
