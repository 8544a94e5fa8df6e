"""Make a failing case simpler for as long as it fails in the same way."""

from __future__ import annotations

import time
from collections.abc import Callable

from .target import Case, Target


def shrink(target: Target, case: Case, fails: Callable[[Case], bool], *, tries: int = 400, seconds: float = 60) -> Case:
    """The simplest case found.

    Args:
        target: says what is simpler.
        case: fails.
        fails: whether another case fails in the same way.
        tries, seconds: when to give up.
    """
    end = time.monotonic() + seconds
    smaller = True
    while smaller:
        smaller = False
        for candidate in target.simpler(case):
            if tries == 0 or time.monotonic() > end:
                return case
            tries -= 1
            if fails(candidate):
                case, smaller = candidate, True
                break
    return case
