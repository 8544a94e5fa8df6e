"""The readable executor: plain torch, any device, float32 or float64, differentiable, every policy. The tests' oracle.

Equations: torch's ``nn.LSTM`` (and ``proj_size``: Sak et al., arXiv 1402.1128), with every operand replaced by the
estimate that its policy keeps (``policies/delta.py``). Rows are packed as in ``PackedSequence``: all rows of timestep
0, then those of timestep 1, ...; ``sizes[t]`` rows are alive at timestep t, never more than before.

Layer by layer. What a layer does with a row at a timestep is one of the actions below; a layer that does not decide
for itself does what the layer below did. Exits in time are put around it (``early_exit``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ..policies import DepthExitPolicy, Parts, Policy, parts
from ..types import Counts, HoldState, Site, StackShape, StreamState
from ..weights.layout import CellTensors, shape_of, tensors_of
from ..weights.matrices import live_units
from .reference_cell import (
    EXITED,
    HOLD_GATES,
    QUEUE_INPUT,
    RUN,
    CellState,
    Observer,
    ReferenceCell,
    Step,
    state_with_pruned_constant,
)
from .runner import Advanced, Chunk


@dataclass
class _Tick:
    """What a layer hands to the one above at a timestep; n rows.

    ``actions`` [n]: one per direction.
    ``late``: outputs of queued inputs that were replayed, by row, oldest first; they precede that of this timestep.
    ``translation`` [n, D * P]: the top layer's output for rows that exited in depth.
    """

    actions: list[torch.Tensor]
    late: dict[int, list[torch.Tensor]] = field(default_factory=dict)
    translation: torch.Tensor | None = None


def _replay(
    cell: ReferenceCell, x: torch.Tensor, actions: torch.Tensor, late: dict[int, list[torch.Tensor]], time: int
) -> dict[int, list[torch.Tensor]]:
    """Queue the inputs of rows that are held, and replay the queues of those that run; returns their outputs."""
    done: dict[int, list[torch.Tensor]] = {}
    for row, action in enumerate(actions.tolist()):
        if action == QUEUE_INPUT and cell.decider is not None:
            cell.queue[row].append(x[row])
        elif action == RUN:
            waiting, cell.queue[row] = cell.queue[row] + late.get(row, []), []
            for item in waiting:
                cell.advance(item[None], torch.tensor([row], device=x.device), time)
                done.setdefault(row, []).append(cell.h[row])
    return done


def _run_direction(
    cell: ReferenceCell, xs: list[torch.Tensor], ticks: list[_Tick], direction: int, top: bool, first: int
) -> list[torch.Tensor]:
    """One direction of a layer over all timesteps: its outputs. ``ticks`` become what the layer above is handed."""
    outputs = list(xs)
    width = cell.shape.output_size
    for t in reversed(range(len(xs))) if direction else range(len(xs)):
        x, tick = xs[t], ticks[t]
        actions = tick.actions[direction]
        if cell.holding:
            actions = tick.actions[direction] = cell.actions(x, actions)
            if cell.queues:
                tick.late = _replay(cell, x, actions, tick.late, first + t)
            cell.note(x, actions)
        rows = (actions == RUN).nonzero()[:, 0]
        if len(rows):
            cell.advance(x[rows], rows, first + t)
        if cell.holding and len(rows := (actions == HOLD_GATES).nonzero()[:, 0]):
            cell.reuse_gates(rows)
        if top and tick.translation is not None and len(rows := (actions == EXITED).nonzero()[:, 0]):
            cell.take(rows, tick.translation[rows, direction * width : (direction + 1) * width])
        cell.settle(len(x))
        outputs[t] = cell.h[: len(x)]
    return outputs


@dataclass
class _Running:
    """The rows of a run that have not exited, and the outputs of all rows.

    ``members`` [m]: the batch rows that go on, ascending.
    ``sizes``: how many of them are alive at each timestep.
    ``levels[k][t]`` [n, D * P]: their outputs of layer k, kept for exits in depth.
    ``y[t]``: outputs of all rows.
    """

    members: torch.Tensor
    sizes: list[int]
    levels: list[list[torch.Tensor]]
    y: list[torch.Tensor]


def _translated(depth: DepthExitPolicy, layer: int, h: torch.Tensor, final: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Translations [n, D * P] from the states of layers 0..layer [n, layer + 1, D * P], and which rows exit."""
    translation = depth.translate(layer, h, final)
    below = depth.translate(layer - 1, h[:, :-1], final) if layer else None
    return translation, depth.should_exit(layer, translation, below)


