"""Frames that wait to be run: a ring of bounded length for every row, all in one array."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import OverloadError

Rows = npt.NDArray[np.int64]


class FrameQueue:
    """Waiting frames of every row, oldest first. Memory that was never used is never touched.

    Args:
        rows: how many rows there are.
        longest: frames that may wait in each.
        width: of a frame.
        dtype: of its values.
    """

    def __init__(self, rows: int, longest: int, width: int, dtype: npt.DTypeLike):
        self.longest = longest
        self._turn = 0  # the row from which on the next are chosen
        # The frames that run together lie together: a row of its own for each ring would be a page for each frame.
        self._rings: npt.NDArray[Any] = np.empty((longest, rows, width), dtype)
        self._frames = self._rings.reshape(-1, width)
        self._oldest: npt.NDArray[Any] = np.empty((rows, width), dtype)
        self._first = np.zeros(rows, np.int64)
        self.count = np.zeros(rows, np.int64)

    def put(self, row: int, frames: npt.NDArray[Any]) -> None:
        """Add frames [n, width] to a row; there must be room."""
        n, end = len(frames), int(self._first[row]) + int(self.count[row])
        if n == 1:
            self._rings[end % self.longest, row] = frames[0]
        else:
            self._rings[(end + np.arange(n)) % self.longest, row] = frames
        self.count[row] += n

    def put_each(self, rows: Rows, frames: npt.NDArray[Any]) -> None:
        """Add a frame [width] to each of some different rows, from ``frames`` [n, width]; there must be room."""
        self._frames[self._at(rows, self._first[rows] + self.count[rows])] = frames
        self.count[rows] += 1

    def _at(self, rows: Rows, slots: Rows) -> Rows:
        at: Rows = slots % self.longest * len(self.count) + rows
        return at

    def require_room(self, row: int, more: int, stream: int) -> None:
        """Raise ``OverloadError``, which names the stream in a row, unless so many more frames may wait there."""
        waiting = int(self.count[row])
        if waiting + more > self.longest:
            raise OverloadError(
                f"stream {stream}: got {more} frames while {waiting} wait, expected at most {self.longest} (backlog) "
                "in all; push again after a tick, or give the pool a longer backlog"
            )

    def in_turn(self, most: int) -> Rows:
        """At most so many rows in which frames wait, ascending; where there are more, those that come next in turn."""
        rows = np.flatnonzero(self.count)
        if len(rows) <= most:
            return rows
        chosen = np.roll(rows, -int(np.searchsorted(rows, self._turn)))[:most]
        self._turn = int(chosen[-1]) + 1
        return np.sort(chosen)

    def oldest(self, rows: Rows) -> npt.NDArray[Any]:
        """A copy of the oldest frame of some rows [n, width], good until the next one."""
        oldest = self._oldest[: len(rows)]
        at = self._at(rows, self._first[rows])
        self._frames.take(at, axis=0, out=oldest, mode="clip")  # with other modes numpy copies twice
        return oldest

    def drop(self, rows: Rows) -> None:
        """Forget the oldest frame of some rows."""
        self._first[rows] = (self._first[rows] + 1) % self.longest
        self.count[rows] -= 1

    def all_of(self, row: int) -> npt.NDArray[Any]:
        """A copy of all frames of a row: [n, width]."""
        at = (self._first[row] + np.arange(self.count[row])) % self.longest
        frames: npt.NDArray[Any] = self._rings[at, row]
        return frames

    def clear(self, row: int) -> None:
        """Forget all frames of a row."""
        self.count[row] = self._first[row] = 0
