"""A target whose faults are known: it tests the fuzzer itself."""

from __future__ import annotations

import ctypes
import random
import time
from collections.abc import Iterable

from .target import Case, Fault, Seen, simpler_fields


class Planted:
    """Cases of a size and a colour; red ones of at least a certain size fail in one of several ways."""

    def __init__(self, way: str, size: int = 7):
        self.way, self.size = way, size

    def draw(self, choice: random.Random) -> Case:
        """A size up to 20 and a colour."""
        return {"size": choice.randint(1, 20), "colour": choice.choice(["red", "green"]), "noise": choice.random()}

    def check(self, case: Case) -> Seen:
        """Fails in its way."""
        if case["colour"] == "red" and case["size"] >= self.size:
            if self.way == "segfault":
                ctypes.string_at(0)
            elif self.way == "hang":
                time.sleep(3600)
            elif self.way == "foreign exception":
                raise KeyError(case["size"])
            elif self.way == "wrong":
                raise Fault(f"the result is wrong\nsize {case['size']}")
        return Seen([f"colour: {case['colour']}"], {"size": case["size"]})

    def simpler(self, case: Case) -> Iterable[Case]:
        """Smaller, and without noise."""
        return simpler_fields(case, {"size": range(1, 21), "noise": [0]})


SEGFAULT, HANG, FOREIGN, WRONG, NOTHING = map(Planted, ("segfault", "hang", "foreign exception", "wrong", "nothing"))
