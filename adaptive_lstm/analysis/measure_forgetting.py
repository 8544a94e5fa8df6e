"""Measures how soon LSTMs forget: long sequences are split after warm-ups of several lengths, and compared at seams."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import nn

from ..execution.batch import Batch
from ..model_io import call
from ..policies import Policy, Seam, StartStates
from ..policies.forgetting import Forgetting
from ..runtime.adapt import adapted_lstms, keep_settings
from ..runtime.call import Call
from ..runtime.lstm import AdaptiveLSTM
from ..types import DoubleArray, FloatArray, StackShape

WARM_UPS = (8, 16, 32, 64, 128)
SHORTEST_CHUNK = 16  # shorter ones show more seams, of states that hardly differ


class _Listener:
    """A policy that splits often, runs nothing again, and remembers the states at the seams.

    ``residual`` [L * D]: the largest.
    ``h``, ``c``: per cell, sums of the states that were reached.
    ``seams``: how many were seen in each cell.
    """

    def __init__(self, shape: StackShape, warm_up: int, start: StartStates | None):
        self.chunk, self.warm_up = max(warm_up, SHORTEST_CHUNK), warm_up
        self._start = start
        self.residual: DoubleArray = np.zeros(shape.num_cells)
        self.h: DoubleArray = np.zeros((shape.num_cells, shape.output_size))
        self.c: DoubleArray = np.zeros((shape.num_cells, shape.hidden_size))
        self.seams = 0

    def check(self, shape: StackShape) -> None:
        """Fits every stack."""

    def begin(self, cell: int) -> tuple[FloatArray, FloatArray] | None:
        """As ``SplitPolicy.begin``."""
        return None if self._start is None else (self._start.h[cell], self._start.c[cell])

    def strain(self, cell: int, seam: Seam) -> torch.Tensor:
        """Never run again."""
        residual = seam.residual
        self.residual[cell] = max(self.residual[cell], float(residual.max()))
        for total, states in ((self.h, seam.true_h), (self.c, seam.true_c)):
            total[cell] += states.double().sum(0).cpu().numpy()
        self.seams += len(residual) if cell == 0 else 0
        return torch.zeros_like(residual)

    @property
    def seen(self) -> tuple[float, ...]:
        """The largest residual of every cell."""
        return tuple(self.residual.tolist())

    @property
    def mean(self) -> StartStates:
        """Of the states that were reached."""
        h, c = ((total / self.seams).astype(np.float32) for total in (self.h, self.c))
        return StartStates(tuple(h), tuple(c))


def measure_forgetting(model: nn.Module, inputs: Sequence[Any]) -> dict[str, Forgetting]:
    """How soon the LSTMs of a model forget, by module name; those that are given nothing long enough are left out.

    Args:
        model: adapted, in eval mode, in the precision in which it will run.
        inputs: of the model.
    """
    lstms = adapted_lstms(model)
    longest = _longest(model, lstms, inputs)
    able = {name: [w for w in WARM_UPS if w + max(w, SHORTEST_CHUNK) < longest.get(name, 0)] for name in lstms}
    shapes = {name: lstms[name].stack_shape for name, warm_ups in able.items() if warm_ups}
    if not shapes:
        return {}

    def listen(starts: Mapping[str, StartStates]) -> dict[str, dict[int, _Listener]]:
        found: dict[str, dict[int, _Listener]] = {name: {} for name in shapes}
        for warm_up in WARM_UPS:
            policies = {
                name: _Listener(shape, warm_up, starts.get(name))
                for name, shape in shapes.items()
                if warm_up in able[name]
            }
            if policies:
                _run(model, lstms, policies, inputs)
            for name, listener in policies.items():
                found[name][warm_up] = listener
        return found

    from_zeros = listen({})
    means = {name: found[max(found)].mean for name, found in from_zeros.items()}
    from_mean = listen(means)
    return {
        name: Forgetting(
            longest[name],
            means[name],
            {warm_up: one.seen for warm_up, one in from_zeros[name].items()},
            {warm_up: one.seen for warm_up, one in from_mean[name].items()},
        )
        for name in shapes
    }


def _run(
    model: nn.Module, lstms: Mapping[str, AdaptiveLSTM], policies: Mapping[str, Policy], inputs: Sequence[Any]
) -> None:
    with keep_settings(lstms.values()), torch.no_grad():
        for name, policy in policies.items():
            lstms[name].policy = policy
        for item in inputs:
            call(model, item)


def _longest(model: nn.Module, lstms: Mapping[str, AdaptiveLSTM], inputs: Sequence[Any]) -> dict[str, int]:
    """The most timesteps that each LSTM is given in a call."""
    longest: dict[str, int] = {}

    def looking(name: str, lstm: AdaptiveLSTM) -> Callable[[Call], None]:
        def look(made: Call) -> None:
            _, sizes = Batch.of(made.input, made.hx, lstm.stack_shape, lstm.batch_first).packed()
            longest[name] = max(longest.get(name, 0), len(sizes))

        return look

    with ExitStack() as watched:
        for name, lstm in lstms.items():
            watched.enter_context(lstm.watched_by(looking(name, lstm)))
        _run(model, lstms, {}, inputs)
    return longest
