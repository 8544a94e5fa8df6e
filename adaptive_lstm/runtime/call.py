"""A finished call, as those see it who watch an LSTM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..codec import short_repr
from ..types import RunStats


@short_repr
@dataclass(frozen=True)
class Call:
    """A finished call of an ``AdaptiveLSTM``, as an observer sees it (``AdaptiveLSTM.watched_by``).

    ``input``, ``hx``: its arguments.
    ``rows``: B, the batch rows of the input.
    ``seconds``: how long it took.
    ``stats``: what it did; None if a runner stood in for the LSTM's own (``AdaptiveLSTM.run_on``).
    """

    input: Any
    hx: Any
    rows: int
    seconds: float
    stats: RunStats | None
