"""What can be fuzzed: how a case is drawn, checked, and made simpler."""

from __future__ import annotations

import importlib
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

Case = dict[str, Any]
"""Everything that a case is made of, as JSON: numbers, texts, and seeds of what is random in it."""

TARGETS = {"lstm": "tests.fuzz.lstm:TARGET", "files": "tests.fuzz.files:TARGET"}


class Fault(AssertionError):
    """A case that went wrong. Faults whose first line is the same are counted as one, and shrunk once."""


@dataclass
class Seen:
    """What a case that went well adds to the record.

    ``covered``: what it exercised, for example "policy: Delta"; the record counts each.
    ``largest``: numbers of which the record keeps the largest, for example how close a tie was to being a fault.
    """

    covered: list[str] = field(default_factory=list)
    largest: dict[str, float] = field(default_factory=dict)


class Target(Protocol):
    """Something that is fuzzed. Drawing and making simpler are pure; checking may crash the process."""

    def draw(self, choice: random.Random) -> Case:
        """A random case."""

    def check(self, case: Case) -> Seen:
        """Run a case. Raises ``Fault`` for a wrong result; every other exception is a fault too."""

    def simpler(self, case: Case) -> Iterable[Case]:
        """Cases like this one with less in them, the boldest first; none for the simplest of all."""


def load(name: str) -> Target:
    """A target by its name in ``TARGETS``, or as ``module:NAME``."""
    module, _, attribute = TARGETS.get(name, name).partition(":")
    found: Target = getattr(importlib.import_module(module), attribute)
    return found


def drawn(target: Target, seed: int, number: int) -> Case:
    """Case ``number`` of a run: it depends on the two numbers alone."""
    return target.draw(random.Random(f"{seed} {number}"))


def simpler_fields(case: Case, ladder: Mapping[str, Iterable[Any]]) -> Iterable[Case]:
    """The case with one field changed to a simpler value.

    Args:
        case: the case.
        ladder: the values of each field from the simplest on; a field that is not on its own ladder may take all.
    """
    for name, values in ladder.items():
        for value in values:
            if value == case[name]:
                break
            yield {**case, name: value}