def _exit_steps(depth: DepthExitPolicy, layer: int, batch: _Running, ticks: list[_Tick]) -> tuple[int, int]:
    """Check at every timestep which rows exit after this layer; returns how many were checked, and how many exited."""
    checks = exits = 0
    for t, tick in enumerate(ticks):
        running = torch.stack([a == RUN for a in tick.actions]).all(0)
        rows = running.nonzero()[:, 0]
        if not len(rows):
            continue
        h = torch.stack([level[t][rows] for level in batch.levels], dim=1)
        translation, exiting = _translated(depth, layer, h, final=False)
        checks, exits = checks + len(rows), exits + int(exiting.sum())
        if tick.translation is None:
            tick.translation = torch.zeros_like(batch.levels[0][t])
        tick.translation = tick.translation.index_copy(0, rows[exiting], translation[exiting])
        for actions in tick.actions:
            actions[rows[exiting]] = EXITED
    return checks, exits


def _exit_sequences(
    depth: DepthExitPolicy,
    layer: int,
    shape: StackShape,
    batch: _Running,
    ticks: list[_Tick],
    h_end: list[torch.Tensor],
) -> tuple[int, int]:
    """Check which sequences exit after this layer; returns how many were checked, and how many timesteps translated."""
    h = torch.stack(h_end[: (layer + 1) * shape.directions], dim=1)[batch.members].unflatten(1, (layer + 1, -1))
    translation, exiting = _translated(depth, layer, h.flatten(2), final=True)
    checks, translated = len(batch.members), 0
    parts_of = translation.split(shape.output_size, dim=1)
    for d, part in enumerate(parts_of):
        top = (shape.num_layers - 1) * shape.directions + d
        h_end[top] = h_end[top].index_copy(0, batch.members[exiting], part[exiting])
    for t, n in enumerate(batch.sizes):
        here = exiting[:n].nonzero()[:, 0]
        if not len(here):
            continue
        translated += len(here)
        states = torch.stack([level[t][here] for level in batch.levels], dim=1)
        out = list(depth.translate(layer, states, False).split(shape.output_size, dim=1))
        # The final states are outputs too: of the last timestep forward, of the first backward.
        after = batch.sizes[t + 1] if t + 1 < len(batch.sizes) else 0
        out[0] = torch.where((here >= after)[:, None], parts_of[0][here], out[0])
        if len(out) == 2 and t == 0:
            out[1] = parts_of[1][here]
        batch.y[t] = batch.y[t].index_copy(0, batch.members[here], torch.cat(out, dim=1))
    stay = (~exiting).nonzero()[:, 0]
    sizes = [int((stay < n).sum()) for n in batch.sizes]
    batch.levels = [[o[stay[:n]] for o, n in zip(level, sizes, strict=True)] for level in batch.levels]
    for tick, n in zip(ticks, sizes, strict=True):
        tick.actions = [a[stay[:n]] for a in tick.actions]
    batch.members, batch.sizes = batch.members[stay], sizes
    return checks, translated


class _Ends:
    """Where every cell starts, and where the rows that ran in it end; the others keep what they had."""

    def __init__(self, weights: Sequence[CellTensors], state: StreamState):
        self.given = state
        start = [state_with_pruned_constant(w, h, c) for w, h, c in zip(weights, state.h, state.c, strict=True)]
        self.h, self.c = [h for h, _ in start], [c for _, c in start]
        self.sent_x, self.sent_h = list(state.sent_x), list(state.sent_h)
        self.hold: list[HoldState] = []

    def start(self, cell: int, rows: torch.Tensor) -> CellState:
        """Where the given rows of a cell start."""
        given = self.given
        hold = given.hold[cell] if given.hold else HoldState()
        return CellState(self.h[cell][rows], self.c[cell][rows], given.sent_x[cell], given.sent_h[cell], hold)

    def keep(self, cell: ReferenceCell, rows: torch.Tensor) -> None:
        """Take over what the given rows of a cell end with."""
        k = cell.index
        self.h[k], self.c[k] = self.h[k].index_copy(0, rows, cell.h), self.c[k].index_copy(0, rows, cell.c)
        self.sent_x[k] = cell.of_x.sent if cell.of_x.thresholded else None
        self.sent_h[k] = cell.of_h.sent if cell.of_h.thresholded else None
        if cell.holding:
            self.hold.append(cell.held_state())

    def state(self) -> StreamState:
        """The state of all cells at the end."""
        sent = tuple(self.sent_x), tuple(self.sent_h)
        return StreamState(torch.stack(self.h), torch.stack(self.c), *sent, tuple(self.hold), self.given.exit)


