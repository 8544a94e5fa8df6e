"""An adapted model on sequences, one by one as a service would run it: its losses and its work."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

import adaptive_lstm as al
from adaptive_lstm.losses import Loss
from adaptive_lstm.runtime.call import Call

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Served:
    """n sequences through a model.

    ``losses`` [n] against the original model; multiply-accumulates of all LSTMs: ``done`` and ``possible`` [n],
    including those of the policy itself; of the recurrent matrices alone: ``recurrent`` and ``recurrent_possible`` [n].
    ``fallback``: why a part did not run natively, or None.
    """

    losses: FloatArray
    done: FloatArray
    possible: FloatArray
    recurrent: FloatArray
    recurrent_possible: FloatArray
    fallback: str | None

    @property
    def skipped(self) -> float:
        """Share of the multiply-accumulates that were left out."""
        return 1 - float(self.done.sum() / self.possible.sum())

    @property
    def skipped_recurrent(self) -> float:
        """The same for the recurrent matrices alone."""
        return 1 - float(self.recurrent.sum() / self.recurrent_possible.sum())

    @property
    def loss(self) -> float:
        """Mean over the sequences."""
        return float(self.losses.mean())


@contextmanager
def _counting(model: nn.Module) -> Iterator[list[tuple[int, al.RunStats]]]:
    """Rows of gates and statistics of every call of an LSTM inside the block."""
    counted: list[tuple[int, al.RunStats]] = []

    def count(gates: int, call: Call) -> None:
        assert call.stats is not None
        counted.append((gates, call.stats))

    with ExitStack() as watched:
        for lstm in model.modules():
            if isinstance(lstm, al.AdaptiveLSTM):
                watched.enter_context(lstm.watched_by(partial(count, 4 * lstm.hidden_size)))
        yield counted


def serve(model: nn.Module, inputs: Sequence[Tensor], dense: Sequence[Any], loss: Loss) -> Served:
    """Run an adapted model on every input; ``dense``: the original's outputs for them."""
    losses: list[float] = []
    work: list[tuple[int, ...]] = []
    fallbacks: set[str] = set()
    with _counting(model) as counted:
        for x, expected in zip(inputs, dense, strict=True):
            counted.clear()
            losses.append(loss.of(model(x), expected, None))
            work.append(
                (
                    sum(stats.macs for _, stats in counted),
                    sum(stats.macs_possible for _, stats in counted),
                    sum(gates * c.h_sent for gates, stats in counted for c in stats.columns),
                    sum(gates * c.h_possible for gates, stats in counted for c in stats.columns),
                )
            )
            fallbacks |= {str(stats.route) for _, stats in counted if stats.route.by != "native"}
    done, possible, recurrent, recurrent_possible = np.array(work, dtype=np.float64).T
    why = ", ".join(sorted(fallbacks)) or None
    return Served(np.array(losses), done, possible, recurrent, recurrent_possible, why)
