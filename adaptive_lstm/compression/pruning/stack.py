"""Pruning one stack from the bottom up, on recorded calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence

from ...analysis.moments import Moments, moments
from ...analysis.recorder import Recorded
from ...execution.torch_layer import Layer, of_layer
from ...types import DoubleArray, StackShape
from ...weights.layout import CellTensors, rows_of_units
from .feed_forward import feed_forward
from .masks import CellData, Recipe
from .refit import Mask, quadratic, refit, shifted_bias

TOGETHER = 64  # rows of a call


@dataclass(frozen=True, eq=False)
class DenseRun:
    """The dense run of one LSTM: ``levels[0]`` its inputs, then the output of every layer; per call [n, width]."""

    shape: StackShape
    weights: tuple[CellTensors, ...]
    calls: list[Recorded]
    levels: list[list[torch.Tensor]]


def dense_run(
    shape: StackShape,
    weights: tuple[CellTensors, ...],
    calls: list[Recorded],
    tick: Callable[[], object] = lambda: None,
) -> DenseRun:
    """Run the dense stack over the calls, many short ones at once; 4 * (I + L * D * P) bytes per timestep.

    tick: called before every layer.
    """
    calls = merged(calls)
    levels = [[call.rows for call in calls]]
    for layer in range(shape.num_layers):
        tick()
        levels.append(_through(shape, weights, layer, levels[-1], calls))
    return DenseRun(shape, weights, calls, levels)


def merged(calls: Sequence[Recorded]) -> list[Recorded]:
    """The same sequences in calls of about ``TOGETHER`` rows, ordered by length.

    A call with one row reads all weights at every timestep; rows do not influence each other.
    """
    if len(calls) < 2 or min(call.sizes[0] for call in calls) >= TOGETHER:
        return list(calls)
    rows = sorted(((call, row) for call in calls for row in range(call.sizes[0])), key=lambda one: -_length(*one))
    return [_one_call(rows[first : first + TOGETHER]) for first in range(0, len(rows), TOGETHER)]


def _length(call: Recorded, row: int) -> int:
    """Timesteps of a row; ``sizes`` never grow."""
    return sum(1 for size in call.sizes if size > row)


def _one_call(rows: Sequence[tuple[Recorded, int]]) -> Recorded:
    """Rows of several calls, longest first, as one call."""
    columns = []
    for call, row in rows:
        begins = torch.tensor([0, *call.sizes], device="cpu").cumsum(0)
        columns.append(call.rows[begins[: _length(call, row)] + row])
    lengths = torch.tensor([len(column) for column in columns], device="cpu")  # whatever the default device is
    packed = pack_padded_sequence(pad_sequence(columns), lengths)
    initial = None
    if any(call.initial is not None for call, _ in rows):
        like = next(call.initial for call, _ in rows if call.initial is not None)
        zeros = tuple(torch.zeros_like(one[:, :1]) for one in like)
        given = [zeros if c.initial is None else tuple(one[:, r : r + 1] for one in c.initial) for c, r in rows]
        initial = (torch.cat([h for h, _ in given], dim=1), torch.cat([c for _, c in given], dim=1))
    return Recorded(packed.data, packed.batch_sizes.tolist(), initial)


def _through(
    shape: StackShape, weights: Sequence[CellTensors], layer: int, below: list[torch.Tensor], calls: list[Recorded]
) -> list[torch.Tensor]:
    D = shape.directions
    runner = Layer(weights[layer * D : (layer + 1) * D], shape)
    with torch.no_grad():
        return [
            runner.run(rows, call.sizes, of_layer(call.initial, layer, D))[0]
            for rows, call in zip(below, calls, strict=True)
        ]


def operands(
    shape: StackShape, cell: int, calls: list[Recorded], below: list[torch.Tensor], level: list[torch.Tensor]
) -> Iterator[torch.Tensor]:
    """z = [x ; h] [n, C] of a cell, call by call, from the outputs of the layer below and of its own layer."""
    P, direction = shape.output_size, cell % shape.directions
    for call, x, out in zip(calls, below, level, strict=True):
        h = out[:, direction * P : (direction + 1) * P]
        start = None if call.initial is None else call.initial[0][cell]
        yield torch.cat([x, previous_h(h, call.sizes, direction == 1, start)], dim=1)


def previous_h(h: torch.Tensor, sizes: Sequence[int], reverse: bool, start: torch.Tensor | None) -> torch.Tensor:
    """The h of the timestep before, for every timestep.

    Args:
        h: [n, P] the states of one direction after every timestep, packed.
        sizes: rows alive at each timestep.
        reverse: whether the direction runs from the last timestep to the first.
        start: h_0 [B, P], or None: zeros.
    """
    first = h.new_zeros(sizes[0], h.shape[1]) if start is None else start
    begins = torch.tensor([0, *sizes], device="cpu").cumsum(0)
    out = torch.empty_like(h)
    for t, count in enumerate(sizes):
        other = t + 1 if reverse else t - 1
        known = min(count, sizes[other]) if 0 <= other < len(sizes) else 0
        here = int(begins[t])
        if known:
            out[here : here + known] = h[int(begins[other]) : int(begins[other]) + known]
        out[here + known : here + count] = first[known:count]
    return out


def dense_moments(dense: DenseRun, cell: int) -> Moments:
    """Moments of a cell's operand in the dense run."""
    layer = cell // dense.shape.directions
    found = operands(dense.shape, cell, dense.calls, dense.levels[layer], dense.levels[layer + 1])
    return moments((z, z) for z in found)


