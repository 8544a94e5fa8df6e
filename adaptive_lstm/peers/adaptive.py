"""This project's runtime as a contender, beside the peers."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..compression.compress import compress
from ..runtime.lstm import AdaptiveLSTM
from ..runtime.stream import stream
from ..types import RunStats
from ..weights.precision import Precision, Quantize


@dataclass(frozen=True)
class Adaptive:
    """``lstm`` is batch-first and holds its own weights and policy."""

    name: str
    precision: str
    lstm: AdaptiveLSTM

    @property
    def nbytes(self) -> int | None:
        """Bytes of the packed weights, where the native core has packed them."""
        native = self.lstm.executor().native
        return None if native is None else native.nbytes

    def whole(self, x: Tensor) -> Callable[[], Any]:
        return lambda: self.lstm(x)[0]

    def last_run(self) -> RunStats:
        """What the latest whole sequence did."""
        stats = self.lstm.last_run
        assert stats is not None, "nothing has run yet"
        return stats

    def stream(self, x: Tensor) -> Callable[[], Any]:
        frames = itertools.cycle([x[:, t].clone() for t in range(x.shape[1])])
        session = stream(self.lstm, batch_size=x.shape[0])
        return lambda: session.step(next(frames))


def adaptive(
    lstm: nn.LSTM, precision: Precision | Quantize = "fp32", name: str | None = None, inputs: Tensor | None = None
) -> Adaptive:
    """Our runtime with the weights of ``lstm`` in ``precision`` ("fp32", "bf16", "int8", or settings), nothing skipped.

    name: "adaptive fp32" and the like by default. inputs: [B, T, I], to take the scales of raw features from, where
    settings want them in int8.
    """
    settings = precision if isinstance(precision, Quantize) else Quantize(precision)
    fast = AdaptiveLSTM.from_lstm(lstm).eval()
    fast.batch_first = True  # as contenders are called
    if not settings.exact:
        compress(fast, inputs, quantize=settings)
    return Adaptive(name or f"adaptive {settings.precision}", settings.precision, fast)