def run(
    weights: Sequence[CellTensors],
    shape: StackShape,
    policy: Parts,
    chunk: Chunk,
    observer: Observer | None = None,
) -> Advanced:
    """Run a stack over packed rows.

    Args:
        weights: one entry per cell.
        shape: sizes of the stack.
        policy: what may be left out; its exit in time is not checked here (``early_exit``).
        chunk: the rows, and the state to start from.
        observer: called with every step.
    """
    x, sizes, D = chunk.x, chunk.sizes, shape.directions
    members = torch.arange(sizes[0], device=x.device)
    batch = _Running(members, list(sizes), [], [x.new_zeros(n, D * shape.output_size) for n in sizes])
    xs = list(x.split(batch.sizes))
    ticks = [_Tick([torch.zeros(n, dtype=torch.long, device=x.device) for _ in range(D)]) for n in sizes]
    ends, counts = _Ends(weights, chunk.state), []
    depth = policy.depth_exit
    checks, exits = [0] * shape.num_layers, [0] * shape.num_layers
    for layer in range(shape.num_layers):
        top = layer == shape.num_layers - 1
        outputs = []
        for d in range(D):
            index = layer * D + d
            start = ends.start(index, batch.members)
            cell = ReferenceCell(shape, index, weights[index], policy, start, observer)
            outputs.append(_run_direction(cell, xs, ticks, d, top, chunk.first))
            ends.keep(cell, batch.members)
            counts.append(cell.counts(len(x)))
        xs = [torch.cat(parts_of, dim=1) for parts_of in zip(*outputs, strict=True)]
        if depth is None or top:
            continue
        batch.levels.append(xs)
        if depth.checks_after(shape, layer) and len(batch.members):
            if depth.level == "step":
                checks[layer], exits[layer] = _exit_steps(depth, layer, batch, ticks)
            else:
                checks[layer], exits[layer] = _exit_sequences(depth, layer, shape, batch, ticks, ends.h)
                xs = batch.levels[-1]
    y = [o.index_copy(0, batch.members[: len(out)], out) for o, out in zip(batch.y, xs, strict=True)]
    counted = Counts(
        tuple(counts),
        exits=sizes[0] - len(batch.members),
        depth_checks=tuple(checks) if depth else (),
        depth_exits=tuple(exits) if depth else (),
        live_units=live_units(shape, weights),
    )
    return Advanced(torch.cat(y), ends.state(), counted)


def trace(lstm: nn.LSTM, policy: Policy, x: torch.Tensor) -> list[npt.NDArray[np.bool_]]:
    """Which columns one sequence sends: per layer and direction a bool array [T, width + P], x before h.

    Args:
        lstm: the stack, in its own float precision.
        policy: what may be left out; a layer that does not run sends nothing. Exits in time are not checked.
        x: [T, I].
    """
    shape = shape_of(lstm)
    width = [Site(shape, cell, "x").width + shape.output_size for cell in range(shape.num_cells)]
    sent: list[dict[int, npt.NDArray[np.bool_]]] = [{} for _ in range(shape.num_cells)]

    def observe(step: Step) -> None:
        sent[step.cell][step.time] = torch.cat([step.x_sent[0], step.h_sent[0]]).cpu().numpy()

    with torch.no_grad():
        h, c = x.new_zeros(shape.num_cells, 1, shape.output_size), x.new_zeros(shape.num_cells, 1, shape.hidden_size)
        run(tensors_of(lstm), shape, parts(policy), Chunk(x, [1] * len(x), StreamState.start(h, c)), observe)
    nothing = [np.zeros(n, dtype=np.bool_) for n in width]
    return [np.stack([steps.get(t, none) for t in range(len(x))]) for steps, none in zip(sent, nothing, strict=True)]
