"""Never skip: the null policy, exact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..types import Site, StackShape
from .kind import PolicyKind
from .native_form import NativeColumns

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Dense:
    """Compute every column at every timestep; the result is that of ``nn.LSTM``."""

    kind: ClassVar[PolicyKind]
    active: ClassVar[bool] = False

    def check(self, shape: StackShape) -> None:
        """Fits every stack."""

    def thresholded(self, site: Site) -> bool:
        """Never."""
        return False

    def send(self, site: Site, value: torch.Tensor, sent: torch.Tensor) -> torch.Tensor:
        """All columns: bool [B, C]."""
        import torch

        return torch.ones_like(value, dtype=torch.bool)


def _native(policy: Dense, shape: StackShape) -> NativeColumns:
    return NativeColumns(((None, None),) * shape.num_cells)


Dense.kind = PolicyKind(name="Dense", decision="columns", native=_native)
