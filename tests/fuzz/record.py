"""What a run of cases adds up to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from .pool import Answer
from .target import Case


@dataclass(frozen=True)
class Failure:
    """A case that failed, and the simplest that fails in the same way.

    ``number``: of the case in its run.
    ``isa``: the instruction set; "": the best.
    ``answer``: of the case as it was drawn.
    ``case``: the simplest found.
    """

    number: int
    isa: str
    answer: Answer
    case: Case


@dataclass
class Record:
    """Counts over a run.

    ``cases``: how many ran, by instruction set.
    ``covered``, ``largest``: as in ``Seen``, added up.
    ``faults``: how many cases failed, by the name of the fault.
    ``failures``: the first of each.
    """

    cases: Counter[str] = field(default_factory=Counter)
    covered: Counter[str] = field(default_factory=Counter)
    largest: dict[str, float] = field(default_factory=dict)
    faults: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)

    def add(self, isa: str, answer: Answer) -> None:
        """Count one case."""
        self.cases[isa or "best"] += 1
        if answer.fault:
            self.faults[answer.fault] += 1
        self.covered.update(answer.covered)
        for name, value in answer.largest.items():
            self.largest[name] = max(value, self.largest.get(name, value))

    def as_dict(self, target: str, seed: int) -> dict[str, Any]:
        """As a record of ``eval/results``."""
        return {
            "group": target,
            "case": "all",
            "seed": seed,
            "cases": dict(self.cases),
            "covered": dict(sorted(self.covered.items())),
            "largest": dict(sorted(self.largest.items())),
            "faults": dict(self.faults),
        }
