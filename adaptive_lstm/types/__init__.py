"""Plain containers that everything else passes around.

Letters, once for the whole package: T time, B batch, I input size, H hidden size, P projection size (the width of h:
``proj_size`` if set, else H), L layers, D directions; gates in torch order i, f, g, o. Cells are
counted as torch counts them in ``h_n``: index ``layer * D + direction``.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from ..codec import short_repr
from .states import ExitState as ExitState
from .states import HoldState as HoldState
from .states import StreamState as StreamState

FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]


@short_repr
@dataclass(frozen=True)
class BackendInfo:
    """What executes.

    ``backend``: who runs the stack.
    ``isa``: its instruction set.
    ``usable_isas``: all that this machine has.
    ``threads``: how many torch uses.
    ``compiler``: of the extension.
    """

    backend: Literal["native", "reference"]
    isa: str
    usable_isas: tuple[str, ...]
    threads: int
    compiler: str


@dataclass(frozen=True)
class StackShape:
    """Sizes of a stacked LSTM.

    ``one_step``: it is an ``nn.LSTMCell``, whose calls hold one timestep, and which keeps nothing between them.
    """

    input_size: int
    hidden_size: int
    num_layers: int
    proj_size: int = 0
    bidirectional: bool = False
    one_step: bool = False

    @functools.cached_property
    def directions(self) -> int:
        """D: 2 if bidirectional, else 1."""
        return 2 if self.bidirectional else 1

    @functools.cached_property
    def output_size(self) -> int:
        """P: width of h in one direction."""
        return self.proj_size or self.hidden_size

    @functools.cached_property
    def num_cells(self) -> int:
        """L * D: how many cells there are."""
        return self.num_layers * self.directions

    def input_width(self, cell: int) -> int:
        """Columns of ``weight_ih`` of a cell: I for the first layer, D * P above."""
        return self.input_size if cell < self.directions else self.directions * self.output_size

    def cell(self, cell: int) -> StackShape:
        """Sizes of one cell, as a stack of one layer in one direction."""
        return StackShape(self.input_width(cell), self.hidden_size, 1, self.proj_size)

    def name(self, cell: int) -> str:
        """torch's suffix of a cell: ``l0``, ``l0_reverse``, ``l1``, ..."""
        layer, direction = divmod(cell, self.directions)
        return f"l{layer}" + ("_reverse" if direction else "")

    def step_macs(self, cell: int) -> int:
        """Multiply-accumulates of one timestep of one batch row in a cell, nothing skipped."""
        gates = 4 * self.hidden_size * (self.input_width(cell) + self.output_size)
        return gates + self.proj_size * self.hidden_size


class ColumnCounts(NamedTuple):
    """Work of one cell over a run, counted per batch row and timestep.

    ``x_sent``, ``h_sent``: columns that were sent.
    ``x_possible``, ``h_possible``: columns of all timesteps.
    ``ran``: timesteps with matrix work.
    ``advanced``: timesteps at which c and h advanced, also with kept gates.
    """

    x_sent: int
    x_possible: int
    h_sent: int
    h_possible: int
    ran: int
    advanced: int

    def plus(self, other: ColumnCounts) -> ColumnCounts:
        """Both together."""
        return ColumnCounts(*map(operator.add, self, other))


def activity(columns: Sequence[ColumnCounts]) -> float:
    """Share of the columns of W_ih and W_hh that were computed, weighted by timesteps; 1.0 if nothing ran."""
    sent = possible = 0
    for x_sent, x_possible, h_sent, h_possible, _, _ in columns:
        sent += x_sent + h_sent
        possible += x_possible + h_possible
    return sent / possible if possible else 1.0


def ran(columns: Sequence[ColumnCounts], timesteps: int) -> float:
    """Share of the layers' timesteps with any matrix work; 1.0 if nothing ran."""
    possible = timesteps * len(columns)
    return sum([c.ran for c in columns]) / possible if possible else 1.0


class Seams(NamedTuple):
    """What a run did at the seams of sequences that were split in time (``SplitTime``).

    ``number``: seams between chunks, of all cells and batch rows.
    ``repeated``: how many of the chunks behind them were run again from the true state.
    ``residual``: the largest difference between a warmed-up state and the true one (``policies.Seam``).
    ``strain``: summed over the seams, how far each was from being run again, 1 at the most.
    ``extra``: per cell, timesteps that ran in addition, to warm up or again; empty: none.
    """

    number: int = 0
    repeated: int = 0
    residual: float = 0.0
    strain: float = 0.0
    extra: tuple[int, ...] = ()

    @property
    def mean_strain(self) -> float:
        """Mean over the seams, in 0..1; 0.0 if there are none."""
        return self.strain / self.number if self.number else 0.0

    def plus(self, other: Seams) -> Seams:
        """Both together."""
        return Seams(
            self.number + other.number,
            self.repeated + other.repeated,
            max(self.residual, other.residual),
            self.strain + other.strain,
            _added(self.extra, other.extra),
        )


NO_SEAMS = Seams()


