"""What ``AdaptiveLSTM`` asks of anything that runs a stack."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

from ..policies import Parts
from ..types import Counts, StackShape

Returned = tuple[torch.Tensor, torch.Tensor, torch.Tensor, Callable[[], Counts] | None]


class Runner(Protocol):
    """What ``AdaptiveLSTM`` asks of an executor."""

    shape: StackShape
    policy: Parts
    finite_only: bool

    def run(
        self,
        x: torch.Tensor,
        sizes: torch.Tensor | None,
        batch_first: bool,
        initial: tuple[torch.Tensor, torch.Tensor] | None,
    ) -> Returned:
        """As ``Executor.run``."""

    def why_not_native(self) -> str | None:
        """Shown in ``last_run``."""
