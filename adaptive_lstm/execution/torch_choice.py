"""Never slower than ``nn.LSTM``: which path is faster here, measured, not assumed.

With one batch row on one thread the native kernels win at every size that was measured (``eval/latency.py``). Torch
gains with large batches and with threads, so for those the two are timed once on zeros of the same shape, and the
answer is kept for as long as the weights are.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import nn

from ..types import StackShape
from .batch import Batch
from .runner import Runner

PROBE_STEPS = 64  # timesteps that are timed at most: enough for torch's fixed cost per call to fade
PROBE_ROUNDS = 3


def _power_of_two(n: int) -> int:
    return 1 << (n - 1).bit_length()


class SpeedTrial:
    """Remembers, per batch size, length and thread count (rounded up to powers of two), whether torch is faster."""

    def __init__(self, runner: Runner, shape: StackShape):
        self._runner, self._shape = runner, shape
        self._faster: dict[tuple[int, int, int], bool] = {}

    def torch_is_faster(self, lstm: nn.LSTM, x: torch.Tensor) -> bool:
        """Whether ``nn.LSTM.forward`` should serve x [T, B, I], or [B, T, I] if the LSTM is ``batch_first``."""
        if x.dim() != 3:
            return False
        steps, batch = (x.shape[1], x.shape[0]) if lstm.batch_first else (x.shape[0], x.shape[1])
        threads = torch.get_num_threads()
        if batch == 1 and threads == 1:
            return False
        key = (_power_of_two(batch), _power_of_two(steps), threads)
        if key not in self._faster:
            self._faster[key] = self._probe(lstm, batch, min(steps, PROBE_STEPS), x)
        return self._faster[key]

    def _probe(self, lstm: nn.LSTM, batch: int, steps: int, like: torch.Tensor) -> bool:
        shape = self._shape
        x = like.new_zeros((batch, steps, shape.input_size) if lstm.batch_first else (steps, batch, shape.input_size))
        h = like.new_zeros(shape.num_cells, batch, shape.output_size)
        c = like.new_zeros(shape.num_cells, batch, shape.hidden_size)

        def timed(call: Callable[[], object]) -> float:
            start = time.perf_counter()
            call()
            return time.perf_counter() - start

        with torch.no_grad():
            rounds = [
                (
                    timed(lambda: nn.LSTM.forward(lstm, x, (h, c))),
                    timed(lambda: self._runner.run(Batch.of(x, None, shape, lstm.batch_first))),
                )
                for _ in range(PROBE_ROUNDS + 1)
            ][1:]  # the first round warms both up
        return min(r[0] for r in rounds) < min(r[1] for r in rounds)
