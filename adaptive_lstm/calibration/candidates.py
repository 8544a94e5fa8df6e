"""What a calibration may try: one-dimensional tracks of settings per policy family, from careful to bold.

A family is a policy given without strength (``Delta()``, ``ExitInTime(head=...)``); a track adds what only data can
give (sensitivity, translators) and turns a position in 0..1 into settings. A candidate takes at most one position of
one track per family.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ..analysis.fit_translators import Translators
from ..analysis.sensitivity import Sensitivity
from ..errors import AdaptiveLSTMError
from ..policies import (
    Combined,
    Delta,
    Dense,
    DepthTranslators,
    ExitInDepth,
    ExitInTime,
    HoldLayers,
    Policy,
    SkipTimesteps,
    TimeTranslators,
)
from ..types import StackShape
from .families import with_limit

Settings = Mapping[str, Policy]
"""A policy for every LSTM of a model, by module name."""

Key = tuple[tuple[str, float], ...]
"""Names a candidate."""


@dataclass(frozen=True, eq=False)
class Track:
    """Settings of one family, from careful (position 0) to bold (1).

    ``levels``: strengths at equal distances on that way, each a number that ``make`` turns into settings; between them
    it goes geometrically. ``starts``: first timestep of every time bucket of an exit in time; ``opens``: the first
    bucket in which sequences may leave (for conditional control).
    """

    family: str
    name: str
    levels: tuple[float, ...]
    make: Callable[[float], Settings]
    opens: int = 0
    starts: tuple[int, ...] = (0,)

    @property
    def positions(self) -> tuple[float, ...]:
        """Where the levels lie."""
        return tuple(i / (len(self.levels) - 1) for i in range(len(self.levels)))

    @property
    def spacing(self) -> float:
        """Distance of two levels."""
        return 1 / (len(self.levels) - 1)

    def strength(self, position: float) -> float:
        """The strength at a position: exact at the levels."""
        at = min(max(position, 0.0), 1.0) * (len(self.levels) - 1)
        low = min(int(at), len(self.levels) - 2)
        part = at - low
        return float(self.levels[low] ** (1 - part) * self.levels[low + 1] ** part)


@dataclass(frozen=True, eq=False)
class Candidate:
    """Positions on tracks of different families; none: nothing is skipped."""

    choices: tuple[tuple[Track, float], ...] = ()

    def __str__(self) -> str:
        return " + ".join(f"{t.name} {t.strength(p):.3g}" for t, p in self.choices) or "dense"

    @property
    def key(self) -> Key:
        """Equal for equal candidates."""
        return tuple((track.name, round(position, 6)) for track, position in self.choices)

    @property
    def families(self) -> frozenset[str]:
        """Which families it uses."""
        return frozenset(track.family for track, _ in self.choices)

    def settings(self, names: Sequence[str]) -> Settings:
        """The policy of every LSTM."""
        made = [track.make(track.strength(position)) for track, position in self.choices]
        out: dict[str, Policy] = {}
        for name in names:
            policies = [m[name] for m in made if not isinstance(m[name], Dense)]
            out[name] = Combined(*policies) if len(policies) > 1 else policies[0] if policies else Dense()
        return out

    def joined(self, other: Candidate) -> Candidate | None:
        """Both at once, or None if they share a family or cannot act together."""
        if self.families & other.families or {"time", "depth of sequences"} <= self.families | other.families:
            return None
        return Candidate((*self.choices, *other.choices))

    def careful(self, levels: float) -> Candidate:
        """The same with every strength lowered by so many levels of its track, the first level at the least."""
        return Candidate(tuple((track, max(0.0, p - levels * track.spacing)) for track, p in self.choices))

    def neighbours(self) -> Iterator[Candidate]:
        """The same a little bolder or more careful, one track at a time."""
        for i, (track, position) in enumerate(self.choices):
            for step in (-0.5, 0.25, 0.5):
                moved = position + step * track.spacing
                if 0 <= moved <= 1:
                    yield Candidate((*self.choices[:i], (track, moved), *self.choices[i + 1 :]))


@dataclass(frozen=True, eq=False)
class Measured:
    """What the fit split has told: per LSTM, by module name."""

    shapes: Mapping[str, StackShape]
    sensitivities: Mapping[str, Sensitivity]
    translators: Mapping[str, Translators]


_TAU = (0.002, 0.005, 0.01, 0.02, 0.04, 0.07, 0.12, 0.2, 0.35)
_PRICE = (1e5, 3e4, 1e4, 3e3, 1e3, 300.0, 100.0, 30.0, 10.0)
_LIMIT = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
_DOUBT = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)  # 1 - confidence
_SETTLED = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)


def tracks(families: Sequence[Policy], measured: Measured, conditional: bool) -> list[Track]:
    """All tracks of some families.

    ``conditional``: exits in time also with only the later time buckets open, for control per exit_time time.
    """
    out: list[Track] = []
    for family in families:
        if isinstance(family, Delta):
            out += _delta(measured)
        elif isinstance(family, SkipTimesteps):
            out += _skipping(family, measured)
        elif isinstance(family, HoldLayers):
            out += _holding(family, measured)
        elif isinstance(family, ExitInTime):
            out += _leaving_in_time(family, measured, conditional)
        elif isinstance(family, ExitInDepth):
            out += _leaving_in_depth(family, measured)
    return out


def _delta(measured: Measured) -> Iterator[Track]:
    def scaled(gamma: float, power: float) -> Callable[[float], Settings]:
        return lambda tau: {
            n: Delta.scaled(s, tau, gamma=gamma, power=power) for n, s in measured.sensitivities.items()
        }

    def priced(gamma: float, raw: bool) -> Callable[[float], Settings]:
        return lambda price: {
            n: Delta.priced(s, price, gamma=gamma, raw=raw) for n, s in measured.sensitivities.items()
        }

    yield Track("delta", "delta(one threshold)", _TAU, scaled(0, 0))
    for gamma, power in ((0.0, 1.0), (0.5, 1.0), (0.75, 1.0), (1.0, 0.5)):
        yield Track("delta", f"delta(gamma={gamma:g}, power={power:g})", _TAU, scaled(gamma, power))
    for gamma, raw in ((0.0, False), (0.5, False), (0.5, True)):
        label = f"delta(priced, gamma={gamma:g}{', raw' if raw else ''})"
        yield Track("delta", label, _PRICE, priced(gamma, raw))


def _skipping(family: SkipTimesteps, measured: Measured) -> Iterator[Track]:
    modes: tuple[Literal["hold_gates", "hold_state"], ...] = ("hold_gates", "hold_state")
    for mode in modes:

        def make(limit: float, mode: Literal["hold_gates", "hold_state"] = mode) -> Settings:
            return {n: replace(family, x_share=limit, mode=mode) for n in measured.shapes}

        yield Track("skip", f"skip({mode})", _LIMIT, make)


def _holding(family: HoldLayers, measured: Measured) -> Iterator[Track]:
    if all(shape.num_layers < 2 for shape in measured.shapes.values()):
        return

    def make(limit: float) -> Settings:
        return {
            n: with_limit(family, limit) if shape.num_layers > 1 else Dense() for n, shape in measured.shapes.items()
        }

    yield Track("hold", "hold", _LIMIT, make)


def _leaving_in_time(family: ExitInTime, measured: Measured, conditional: bool) -> Iterator[Track]:
    name = next(iter(measured.shapes))
    fitted = measured.translators[name].time if name in measured.translators else None
    options: list[tuple[str, TimeTranslators | None]] = [("as it is", None)]
    if fitted is not None:
        options.append(("translated", fitted))
    starts = fitted.starts if fitted is not None else (0,)
    levels = _DOUBT if family.head is not None else _SETTLED
    for text, translators in options:
        for opens in range(len(starts) if conditional else 1):

            def make(level: float, translators: TimeTranslators | None = translators, opens: int = opens) -> Settings:
                threshold = 1 - level if family.head is not None else level
                never = float("inf") if family.head is not None else 0.0
                per_bucket = tuple(threshold if b >= opens else never for b in range(len(starts)))
                return {name: replace(family, threshold=per_bucket, translators=translators, starts=starts)}

            later = f", from step {starts[opens]}" if opens else ""
            yield Track("time", f"exit in time({text}{later})", levels, make, opens, starts)


def _leaving_in_depth(family: ExitInDepth, measured: Measured) -> Iterator[Track]:
    name = next(iter(measured.shapes))
    fitted: DepthTranslators | None = measured.translators[name].depth if name in measured.translators else None
    if fitted is None:
        return
    levels = _DOUBT if family.head is not None else _SETTLED
    kinds: tuple[Literal["sequence", "step"], ...] = ("sequence", "step")
    for level_of in kinds:

        def make(level: float, level_of: Literal["sequence", "step"] = level_of) -> Settings:
            threshold = 1 - level if family.head is not None else level
            return {name: replace(family, translators=fitted, threshold=threshold, level=level_of)}

        yield Track(f"depth of {level_of}s", f"exit in depth({level_of})", levels, make)


def fits(candidate: Candidate, shapes: Mapping[str, StackShape]) -> bool:
    """Whether its policies can act together on these stacks."""
    try:
        for name, policy in candidate.settings(list(shapes)).items():
            policy.check(shapes[name])
    except AdaptiveLSTMError:
        return False
    return True
