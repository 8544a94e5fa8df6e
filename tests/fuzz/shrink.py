"""Make a failing case simpler for as long as it fails in the same way."""

from __future__ import annotations

import time
from collections.abc import Callable

from .target import Case, Target


def shrink(
    target: Target, case: Case, fails: Callable[[Case], bool], *, tries: int = 400, seconds: float = 120
) -> Case:
    """The simplest case found.

    Args:
        target: says what is simpler.
        case: fails.
        fails: whether another case fails in the same way.
        tries, seconds: when to give up.
    """
    end = time.monotonic() + seconds
    sound: set[str] = set()  # changes that were tried in this pass and ended the fault
    smaller = False
    while True:
        for candidate in target.simpler(case):
            change = str({name: value for name, value in candidate.items() if value != case[name]})
            if change in sound:
                continue
            if tries == 0 or time.monotonic() > end:
                return case
            tries -= 1
            if fails(candidate):
                case, smaller = candidate, True
                break
            sound.add(change)
        else:
            if not smaller:
                return case
            sound, smaller = set(), False  # another pass: what could not go before may go now
