"""What exits in time and in depth share: a head, thresholds, and the check against them.

Translate, then trust: the states known so far are mapped to the final state of the top layer (``translators``), and the
model's own head gives its confidence in *that* state. Without a head, an exit compares two translations.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from ..codec import brief, is_number, is_one_of
from ..errors import PolicyError
from .head import MEASURES, Head, LinearHead, Measure, as_head, confidence
from .kind import PolicyKind

if TYPE_CHECKING:
    import torch
    from typing_extensions import Self

    from .family import Family

_ONE_MINUS_CONFIDENCE = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
_RMS_CHANGES = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)


@dataclass(frozen=True, eq=False)
class Exit:
    """The settings that both exits have, see there."""

    head: Head | None = None
    _: KW_ONLY
    threshold: float | tuple[float, ...] | None = None
    measure: Measure = "margin"

    kind: ClassVar[PolicyKind]

    def _resolve(self, count: int, places: str) -> None:
        """Settle the head and one threshold for each of ``count`` places (``places`` names them in errors).

        Raises:
            PolicyError: another number of thresholds, negative ones, an unknown measure, or a head that cannot be
                called.
        """
        given = never(self.head) if self.threshold is None else self.threshold
        row = given if isinstance(given, tuple | list) else (given,)
        if not all(map(is_number, row)):
            raise PolicyError(f"threshold: got {brief(given)}, expected numbers >= 0")
        each = tuple(map(float, row))
        if len(each) == 1:
            each *= count
        if len(each) != count:
            raise PolicyError(f"threshold: got {len(each)} values for {count} {places}")
        if not all(t >= 0 for t in each):
            raise PolicyError(f"threshold: got {brief(given)}, expected numbers >= 0")
        if not is_one_of(self.measure, MEASURES):
            raise PolicyError(f"measure: got {brief(self.measure)}, expected one of {', '.join(MEASURES)}")
        object.__setattr__(self, "head", None if self.head is None else as_head(self.head))
        object.__setattr__(self, "threshold", each)

    @property
    def thresholds(self) -> tuple[float, ...]:
        """One threshold per place: time bucket, or layer below the top."""
        assert isinstance(self.threshold, tuple)  # settled in __post_init__
        return self.threshold

    @property
    def active(self) -> bool:
        """Whether any threshold lets anything exit."""
        return any(t < 1 for t in self.thresholds) if self.head is not None else any(self.thresholds)

    @property
    def native_head(self) -> LinearHead | None:
        """The head if it is plain data."""
        return self.head if isinstance(self.head, LinearHead) else None

    @property
    def holds_code(self) -> bool:
        """Whether the head is Python code, which only Python can run."""
        return self.head is not None and self.native_head is None

    def with_states_in(self, dtype: torch.dtype) -> Self:
        """The same exit; a head that is Python code is given states of this dtype, whatever the run computes in."""
        if not self.holds_code:
            return self
        head: Any = self.head
        return replace(self, head=lambda states: head(states.to(dtype)).to(states.dtype))

    def passes(self, place: int, translation: torch.Tensor, earlier: torch.Tensor | None) -> torch.Tensor:
        """Whether the check at a place passes: bool [n].

        With a head its confidence in ``translation`` [n, width] must exceed the threshold; without, the translation
        must differ from the ``earlier`` one by less (root mean square; NaN never passes).
        """
        if self.head is not None:
            return confidence(self.head, translation, self.measure) > self.thresholds[place]
        assert earlier is not None  # such exits are not checked before there are two translations
        return (translation - earlier).pow(2).mean(1).sqrt() < self.thresholds[place]


def never(head: object | None) -> float:
    """The threshold that nothing passes: confidence must exceed it, or without a head a change stay below it."""
    return float("inf") if head is not None else 0.0


def searched_levels(family: Family) -> tuple[float, ...]:
    """Strengths for the sweep of a family of exits, from careful to bold."""
    return _ONE_MINUS_CONFIDENCE if family.settings.get("head") is not None else _RMS_CHANGES


def threshold_at(family: Family, level: float) -> float:
    """The threshold of a strength."""
    return 1 - level if family.settings.get("head") is not None else level
