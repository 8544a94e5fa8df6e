"""This project's runtime as a contender, beside the peers."""

import itertools
from dataclasses import dataclass

from torch import Tensor, nn

from ..compression.compress import compress
from ..runtime.lstm import AdaptiveLSTM
from ..runtime.stream import stream
from ..types import RunStats
from ..weights.precision import Precision, Quantize
from .contender import Call


@dataclass(frozen=True)
class Adaptive:
    """An ``AdaptiveLSTM`` as a contender.

    Attributes:
        name: in tables.
        precision: of the weights.
        lstm: batch-first, with its own weights and policy.
    """

    name: str
    precision: str
    lstm: AdaptiveLSTM

    @property
    def nbytes(self) -> int | None:
        """Bytes of the packed weights; None without the native core."""
        native = self.lstm.executor().native
        return None if native is None else native.nbytes

    def whole(self, x: Tensor) -> Call:
        return lambda: self.lstm(x)[0]

    def last_run(self) -> RunStats:
        """Statistics of the latest whole sequence."""
        stats = self.lstm.last_run
        assert stats is not None, "nothing has run yet"
        return stats

    def steps(self, x: Tensor) -> Call:
        frames, session = _frames(x), stream(self.lstm, batch_size=x.shape[0])

        def run() -> Tensor | None:
            y = None
            session.reset()
            for frame in frames:
                y = session.step(frame)
            return y

        return run

    def stream(self, x: Tensor) -> Call:
        frames, session = itertools.cycle(_frames(x)), stream(self.lstm, batch_size=x.shape[0])
        return lambda: session.step(next(frames))

    def stream_ahead(self, x: Tensor) -> tuple[Call, Call]:
        """As ``stream``, and a call for the idle time before it (``Stream.ahead``)."""
        frames, session = itertools.cycle(_frames(x)), stream(self.lstm, batch_size=x.shape[0])
        return lambda: session.step(next(frames)), session.ahead


def _frames(x: Tensor) -> list[Tensor]:
    return [x[:, t].clone() for t in range(x.shape[1])]


def build_adaptive(
    lstm: nn.LSTM, precision: Precision | Quantize = "fp32", name: str | None = None, inputs: Tensor | None = None
) -> Adaptive:
    """This project's runtime with the weights of ``lstm`` and nothing skipped.

    Args:
        lstm: any; it is copied.
        precision: "fp32", "bf16", "int8", or settings.
        name: "adaptive fp32" and the like by default.
        inputs: [B, T, I], to measure the static range of raw features; needed by ``Quantize(raw="int8")`` only.
    """
    settings = precision if isinstance(precision, Quantize) else Quantize(precision)
    fast = AdaptiveLSTM.from_lstm(lstm).eval()
    fast.batch_first = True  # as contenders are called
    if not settings.exact:
        compress(fast, inputs, quantize=settings)
    return Adaptive(name or f"adaptive {settings.precision}", settings.precision, fast)
