"""Who runs a stack: what every runner is given and returns.

``NativeRunner`` (``native_runner``) runs batches, ``NativeChunks`` (``native_chunks``) and ``ReferenceRunner``
(``reference_runner``) run chunks, and ``ExitLoop`` (``early_exit``) puts exits in time around either of those; the
others here are put around them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch

from ..types import Counts, StackShape, StreamState
from .backend import refuse_non_finite
from .batch import Batch

Counted = Callable[[], Counts]


class Result(NamedTuple):
    """What a run of a whole batch returns.

    ``y``: outputs in the layout of ``Batch.x``.
    ``h`` [L * D, B, P], ``c`` [L * D, B, H]: final states.
    ``counts``: a call that adds up what was counted, which takes as long as a short sequence; None where nothing is
    pruned or can be skipped.
    ``threads``: how many ran it natively; None: another runs it.
    """

    y: torch.Tensor
    h: torch.Tensor
    c: torch.Tensor
    counts: Counted | None
    threads: int | None = None


class Runner(Protocol):
    """Anything that runs a batch through a stack from a fresh start. ``AdaptiveLSTM.run_on`` accepts one."""

    def run(self, batch: Batch) -> Result:
        """Raise ``NonFiniteError`` for NaN or infinity that would poison a state or that integers cannot pass on."""


@dataclass(frozen=True)
class Chunk:
    """Some timesteps of some rows, and the state to start from.

    ``x`` [sum(sizes), I]: packed rows, all rows of the first timestep first.
    ``sizes``: rows alive at each timestep.
    ``state``: where to start, of sizes[0] rows.
    ``first``: the number of the first timestep.
    """

    x: torch.Tensor
    sizes: Sequence[int]
    state: StreamState
    first: int = 0


class Advanced(NamedTuple):
    """What a run of a chunk returns.

    ``y`` [sum(sizes), D * P]: outputs.
    ``state``: where it ended.
    ``counts``: what was counted.
    """

    y: torch.Tensor
    state: StreamState
    counts: Counts


class Run(Protocol):
    """Sequences on their way through a stack; what they have reached stays in place from one call to the next."""

    def advance(self, x: torch.Tensor, sizes: Sequence[int], *, open_ended: bool = False) -> torch.Tensor:
        """Run some timesteps.

        Args:
            x: [sum(sizes), I] packed rows, all rows of the first timestep first.
            sizes: rows alive at each timestep, at least one.
            open_ended: whether rows may go on after x (a stream). If not, a row is not checked for an exit after its
                last timestep, where an exit would save nothing.

        Returns:
            Outputs [sum(sizes), D * P].
        """

    def state(self) -> StreamState:
        """What has been reached; later calls do not change it."""

    def counted(self, timesteps: int) -> Counted:
        """What has been counted since the run was opened, in so many batch rows times timesteps."""

    def close(self) -> None:
        """Give back buffers; nothing else may be called then."""


class ExitableRun(Run, Protocol):
    """A run that rows may leave: ``advance`` is given only those that have not."""

    def h(self) -> torch.Tensor:
        """Hidden states [L * D, B, P] of all rows; later calls do not change them."""

    def leave(self, rows: torch.Tensor, h: torch.Tensor) -> None:
        """Batch rows [n], ascending, leave with h [n, P] of the top layer."""


class ChunkRunner(Protocol):
    """Anything that runs sequences from a given state, chunk by chunk: what streams build on."""

    shape: StackShape

    def open(self, state: StreamState) -> Run:
        """A run that starts from a state."""


class ExitableRunner(ChunkRunner, Protocol):
    """What exits in time are built around."""

    def open(self, state: StreamState) -> ExitableRun:
        """As ``ChunkRunner.open``."""


class FiniteOnly:
    """Refuses NaN and infinity before a runner sees them: they would stay in estimates, and integers lose them."""

    def __init__(self, runner: Runner):
        self.runner = runner

    def run(self, batch: Batch) -> Result:
        """As ``Runner.run``."""
        if not batch.finite():
            raise refuse_non_finite()
        return self.runner.run(batch)


class PackedRunner:
    """Runs a whole batch as one chunk, from the given states or zeros."""

    def __init__(self, chunks: ChunkRunner):
        self.chunks = chunks

    def run(self, batch: Batch) -> Result:
        """As ``Runner.run``."""
        rows, sizes = batch.packed()
        initial = batch.initial
        if initial is None:
            shape = self.chunks.shape
            h, c = ((shape.num_cells, sizes[0], n) for n in (shape.output_size, shape.hidden_size))
            initial = rows.new_zeros(h), rows.new_zeros(c)
        run = self.chunks.open(StreamState.start(*initial))
        y = run.advance(rows, sizes)
        end, counted = run.state(), run.counted(len(rows))
        run.close()
        return Result(batch.unpacked(y), end.h, end.c, counted)


class Converted:
    """Runs in one dtype what comes and goes in another."""

    def __init__(self, runner: Runner, dtype: torch.dtype):
        self.runner, self.dtype = runner, dtype

    def run(self, batch: Batch) -> Result:
        """As ``Runner.run``."""
        given = batch.x.dtype
        y, h, c, counts, threads = self.runner.run(batch.converted(self.dtype))
        return Result(y.to(given), h.to(given), c.to(given), counts, threads)


class Uncounted:
    """Leaves out what a runner has counted, where it could not have done less than all of the work."""

    def __init__(self, runner: Runner):
        self.runner = runner

    def run(self, batch: Batch) -> Result:
        """As ``Runner.run``."""
        return self.runner.run(batch)._replace(counts=None)
