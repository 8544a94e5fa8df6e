"""Streams that are compared with the original model while they are served."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Frames = npt.NDArray[np.float32]


class AuditState(Protocol):
    """What is told of an audit; ``adaptive_lstm.Audit`` is one."""

    @property
    def state(self) -> Any:
        """Holding, or revoked."""

    @property
    def evidence(self) -> float:
        """Against the promise."""

    @property
    def audited(self) -> int:
        """Sequences that were compared."""

    @property
    def mean_loss(self) -> float:
        """Of those."""


@dataclass(frozen=True)
class Audited:
    """An audit of what a server computes. It only reports: after a revocation the server serves on with its policy.

    ``audit``: whose state is shown, as ``adaptive_lstm.audit`` returns it.
    ``check``: is given frames [n, I] of one sequence from its start and their outputs [n, P], in a thread of its own,
        and takes them into account: ``lambda x, y: audit.check(torch.tensor(x), torch.tensor(y))``.
    ``share``: of the sequences, in 0..1, drawn when they start.
    ``frames``: after which a sequence is compared even if it goes on.
    """

    audit: AuditState
    check: Callable[[Frames, Frames], object]
    share: float = 0.01
    frames: int = 1000


class Segment:
    """The beginning of a sequence, kept to be compared."""

    def __init__(self, longest: int):
        self._x: list[Frames] = []
        self._y: list[Frames] = []
        self._left = longest

    def add(self, x: Frames, y: Frames) -> bool:
        """Keep frames and their outputs; returns whether that is enough."""
        self._x.append(x[: self._left])
        self._y.append(y[: self._left])
        self._left -= len(self._x[-1])
        return self._left <= 0

    def all(self) -> tuple[Frames, Frames]:
        """Everything that was kept."""
        return np.concatenate(self._x), np.concatenate(self._y)

    def __bool__(self) -> bool:
        return bool(self._x)
