"""Which stream of a pool sits in which row, and what is known of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import is_
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError, OverloadError
from .frame_queue import FrameQueue

NOBODY = -1


@dataclass(frozen=True)
class StreamStats:
    """What a stream of a pool did.

    ``pushed``: frames that were pushed.
    ``steps``: timesteps that it advanced.
    ``waiting``: frames that wait.
    ``idle``: seconds since it was opened or frames were last pushed.
    ``done``: whether it has exited (``ExitInTime``): its outputs stay the translation it exited with.
    """

    pushed: int
    steps: int
    waiting: int
    idle: float
    done: bool


class Seats:
    """Rows that are free or belong to a stream. Numbers of streams are never used again.

    Args:
        capacity: how many rows there are.
    """

    def __init__(self, capacity: int):
        self.ids = np.full(capacity, NOBODY, np.int64)
        self.heard, self.done = np.zeros(capacity), np.zeros(capacity, np.bool_)
        self._rows: dict[int, int] = {}
        self._free = list(range(capacity - 1, -1, -1))
        self._next = 0
        self._known: tuple[list[int], npt.NDArray[np.int64]] = [], np.zeros(0, np.int64)  # found last, while all sit
        self.left = 0  # streams that have left so far

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[int]:
        return iter(list(self._rows))

    def __contains__(self, stream: object) -> bool:
        return type(stream) is int and stream in self._rows

    def take(self, now: float) -> tuple[int, int]:
        """A number for a new stream, and its row. Raises ``OverloadError`` if no row is free."""
        if not self._free:
            raise OverloadError(
                f"got one more stream, but all {len(self.ids)} rows of the pool are taken; close streams that are "
                "done, set idle_timeout, or make a pool of a larger capacity"
            )
        stream, row = self._next, self._free.pop()
        self._next += 1
        self._rows[stream], self.ids[row] = row, stream
        self.heard[row], self.done[row] = now, False
        return stream, row

    def row(self, stream: int) -> int:
        """The row of a stream. Raises ``InputError`` if there is no such stream."""
        row = self._rows.get(stream) if type(stream) is int else None
        if row is not None:
            return row
        if type(stream) is not int:
            raise InputError(f"got {type(stream).__name__}, expected the number of a stream, from open() or restore()")
        closed = 0 <= stream < self._next
        what = "was closed, by close() or because it was idle" if closed else "was never opened in this pool"
        raise InputError(f"stream {stream} {what}; open() or restore() gives the number of an open one")

    def rows(self, streams: Sequence[int]) -> npt.NDArray[np.int64]:
        """The rows of several streams. Raises ``InputError`` if one is not there, or is named twice."""
        known, rows = self._known
        if len(streams) == len(known) and all(map(is_, streams, known)):  # as at most ticks
            return rows
        whole = not {*map(type, streams)} - {int}  # others may not even be hashed
        found: list[Any] = list(map(self._rows.get, streams)) if whole else [None]
        if None in found:
            found = [self.row(stream) for stream in streams]
        if len(set(found)) < len(found):
            raise InputError("got a stream twice, expected one frame for each; push takes several frames [n, I]")
        self._known = list(streams), np.array(found, np.int64)
        return self._known[1]

    def leave(self, stream: int) -> int:
        """Free the row of a stream. Raises ``InputError`` if there is no such stream."""
        row = self.row(stream)
        del self._rows[stream]
        self._known = [], np.zeros(0, np.int64)
        self.ids[row] = NOBODY
        self._free.append(row)
        self.left += 1
        return row

    def idle(self, now: float, seconds: float, waiting: npt.NDArray[np.int64]) -> list[int]:
        """Streams with nothing to run that were not heard of for so many seconds."""
        late = (self.ids != NOBODY) & (waiting == 0) & (now - self.heard > seconds)
        found: list[int] = self.ids[late].tolist()
        return found

    def stats(self, stream: int, now: float, queue: FrameQueue) -> StreamStats:
        """What a stream did. Raises ``InputError`` if there is no such stream."""
        row = self.row(stream)
        pushed, steps, idle = int(queue.pushed[row]), int(queue.ran[row]), float(now - self.heard[row])
        return StreamStats(pushed, steps, queue.waiting(row), idle, bool(self.done[row]))
