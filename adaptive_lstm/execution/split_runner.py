"""Long sequences in chunks that run side by side: around any runner of single cells, native or reference.

Layer by layer and direction by direction: all chunks of a cell as rows of batches, which threads share like any rows,
the seams compared with the states that the chunks before have reached, and what is too far off run again from there, in
the order of time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from ..errors import PolicyError
from ..policies import Seam, SplitPolicy
from ..types import ColumnCounts, Counts, DoubleArray, Seams, StackShape
from .batch import Batch
from .chunk_layout import ChunkLayout, Numbers, Part
from .runner import Result, Runner
from .threads import get_num_threads

ROWS = 16
"""Chunks that run at once on each thread: enough rows to share a pass over the weights, few enough for their states to
stay near. ``python -m eval.split_time`` measures what a pass over so many saves."""


class _States(NamedTuple):
    """States of all chunks of a cell: ``h`` [chunks, P], ``c`` [chunks, H]."""

    h: torch.Tensor
    c: torch.Tensor

    def put(self, chunks: Numbers, states: _States) -> None:
        """Set those of some chunks."""
        index = torch.from_numpy(chunks).to(self.h.device)
        self.h.index_copy_(0, index, states.h)
        self.c.index_copy_(0, index, states.c)

    def take(self, chunks: Numbers) -> _States:
        """Those of some chunks."""
        index = torch.from_numpy(chunks).to(self.h.device)
        return _States(self.h.index_select(0, index), self.c.index_select(0, index))


class _Tally:
    """What a run has counted so far."""

    def __init__(self, shape: StackShape, timesteps: int):
        self._shape, self._timesteps = shape, timesteps  # of the batch, as if nothing was split
        self._cells: list[Counts] = []
        self._ran: list[int] = []
        self._seams = Seams()
        self.threads: int | None = None  # that ran natively

    def begin_cell(self) -> None:
        """What follows is of the next cell."""
        self._cells.append(Counts.none(StackShape(1, 1, 1)))
        self._ran.append(0)

    def add(self, ran: Result, timesteps: int) -> None:
        """A run of some timesteps of the cell."""
        assert ran.counts is not None
        self._cells[-1] += ran.counts()
        self._ran[-1] += timesteps
        if ran.threads is not None:
            self.threads = max(ran.threads, self.threads or 1)

    def add_seams(self, residual: DoubleArray, strain: DoubleArray, repeated: int) -> None:
        """All seams of the cell [n]."""
        worst = float(residual.max(initial=0.0))
        self._seams = self._seams.plus(Seams(len(residual), repeated, worst, float(np.fmin(strain, 1.0).sum())))

    def total(self) -> Counts:
        """Of all cells: what the timesteps of the batch took, and beside it what ran in addition."""
        columns, hidden, steps = [], self._shape.hidden_size, self._timesteps
        for counts, ran in zip(self._cells, self._ran, strict=True):
            columns.append(ColumnCounts(*(n * steps // ran for n in counts.columns[0])))
        live = tuple(counts.live_units[0] if counts.live_units else hidden for counts in self._cells)
        seams = self._seams._replace(extra=tuple(ran - steps for ran in self._ran))
        return Counts(tuple(columns), live_units=live if min(live) < hidden else (), seams=seams)


class SplitRunner:
    """Splits what is long enough, and leaves the rest to another runner.

    Args:
        policy: where to split, and what to run again.
        shape: sizes of the stack.
        cells: a runner for every cell alone, as a stack of one layer in one direction, which counts.
        whole: runs batches of which no row is split.
    """

    def __init__(self, policy: SplitPolicy, shape: StackShape, cells: Sequence[Runner], whole: Runner):
        self.policy, self.shape, self.cells, self.whole = policy, shape, tuple(cells), whole

    def run(self, batch: Batch) -> Result:
        """As ``Runner.run``; the input has been found finite."""
        rows, sizes = batch.packed()
        layout = ChunkLayout.of(sizes, self.policy.chunk, self.policy.warm_up)
        if not layout.split:
            return self.whole.run(batch)
        directions = [_Direction(layout, backward=bool(d)) for d in range(self.shape.directions)]
        tally, ends = _Tally(self.shape, len(rows)), list[_States]()
        width = self.shape.output_size
        with torch.no_grad():
            for _ in range(self.shape.num_layers):
                y = rows.new_empty(len(rows), width * len(directions))
                for direction, part in zip(directions, y.split(width, dim=1), strict=True):
                    cell = len(ends)
                    given = None if batch.initial is None else _States(*(state[cell] for state in batch.initial))
                    ends.append(_CellRun(self, cell, direction, rows, part, tally).run(given))
                rows = y
        h, c = (torch.stack(each) for each in zip(*ends, strict=True))
        return Result(batch.unpacked(rows), h, c, tally.total, tally.threads)


class _Direction:
    """The chunks of a batch in one direction of time; the same for all layers."""

    def __init__(self, layout: ChunkLayout, *, backward: bool):
        self.layout, self._backward = layout, backward
        self._rows = ROWS * get_num_threads()
        self.groups = layout.groups(self._rows, backward=backward)

    def repeats(self, chunks: Numbers) -> list[tuple[Numbers, Part]]:
        """As ``ChunkLayout.repeats``."""
        return self.layout.repeats(chunks, self._rows, backward=self._backward)


class _CellRun:
    """One cell over all chunks of a batch.

    Args:
        owner: what runs it.
        cell: its number.
        direction: of its time.
        x: [sum(sizes), width] packed inputs of all rows.
        y: [sum(sizes), P] where its outputs go.
        tally: counts.
    """

    def __init__(
        self, owner: SplitRunner, cell: int, direction: _Direction, x: torch.Tensor, y: torch.Tensor, tally: _Tally
    ):
        self._policy, self._runner, self._cell = owner.policy, owner.cells[cell], cell
        self._direction, self._layout, self._tally = direction, direction.layout, tally
        self._x, self._y = x, y
        sizes, chunks = (owner.shape.output_size, owner.shape.hidden_size), len(self._layout.row)
        self._start, self._warm, self._end = (_States(*(x.new_zeros(chunks, n) for n in sizes)) for _ in range(3))

    def run(self, given: _States | None) -> _States:
        """Run all rows from the given states, or zeros; their final states."""
        begin, first = self._policy.begin(self._cell), np.flatnonzero(self._layout.number == 0)
        zeros = self._start.take(first)
        if begin is not None:
            for states, one in zip(self._start, begin, strict=True):
                states.copy_(torch.from_numpy(one))
        self._start.put(first, given or zeros)
        self._tally.begin_cell()
        for group in self._direction.groups:
            warm = self._advanced(self._start.take(group.chunks), group.warming)
            self._warm.put(group.chunks, warm)
            self._end.put(group.chunks, self._advanced(warm, group.rest))
        self._mend()
        return self._end.take(self._layout.last)

    def _advanced(self, states: _States, part: Part) -> _States:
        """Run a part from some states, and keep those of its outputs that are used; the states that it reaches."""
        if not len(part.sizes):
            return states
        at, rows = part.at.to(self._x.device), int(part.sizes[0])
        given = states.h[None, :rows], states.c[None, :rows]
        ran = self._runner.run(Batch.of_packed(self._x.index_select(0, at), part.sizes, given))
        self._tally.add(ran, len(at))
        y = ran.y
        if part.own is not None:
            own = part.own.to(at.device)
            at, y = at.index_select(0, own), y.index_select(0, own)
        self._y.index_copy_(0, at, y)
        return _States(torch.cat([ran.h[0], states.h[rows:]]), torch.cat([ran.c[0], states.c[rows:]]))

    def _mend(self) -> None:
        """Compare the states at all seams, and run again what was too far off, in the order of time."""
        seams, number = self._layout.seams, self._layout.number
        residual, strain = self._compared(seams)
        moved, repeated = np.zeros(len(number), np.bool_), 0  # chunks that have come to another end
        too_far = ~(strain <= 1)
        for place in range(1, int(number.max()) + 1) if too_far.any() else ():
            here = np.flatnonzero(number[seams] == place)
            anew = here[moved[seams[here] - 1]]
            if len(anew):
                residual[anew], strain[anew] = self._compared(seams[anew])
            again = seams[here[~(strain[here] <= 1)]]
            for chunks, part in self._direction.repeats(again) if len(again) else ():
                self._end.put(chunks, self._advanced(self._end.take(chunks - 1), part))
            moved[again] = True
            repeated += len(again)
        self._tally.add_seams(residual, strain, repeated)

    def _compared(self, chunks: Numbers) -> tuple[DoubleArray, DoubleArray]:
        """Residual and strain at the seams before some chunks, float64 [n]."""
        seam = Seam(*self._warm.take(chunks), *self._end.take(chunks - 1))
        strain = self._policy.strain(self._cell, seam)
        if strain.shape != (len(chunks),):
            raise PolicyError(
                f"{type(self._policy).__name__}: got strains of shape {tuple(strain.shape)}, expected {(len(chunks),)}"
            )
        return seam.residual.double().cpu().numpy(), strain.double().cpu().numpy()
