"""Fits translators: closed-form maps from the states of a sequence so far to its final state.

Ridge regression without labels and without gradients on the states of the stack in float32, pruned if it is. Exits
read the result (``policies/translators.py``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ..codec import brief, is_number, is_one_of, is_whole, short_repr
from ..errors import InputError, NonFiniteError
from ..model_io import as_batches, call, runs_model
from ..policies import DepthTranslators, Map, TimeTranslators
from ..progress import tracked
from ..runtime.adapt import adapted_lstms, keep_settings
from ..types import FloatArray
from ..weights.layout import float32, shape_of
from .recorder import Recorded, Recorder

MIN_SAMPLES = 300  # timesteps that a time bucket needs for a map of its own
MOST_RIDGE = 1e30  # beyond, every map is its mean
BLOCK = 2048  # samples that are added at once: a few at a time cost a pass over all sums each time


@short_repr
@dataclass(frozen=True, eq=False)
class Translators:
    """Maps for exits of one stack.

    ``time``: None for a bidirectional stack.
    ``depth``: None for a single layer.
    """

    time: TimeTranslators | None
    depth: DepthTranslators | None


@dataclass(frozen=True)
class _States:
    """States of one batch.

    ``levels``: of every layer [rows, D * P], packed.
    ``sizes``: rows alive at each timestep.
    ``final`` [B, L, D * P]: at the end of every row.
    """

    levels: list[FloatArray]
    sizes: list[int]
    final: FloatArray

    @staticmethod
    def of(call: Recorded) -> _States:
        """Of one call of an LSTM."""
        assert call.final is not None
        h = call.final.transpose(0, 1)
        final = h.reshape(len(h), len(call.states), -1)
        return _States([float32(level) for level in call.states], call.sizes, float32(final))


class _Sums:
    """Sums of a ridge regression from ``width`` numbers and a constant to ``out`` numbers."""

    def __init__(self, width: int, out: int):
        self.inputs = np.zeros((width + 1, width + 1))
        self.gram = np.zeros((width + 1, out))
        self.count = 0
        self._waiting: list[tuple[npt.NDArray[np.floating[Any]], npt.NDArray[np.floating[Any]]]] = []

    def add(self, z: npt.NDArray[np.floating[Any]], y: npt.NDArray[np.floating[Any]]) -> None:
        """Add samples z [n, width] -> y [n, out]."""
        self._waiting.append((z, y))
        self.count += len(z)
        if sum(len(few) for few, _ in self._waiting) >= BLOCK:
            self._work_off()

    def _work_off(self) -> None:
        if self._waiting:
            z, y = (np.concatenate(parts).astype(np.float64) for parts in zip(*self._waiting, strict=True))
            z = np.concatenate([z, np.ones((len(z), 1))], axis=1)
            self.inputs += z.T @ z
            self.gram += z.T @ y
            self._waiting = []

    def map(self, ridge: float) -> Map:
        """The regression over all samples."""
        self._work_off()
        return Map.ridge(self.inputs, self.gram, ridge)

    def join(self, other: _Sums) -> None:
        """Add all samples of another regression."""
        other._work_off()
        self.inputs += other.inputs
        self.gram += other.gram
        self.count += other.count


@runs_model
def fit_translators(
    model: nn.Module,
    inputs: Iterable[Any],
    *,
    lstm: str | None = None,
    buckets: int = 12,
    ridge: float = 1e-2,
    progress: bool = True,
) -> Translators:
    """Fit the translators of one adapted LSTM on inputs of its model.

    Use inputs that the later certificate does not rest on, and in shuffled order: sorted by class, a fit sees nothing
    of the classes that come late. Too little data is worse than no translator: a few hundred sequences, at the least.
    All states are kept in memory while fitting: 4 * L * D * P bytes per timestep.

    Args:
        model: an adapted model in eval mode.
        inputs: each as the model takes it: a tensor, a ``PackedSequence``, a tuple of arguments, or a dict of
            arguments by name.
        lstm: module name of the LSTM, if the model holds several.
        buckets: how many time buckets the longest sequence is divided into; those with less than 300 timesteps join
            their neighbour.
        ridge: strength of the ridge, as a share of the mean square of the states.
        progress: show a bar, where stderr is a terminal.

    Raises:
        InputError: no such LSTM, no inputs, training mode, or impossible options.
        NonFiniteError: a state is NaN or infinite.
    """
    lstms = adapted_lstms(model)
    if lstm is None and len(lstms) > 1:
        raise InputError(f"the model holds {len(lstms)} LSTMs; say which one: lstm={next(iter(lstms))!r}, ...")
    name = next(iter(lstms)) if lstm is None else lstm
    if not is_one_of(name, lstms):
        raise InputError(f"lstm: got {brief(name)}, expected one of {', '.join(map(repr, lstms))}")
    if not (is_whole(buckets) and buckets >= 1):
        raise InputError(f"buckets: got {brief(buckets)}, expected a whole number from 1")
    if not (is_number(ridge) and 0 <= ridge <= MOST_RIDGE):
        raise InputError(f"ridge: got {brief(ridge)}, expected a number from 0 to {MOST_RIDGE:g}")
    recorder, recorded = Recorder({name: lstms[name]}, "states"), list[_States]()
    with keep_settings(lstms.values()), recorder.recording(), torch.no_grad():
        for item in tracked(as_batches(inputs), "translators", "batch", show=progress):
            call(model, item)
            recorded += [_States.of(made) for made in recorder.taken(name)]
    if not recorded:
        raise InputError("inputs: got no batches (an iterator that was used up?), expected at least one")
    if not all(np.isfinite(level).all() for r in recorded for level in r.levels):
        raise NonFiniteError("a state of the LSTM is NaN or infinite; clean the inputs")
    shape = shape_of(lstms[name])
    time = None if shape.bidirectional else _fit_time(recorded, buckets, float(ridge))
    depth = _fit_depth(recorded, float(ridge)) if shape.num_layers > 1 else None
    return Translators(time, depth)


def _fit_time(recorded: list[_States], buckets: int, ridge: float) -> TimeTranslators:
    longest = max(len(r.sizes) for r in recorded)
    starts = np.unique(np.linspace(0, longest, min(buckets, longest) + 1).astype(int)[:-1])
    layers, width = recorded[0].final.shape[1:]
    sums = [_Sums(layers * width, width) for _ in starts]
    for r in recorded:
        h = np.concatenate(r.levels, axis=1)
        top = r.final[:, -1]
        first = np.concatenate([[0], np.cumsum(r.sizes)])
        of_row = np.concatenate([np.arange(n) for n in r.sizes])
        for b, start in enumerate(starts):
            end = starts[b + 1] if b + 1 < len(starts) else longest
            rows = slice(first[min(start, len(r.sizes))], first[min(end, len(r.sizes))])
            if rows.start < rows.stop:
                sums[b].add(h[rows], top[of_row[rows]])
    merged: list[tuple[int, _Sums]] = []
    for start, one in zip(starts, sums, strict=True):
        if merged and (one.count < MIN_SAMPLES or merged[-1][1].count < MIN_SAMPLES):
            merged[-1][1].join(one)
        else:
            merged.append((int(start), one))
    return TimeTranslators(tuple(start for start, _ in merged), tuple(s.map(ridge) for _, s in merged))


def _fit_depth(recorded: list[_States], ridge: float) -> DepthTranslators:
    layers, width = recorded[0].final.shape[1:]
    steps, finals = [], []
    for layer in range(layers - 1):
        of_steps, of_finals = _Sums((layer + 1) * width, width), _Sums((layer + 1) * width, width)
        for r in recorded:
            of_steps.add(np.concatenate(r.levels[: layer + 1], axis=1), r.levels[-1])
            of_finals.add(r.final[:, : layer + 1].reshape(len(r.final), -1), r.final[:, -1])
        steps.append(of_steps.map(ridge))
        finals.append(of_finals.map(ridge))
    return DepthTranslators(tuple(steps), tuple(finals))