def _added(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(x + y for x, y in zip(a, b, strict=True)) if a and b else a or b


@short_repr
@dataclass(frozen=True)
class Counts:
    """Everything that a run counts.

    ``columns``: one entry per cell.
    ``exit_checks``: checks of the exit in time, counted per batch row.
    ``exits``: rows that exited early, in time or (whole sequences) in depth.
    ``depth_checks``, ``depth_exits``: per layer, checks of the exit in depth and timesteps that exited there.
    ``live_units``: units per cell that are not pruned; empty: all.
    ``seams``: where sequences were split in time; what ran in addition is not in ``columns``.
    """

    columns: tuple[ColumnCounts, ...]
    exit_checks: int = 0
    exits: int = 0
    depth_checks: tuple[int, ...] = ()
    depth_exits: tuple[int, ...] = ()
    live_units: tuple[int, ...] = ()
    seams: Seams = NO_SEAMS

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            tuple(a.plus(b) for a, b in zip(self.columns, other.columns, strict=True)),
            self.exit_checks + other.exit_checks,
            self.exits + other.exits,
            _added(self.depth_checks, other.depth_checks),
            _added(self.depth_exits, other.depth_exits),
            self.live_units or other.live_units,
            self.seams.plus(other.seams),
        )

    @staticmethod
    def none(shape: StackShape) -> Counts:
        """Nothing yet."""
        return Counts((ColumnCounts(0, 0, 0, 0, 0, 0),) * shape.num_cells)

    @staticmethod
    def dense(shape: StackShape, timesteps: int) -> Counts:
        """Of a run in which nothing could be skipped."""
        sizes = (
            (timesteps * shape.input_width(cell), timesteps * shape.output_size) for cell in range(shape.num_cells)
        )
        return Counts(tuple(ColumnCounts(x, x, h, h, timesteps, timesteps) for x, h in sizes))


@dataclass(frozen=True)
class Route:
    """Who served a call, and why.

    ``by``: "native", the compiled kernels; "reference", the readable executor in Python; "mixed", native chunks with
    exit checks in Python between them; "torch", ``nn.LSTM.forward``.
    ``reason``: why it was not the native kernels alone, or that they ran an LSTM of another dtype in float32; else
    empty.
    """

    by: Literal["native", "reference", "mixed", "torch"]
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.by}: {self.reason}" if self.reason else self.by


@short_repr
@dataclass(frozen=True)
class RunStats:
    """What a run did, and what it could have done.

    ``macs``: multiply-accumulates of the sent columns, of projections, and of the policy's own checks
    (``policy_macs``), without the rows of pruned units and without columns whose weights are all zero. A split sequence
    takes more than ``macs_possible``: what it saves is time.
    ``macs_possible``: the same with nothing pruned, skipped or checked.
    ``policy_macs``: multiply-accumulates of exit checks and translations, and of what ran in addition at seams;
    contained in ``macs``.
    ``timesteps``: batch rows times timesteps.
    ``layers``: cells that ran.
    ``exits``: batch rows that exited early, in time or in depth.
    ``exit_checks``: checks of the exit in time, counted per batch row.
    ``columns``: one entry per cell. A column counts as sent when its policy sent it, however the backend then computed
    the result.
    ``route``: who served, and why.
    ``threads``: how many served; of torch, how many it could use.
    ``seams``: where sequences were split in time.
    """

    macs: int
    macs_possible: int
    policy_macs: int
    timesteps: int
    layers: int
    exits: int
    exit_checks: int
    columns: tuple[ColumnCounts, ...]
    route: Route
    threads: int
    seams: Seams = NO_SEAMS

    @property
    def activity(self) -> float:
        """Share of the columns of W_ih and W_hh that were computed, weighted by timesteps; 1.0 if nothing ran."""
        return activity(self.columns)

    @property
    def ran(self) -> float:
        """Share of the layers' timesteps with any matrix work; 1.0 if nothing ran."""
        return ran(self.columns, self.timesteps)

    @staticmethod
    def of(
        shape: StackShape, counts: Counts, timesteps: int, *, route: Route, threads: int, policy_macs: int = 0
    ) -> RunStats:
        """Statistics that follow from what was counted in so many batch rows times timesteps."""
        H, P, columns = shape.hidden_size, shape.proj_size, counts.columns
        live = counts.live_units or (H,) * shape.num_cells
        done = sum(n * (4 * (c.x_sent + c.h_sent) + P * c.advanced) for n, c in zip(live, columns, strict=True))
        possible = H * sum(4 * (c.x_possible + c.h_possible) + P * timesteps for c in columns)
        return RunStats(
            macs=done + policy_macs,
            macs_possible=possible,
            policy_macs=policy_macs,
            timesteps=timesteps,
            layers=sum(c.ran > 0 for c in columns) if timesteps else shape.num_cells,
            exits=counts.exits,
            exit_checks=counts.exit_checks,
            columns=columns,
            route=route,
            threads=threads,
            seams=counts.seams,
        )


@dataclass(frozen=True)
class Site:
    """One operand of a cell: its input ``x`` or its hidden state ``h``."""

    shape: StackShape
    cell: int
    operand: Literal["x", "h"]

    @property
    def width(self) -> int:
        """Columns of the operand's matrix."""
        return self.shape.input_width(self.cell) if self.operand == "x" else self.shape.output_size

    @property
    def raw(self) -> bool:
        """Whether these are the model's own input features, whose scale is unknown."""
        return self.operand == "x" and self.cell < self.shape.directions

    def __str__(self) -> str:
        return f"{self.operand} of {self.shape.name(self.cell)}"


def sites(shape: StackShape) -> list[Site]:
    """All operands of a stack, x before h, cell by cell."""
    return [Site(shape, cell, operand) for cell in range(shape.num_cells) for operand in ("x", "h")]
