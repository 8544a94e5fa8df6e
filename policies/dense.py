"""Never skip: the null policy, exact."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..types import Site, StackShape


@dataclass(frozen=True)
class Dense:
    """Computes every column at every timestep; the result is that of ``nn.LSTM``."""

    def check(self, shape: StackShape) -> None:
        """Fits every stack."""

    def thresholded(self, site: Site) -> bool:
        """Never."""
        return False

    def send(self, site: Site, value: torch.Tensor, sent: torch.Tensor) -> torch.Tensor:
        """All columns."""
        return torch.ones_like(value, dtype=torch.bool)
