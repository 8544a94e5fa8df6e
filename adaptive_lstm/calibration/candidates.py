"""What a calibration may try: positions on the search sweeps of several families, at most one sweep of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ..errors import AdaptiveLSTMError
from ..policies import Combined, Dense, Family, FitData, Policy, Sweep, parts
from ..policies.sweep import Settings as Settings
from ..types import StackShape

Key = tuple[tuple[str, float], ...]
"""Names a candidate."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """Positions on sweeps of different families; none: nothing is skipped."""

    choices: tuple[tuple[Sweep, float], ...] = ()

    def __str__(self) -> str:
        return " + ".join(f"{s.name} {s.strength(p):.3g}" for s, p in self.choices) or "dense"

    @property
    def key(self) -> Key:
        """Equal for equal candidates."""
        return tuple((sweep.name, round(position, 6)) for sweep, position in self.choices)

    @property
    def families(self) -> frozenset[str]:
        """The families that it uses."""
        return frozenset(sweep.family for sweep, _ in self.choices)

    def settings(self, names: Sequence[str]) -> Settings:
        """The policy of every LSTM."""
        made = [sweep.make(sweep.strength(position)) for sweep, position in self.choices]
        out: dict[str, Policy] = {}
        for name in names:
            policies = [m[name] for m in made if name in m]
            out[name] = Combined(*policies) if len(policies) > 1 else policies[0] if policies else Dense()
        return out

    def joined(self, other: Candidate) -> Candidate | None:
        """Both at once, or None if they share a family or cannot act together."""
        if self.families & other.families or {"time", "depth of sequences"} <= self.families | other.families:
            return None
        return Candidate((*self.choices, *other.choices))

    def more_careful(self, levels: float) -> Candidate:
        """The same with every strength lowered by so many levels of its sweep, the first level at the least."""
        return Candidate(tuple((sweep, max(0.0, p - levels * sweep.spacing)) for sweep, p in self.choices))

    def neighbours(self) -> Iterator[Candidate]:
        """The same a little bolder or more careful, one sweep at a time."""
        for i, (sweep, position) in enumerate(self.choices):
            for step in (-0.5, 0.25, 0.5):
                at = position + step * sweep.spacing
                if 0 <= at <= 1:
                    yield Candidate((*self.choices[:i], (sweep, at), *self.choices[i + 1 :]))


def sweeps_of(families: Sequence[Family], fit: FitData, *, conditional: bool, streams: bool = False) -> list[Sweep]:
    """All sweeps of some families.

    Args:
        families: what to search.
        fit: what the fit split gave.
        conditional: whether exits in time are also tried with only the later time buckets open, for control per bucket.
        streams: whether to leave out those that a stream cannot run.
    """
    found: list[Sweep] = []
    for family in families:
        for sweep in family.kind.sweeps(family, fit) if family.kind.sweeps else ():
            if family.kind.decision == "time_exit" and not sweep.starts:
                sweep = replace(sweep, starts=(0,))  # one bucket: conditional control must see every exit in time
            if sweep.first_open_bucket and not conditional:
                continue
            if not streams or all(parts(policy).streams for policy in sweep.make(sweep.levels[0]).values()):
                found.append(sweep)
    return found


def fits(candidate: Candidate, shapes: Mapping[str, StackShape]) -> bool:
    """Whether its policies can act together on these stacks."""
    try:
        for name, policy in candidate.settings(list(shapes)).items():
            policy.check(shapes[name])
    except AdaptiveLSTMError:
        return False
    return True
