"""Progress of a long call: a bar with the time left, and once a line that says it in words; on a terminal only.

Where stderr is a file or a pipe nothing is written, even with ``show=True``: a log should hold results.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from types import TracebackType
from typing import Any, TypeVar

from tqdm import tqdm

from .codec import brief, check_flag, is_number
from .errors import InputError

T = TypeVar("T")

NOTE_WIDTH = 60  # characters of a note beside the bar
SETTLED = 0.5  # seconds after which the first units predict the others; shorter calls show no bar
MIN_ANNOUNCED = 10.0  # seconds; what takes less is over before the line is read


class Progress:
    """A bar on stderr that counts units of work; nothing where stderr is no terminal.

    Use it in a ``with`` block, which ends the bar.

    Args:
        description: what is going on, for example "calibrating".
        unit: of what is counted, in the singular.
        show: False shows nothing, even on a terminal.
        total: units in all, or an upper bound, if that is known; the first units then predict how long the call takes.
        deadline: when the call ends at the latest; no estimate is longer.
    """

    def __init__(
        self, description: str, unit: str, *, show: bool, total: int | None = None, deadline: Deadline | None = None
    ):
        self._deadline = deadline or Deadline(math.inf)
        self._description, self._announced, self._total, self._begun = description, False, total, time.perf_counter()
        check_flag("progress", show)
        disable = None if show else True  # None: where stderr is no terminal
        self._bar = tqdm(desc=description, unit=unit, total=total, disable=disable, leave=None, delay=SETTLED)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def advance(self, units: int = 1) -> None:
        """So many more units are done."""
        self._bar.update(units)
        if self._total is None or self._bar.disable:
            return
        elapsed = time.perf_counter() - self._begun
        if elapsed >= SETTLED:
            self._announce(min(elapsed / self._bar.n * (self._total - self._bar.n), self._deadline.left))

    def note(self, text: str) -> None:
        """Show beside the bar what is done now."""
        self._bar.set_postfix_str(text[:NOTE_WIDTH], refresh=False)

    def expect(self, units: int, seconds: float | None = None) -> None:
        """Show the time left until ``units`` more are done; with ``seconds``, also say it in a line.

        Args:
            units: the most that are left.
            seconds: that one of them takes, as measured.
        """
        if self._bar.disable:
            return
        if seconds is not None:
            left = max(0.0, self._deadline.left)
            self._announce(min(units * seconds, left))
            units = min(units, math.ceil(left / seconds)) if seconds > 0 and left < math.inf else units
        self._bar.total = self._bar.n + units

    def _announce(self, seconds: float) -> None:
        """Say how long it takes, the first time."""
        if not self._announced and seconds >= MIN_ANNOUNCED:
            tqdm.write(f"{self._description}: at most about {duration(seconds)}", file=sys.stderr)
        self._announced = True


def tracked(items: Iterable[T], description: str, unit: str, *, show: bool) -> Iterator[T]:
    """The items one by one, with a ``Progress``; it shows the time left if their number is known."""
    with Progress(description, unit, show=show, total=len(items) if isinstance(items, Sized) else None) as bar:
        for item in items:
            yield item
            bar.advance()


def duration(seconds: float) -> str:
    """A rough time for people: "0.03 s", "8 s", "3 min", "1.5 h"."""
    if seconds < 1:
        return f"{max(seconds, 0.01):.1g} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class OutOfTimeError(Exception):
    """A ``Deadline`` has passed; whoever set it answers with what was found so far."""


def time_limit(seconds: Any) -> float:
    """An argument ``seconds`` as a number; None, for no limit, as infinity.

    Raises:
        InputError: neither None nor a finite number above 0.
    """
    if seconds is None:
        return math.inf
    if not (is_number(seconds) and 0 < seconds < math.inf):
        raise InputError(f"seconds: got {brief(seconds)}, expected a number above 0, or None for no limit")
    return float(seconds)


class Deadline:
    """When a call, or a part of it, must end.

    Args:
        seconds: from now; infinity: never.
    """

    def __init__(self, seconds: float):
        self.seconds, self._begun = seconds, time.perf_counter()

    @property
    def spent(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._begun

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.seconds - self.spent

    def passed(self, share: float = 1.0) -> bool:
        """Whether this share of the time has passed."""
        return self.spent >= share * self.seconds

    def check(self) -> None:
        """Raise ``OutOfTimeError`` if it has passed."""
        if self.passed():
            raise OutOfTimeError

    def over(self, items: Iterable[T]) -> Iterator[T]:
        """The items one by one, with a check before each."""
        for item in items:
            self.check()
            yield item
