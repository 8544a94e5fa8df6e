"""Plain containers that everything else passes around.

Letters, once for the whole package: T time, B batch, I input size, H hidden size, P projection size (the width of h:
``proj_size`` if set, else H), L layers, D directions; gates in torch order i, f, g, o. Layer-and-direction pairs are
counted as torch counts them in ``h_n``: index ``layer * D + direction``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class StackShape:
    """Sizes of a stacked LSTM."""

    input_size: int
    hidden_size: int
    num_layers: int
    proj_size: int = 0
    bidirectional: bool = False

    @property
    def directions(self) -> int:
        """D: 2 if bidirectional, else 1."""
        return 2 if self.bidirectional else 1

    @property
    def output_size(self) -> int:
        """P: width of h in one direction."""
        return self.proj_size or self.hidden_size

    @property
    def pairs(self) -> int:
        """L * D: how many layer-and-direction pairs there are."""
        return self.num_layers * self.directions

    def input_width(self, pair: int) -> int:
        """Columns of ``weight_ih`` of a layer-and-direction pair: I for the first layer, D * P above."""
        return self.input_size if pair < self.directions else self.directions * self.output_size

    def name(self, pair: int) -> str:
        """torch's suffix of a pair: ``l0``, ``l0_reverse``, ``l1``, ..."""
        layer, direction = divmod(pair, self.directions)
        return f"l{layer}" + ("_reverse" if direction else "")

    def step_macs(self, pair: int) -> int:
        """Multiply-accumulates of one timestep of one batch row in a pair, nothing skipped."""
        gates = 4 * self.hidden_size * (self.input_width(pair) + self.output_size)
        return gates + self.proj_size * self.hidden_size


@dataclass(frozen=True)
class ColumnCounts:
    """Columns of one layer and direction over a run, counted per batch row and timestep."""

    x_sent: int
    x_possible: int
    h_sent: int
    h_possible: int


@dataclass(frozen=True)
class RunStats:
    """What a run did and what it could leave out.

    ``columns``: one entry per layer-and-direction pair. A column counts as sent when its policy asked for it, whichever
    way the backend then computed the result. ``macs``: multiply-accumulates of the sent columns (and of projections);
    ``macs_possible``: with nothing skipped. ``timesteps``: batch rows times timesteps. ``layers``: layer-and-direction
    pairs that ran. ``exits``: batch rows that left early. ``fallback``: why the native kernel did not serve, or None.
    """

    macs: int
    macs_possible: int
    timesteps: int
    layers: int
    exits: int
    columns: tuple[ColumnCounts, ...]
    fallback: str | None = None

    @property
    def activity(self) -> float:
        """Share of the columns of W_ih and W_hh that were computed, weighted by timesteps; 1.0 if nothing ran."""
        possible = sum(c.x_possible + c.h_possible for c in self.columns)
        return sum(c.x_sent + c.h_sent for c in self.columns) / possible if possible else 1.0

    @staticmethod
    def from_columns(
        shape: StackShape, columns: tuple[ColumnCounts, ...], timesteps: int, fallback: str | None
    ) -> RunStats:
        """Statistics that follow from the column counts of every pair."""
        gates = 4 * shape.hidden_size
        projections = timesteps * shape.proj_size * shape.hidden_size * shape.pairs
        return RunStats(
            macs=gates * sum(c.x_sent + c.h_sent for c in columns) + projections,
            macs_possible=gates * sum(c.x_possible + c.h_possible for c in columns) + projections,
            timesteps=timesteps,
            layers=shape.pairs,
            exits=0,
            columns=columns,
            fallback=fallback,
        )

    @staticmethod
    def dense(shape: StackShape, timesteps: int, fallback: str | None) -> RunStats:
        """Statistics of a run in which nothing could be skipped."""
        columns = tuple(
            ColumnCounts(x, x, h, h)
            for x, h in (
                (timesteps * shape.input_width(pair), timesteps * shape.output_size) for pair in range(shape.pairs)
            )
        )
        return RunStats.from_columns(shape, columns, timesteps, fallback)


@dataclass(frozen=True)
class StreamState:
    """Everything a stream remembers between two steps.

    ``h`` [L * D, B, P] and ``c`` [L * D, B, H]: the states, as ``nn.LSTM`` gives them. ``sent_x[pair]`` [B, width] and
    ``sent_h[pair]`` [B, P]: the values last sent where a policy thresholds that operand, else None.
    """

    h: torch.Tensor
    c: torch.Tensor
    sent_x: tuple[torch.Tensor | None, ...]
    sent_h: tuple[torch.Tensor | None, ...]