def prune_stack(
    recipe: Recipe,
    dense: DenseRun,
    cells: Sequence[CellData],
    keep: Sequence[Mask],
    live: Sequence[Mask] | None = None,
    mapped: Sequence[int] = (),
    tick: Callable[[], object] = lambda: None,
) -> tuple[CellTensors, ...]:
    """Weights of a stack with masks applied and compensated.

    Args:
        recipe: how; ``sweeps`` 0: all layers at once on the dense moments; 1: every layer on what the pruned ones below
            give it; more: that again, with its own pruned h.
        dense: the dense run.
        cells: weights and dense statistics.
        keep: masks [4H, C], one per cell.
        live: units that stay [H], one per cell, or None: all.
        mapped: layers that become feed-forward maps.
        tick: called before every cell.
    """
    shape, D = dense.shape, dense.shape.directions
    out = list(dense.weights)
    below = dense.levels[0]
    for layer in range(shape.num_layers):
        level = dense.levels[layer + 1]
        for sweep in range(max(recipe.sweeps, 1)):
            for cell in range(layer * D, (layer + 1) * D):
                tick()
                if layer in mapped:
                    steps = zip(_outputs(dense, cell), below, strict=True)
                    out[cell] = feed_forward(dense.weights[cell], steps, recipe.ridge)
                    continue
                seen = cells[cell].moments
                if recipe.sweeps and (layer or sweep):
                    d = operands(shape, cell, dense.calls, dense.levels[layer], dense.levels[layer + 1])
                    z = operands(shape, cell, dense.calls, below, level)
                    seen = moments(zip(d, z, strict=True))
                out[cell] = _compensated(recipe, cells[cell], seen, keep[cell], dense.weights[cell])
                if live is not None:
                    out[cell] = _with_pruned_units(recipe, out[cell], live[cell], _outputs(dense, cell))
            if recipe.sweeps and (layer + 1 < shape.num_layers or sweep + 1 < recipe.sweeps):
                level = _through(shape, out, layer, below, dense.calls)
        below = level
    return tuple(out)


def _compensated(recipe: Recipe, data: CellData, seen: Moments, keep: Mask, original: CellTensors) -> CellTensors:
    w, bias = np.where(keep, data.w, 0.0), data.bias
    if recipe.compensate == "refit":
        w = refit(quadratic(data.w, seen, recipe.ridge), keep)
    if recipe.compensate != "none":
        bias = shifted_bias(bias, data.w, w, seen)
    return with_weights(original, w, bias)


def with_weights(original: CellTensors, w: DoubleArray, bias: DoubleArray) -> CellTensors:
    """A cell with other weights ``w`` [4H, C] of [W_ih | W_hh] and another ``bias`` [4H]."""
    width = original.w_ih.shape[1]
    w_ih, w_hh, b = (torch.from_numpy(np.ascontiguousarray(v)).float() for v in (w[:, :width], w[:, width:], bias))
    return replace(original, w_ih=w_ih, w_hh=w_hh, bias=b)


def _outputs(dense: DenseRun, cell: int) -> list[torch.Tensor]:
    """Output of a cell in the dense run, per call [n, P]."""
    layer, direction = divmod(cell, dense.shape.directions)
    P = dense.shape.output_size
    return [out[:, direction * P : (direction + 1) * P] for out in dense.levels[layer + 1]]


def _with_pruned_units(recipe: Recipe, w: CellTensors, live: Mask, outputs: list[torch.Tensor]) -> CellTensors:
    """A cell whose pruned units are constant: at their mean, or at zero ahead of a projection or uncompensated."""
    pruned = torch.from_numpy(~live)
    constant = torch.zeros(len(live), dtype=torch.float32, device="cpu")
    if recipe.compensate != "none" and w.w_hr is None:
        mean = torch.stack([h.double().sum(0) for h in outputs]).sum(0) / sum(map(len, outputs))
        constant = torch.where(pruned, mean.float(), constant)
    return replace(
        w,
        bias=w.bias.masked_fill(torch.from_numpy(rows_of_units(~live)), 0.0),
        w_hr=None if w.w_hr is None else w.w_hr.masked_fill(pruned, 0.0),
        live=~pruned,
        constant=constant,
    )
