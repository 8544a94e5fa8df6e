"""Frames that wait to be run: a ring of bounded length for every row, all in one array."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import OverloadError

Rows = npt.NDArray[np.int64]


class FrameQueue:
    """Waiting frames of every row, oldest first. Memory that was never used is never touched.

    Calls find the caches taken by a step, so that every operation on arrays costs, however few rows there are. Two
    counts say everything: frame k of a row lies in place k of its ring, modulo the length.

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
        self.pushed, self.ran = np.zeros(rows, np.int64), np.zeros(rows, np.int64)  # frames of each row so far

    @property
    def count(self) -> Rows:
        """Frames that wait in each row."""
        waiting: Rows = self.pushed - self.ran
        return waiting

    def waiting(self, row: int) -> int:
        """Frames that wait in a row."""
        return int(self.pushed[row]) - int(self.ran[row])

    def put(self, row: int, frames: npt.NDArray[Any], stream: int) -> None:
        """Add frames [n, width] to a row.

        Raises:
            OverloadError: there is no room; it names the stream that sits in the row.
        """
        n, end = len(frames), int(self.pushed[row])
        self._require_room(row, n, stream)
        if n == 1:
            self._rings[end % self.longest, row] = frames[0]
        else:
            self._rings[(end + np.arange(n)) % self.longest, row] = frames
        self.pushed[row] = end + n

    def put_each(self, rows: Rows, frames: npt.NDArray[Any], streams: Any) -> None:
        """Add a frame [width] to each of some different rows, from ``frames`` [n, width].

        Raises:
            OverloadError: there is no room for one, and none is added; it names the stream in the fullest row.
        """
        ends = self.pushed[rows]
        if len(rows) and int((ends - self.ran[rows]).max()) >= self.longest:
            fullest = int((ends - self.ran[rows]).argmax())
            self._require_room(int(rows[fullest]), 1, streams[fullest])
        self._frames[self._at(rows, ends)] = frames
        self.pushed[rows] = ends + 1

    def _at(self, rows: Rows, frames: Rows) -> Rows:
        at: Rows = frames % self.longest * len(self.pushed) + rows
        return at

    def _require_room(self, row: int, more: int, stream: int) -> None:
        waiting = self.waiting(row)
        if waiting + more > self.longest:
            raise OverloadError(
                f"stream {stream}: got {more} frames while {waiting} wait, expected at most {self.longest} (backlog) "
                "in all; push again after a tick, or give the pool a longer backlog"
            )

    def in_turn(self, most: int) -> Rows:
        """At most so many rows in which frames wait, ascending; where there are more, those that come next in turn."""
        rows = np.flatnonzero(self.pushed != self.ran)
        if len(rows) <= most:
            return rows
        chosen = np.roll(rows, -int(np.searchsorted(rows, self._turn)))[:most]
        self._turn = int(chosen[-1]) + 1
        return np.sort(chosen)

    def oldest(self, rows: Rows) -> npt.NDArray[Any]:
        """A copy of the oldest frame of some rows [n, width], good until the next one."""
        oldest = self._oldest[: len(rows)]
        at = self._at(rows, self.ran[rows])
        self._frames.take(at, axis=0, out=oldest, mode="clip")  # with other modes numpy copies twice
        return oldest

    def drop(self, rows: Rows) -> None:
        """Forget the oldest frame of some rows: it has been run."""
        self.ran[rows] += 1

    def all_of(self, row: int) -> npt.NDArray[Any]:
        """A copy of all frames of a row: [n, width]."""
        at = np.arange(self.ran[row], self.pushed[row]) % self.longest
        frames: npt.NDArray[Any] = self._rings[at, row]
        return frames

    def clear(self, row: int, ran: int = 0) -> None:
        """A new stream in a row, of which so many frames have been run elsewhere; nothing waits."""
        self.pushed[row] = self.ran[row] = ran
