"""Sequences cut into chunks that overlap by a warm-up: which timesteps of which row each chunk runs."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

Numbers = npt.NDArray[np.int64]


def lengths_of(sizes: Sequence[int]) -> Numbers:
    """Timesteps of every row [B], from the rows alive at each timestep."""
    falling = -np.asarray(sizes, np.int64)
    return np.searchsorted(falling, -np.arange(sizes[0]), side="left").astype(np.int64)


class Part(NamedTuple):
    """Some timesteps of some chunks, as a run takes them.

    ``sizes`` [T] int64: chunks alive at each timestep; none where all have ended.
    ``at``: where inputs and outputs lie among the packed rows; all chunks of the first timestep first.
    ``own``: those of ``at`` whose outputs are used, as positions in it; None: all.
    """

    sizes: torch.Tensor
    at: torch.Tensor
    own: torch.Tensor | None


class Group(NamedTuple):
    """Chunks that run at once.

    ``chunks``: which, the longest first.
    ``warming``: as many of their timesteps as a warm-up has.
    ``rest``: the others.
    """

    chunks: Numbers
    warming: Part
    rest: Part


@dataclass(frozen=True, eq=False)
class ChunkLayout:
    """The chunks of a packed batch, those of a row one after the other.

    ``sizes``: rows of the batch alive at each timestep.
    ``warm_up``: timesteps that a chunk runs before its own.
    ``row``: the batch row of each chunk.
    ``number``: its place in that row; the first has no warm-up.
    ``start``: the timestep at which it begins to run.
    ``end``: the timestep before which it ends.
    """

    sizes: Sequence[int]
    warm_up: int
    row: Numbers
    number: Numbers
    start: Numbers
    end: Numbers

    @staticmethod
    def of(sizes: Sequence[int], chunk: int, warm_up: int) -> ChunkLayout:
        """Rows of at most ``warm_up + chunk`` timesteps are one chunk; of others every chunk has as many of its own."""
        lengths = lengths_of(sizes)
        count = np.maximum(-(-(lengths - warm_up) // chunk), 1)
        row = np.repeat(np.arange(len(lengths)), count)
        number = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
        own = (lengths - warm_up)[row]
        start = np.where(count[row] > 1, number * own // count[row], 0)
        end = np.where(number + 1 < count[row], (number + 1) * own // count[row] + warm_up, lengths[row])
        return ChunkLayout(sizes, warm_up, row, number, start, end)

    @property
    def split(self) -> bool:
        """Whether any row has more than one chunk."""
        return len(self.row) > self.sizes[0]

    @property
    def seams(self) -> Numbers:
        """The chunks that follow another one, ascending."""
        return np.flatnonzero(self.number)

    @property
    def last(self) -> Numbers:
        """The last chunk of every row [B]."""
        return np.append(np.flatnonzero(self.number == 0)[1:], len(self.row)) - 1

    def groups(self, rows: int, *, backward: bool) -> list[Group]:
        """All chunks, at most ``rows`` of about one length in each group."""
        every = self._longest_first(np.arange(len(self.row)))
        return [
            Group(
                chunks,
                self._part(chunks, 0, self.warm_up, backward=backward),
                self._part(chunks, self.warm_up, None, backward=backward),
            )
            for chunks in np.array_split(every, -(-len(every) // rows))
        ]

    def repeats(self, chunks: Numbers, rows: int, *, backward: bool) -> list[tuple[Numbers, Part]]:
        """Some chunks without their warm-ups, at most ``rows`` at once."""
        chunks = self._longest_first(chunks)
        return [
            (some, self._part(some, self.warm_up, None, backward=backward))
            for some in np.array_split(chunks, -(-len(chunks) // rows))
        ]

    def _longest_first(self, chunks: Numbers) -> Numbers:
        return chunks[np.argsort((self.start - self.end)[chunks], kind="stable")]

    def _part(self, chunks: Numbers, first: int, until: int | None, *, backward: bool) -> Part:
        """Timesteps ``first``, ..., ``until - 1`` of some chunks, the longest first, from where each begins to run."""
        length = (self.end - self.start)[chunks] - first
        if until is not None:
            length = np.minimum(length, until - first)
        chunks, length = chunks[length > 0], length[length > 0]
        steps = np.arange(length[0] if len(length) else 0)[:, None]
        alive = steps < length[None]
        time = self.start[chunks][None] + first + steps
        if backward:
            time = self._lengths[self.row[chunks]][None] - 1 - time
        at = self._offsets[np.where(alive, time, 0)] + self.row[chunks][None]
        used = np.broadcast_to((self.number[chunks] == 0) | (first > 0), alive.shape)[alive]
        own = None if used.all() else torch.from_numpy(np.flatnonzero(used))
        return Part(torch.from_numpy(alive.sum(1)), torch.from_numpy(at[alive]), own)

    @functools.cached_property
    def _lengths(self) -> Numbers:
        return lengths_of(self.sizes)

    @functools.cached_property
    def _offsets(self) -> Numbers:
        """The packed row at which each timestep begins."""
        sizes = np.asarray(self.sizes, np.int64)
        return np.cumsum(sizes) - sizes
