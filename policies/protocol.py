"""What the executor asks a policy. A class with these methods is a policy; it need not inherit from anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch

from ..types import StackShape


@dataclass(frozen=True)
class Site:
    """The operand that a question is about: ``x`` or ``h`` of a layer-and-direction pair of a stack."""

    shape: StackShape
    pair: int
    operand: Literal["x", "h"]

    @property
    def width(self) -> int:
        """Columns of the operand's matrix."""
        return self.shape.input_width(self.pair) if self.operand == "x" else self.shape.output_size

    @property
    def raw(self) -> bool:
        """Whether these are the model's own input features, whose scale is unknown."""
        return self.operand == "x" and self.pair < self.shape.directions

    def __str__(self) -> str:
        return f"{self.operand} of {self.shape.name(self.pair)}"


def sites(shape: StackShape) -> list[Site]:
    """All operands of a stack, x before h, pair by pair."""
    return [Site(shape, pair, operand) for pair in range(shape.pairs) for operand in ("x", "h")]


class Policy(Protocol):
    """Which columns of a layer's two matrices may be left out at a timestep.

    Policies hold settings only and never change; what a run remembers lives in the run's own state. A policy written
    in Python runs on the reference executor; those of this package also run natively.
    """

    def check(self, shape: StackShape) -> None:
        """Raise ``PolicyError`` if the policy does not fit the stack. Called before anything runs."""

    def thresholded(self, site: Site) -> bool:
        """Whether columns of this operand can be left out at all.

        If not, it is computed densely and ``send`` is never asked.
        """

    def send(self, site: Site, value: torch.Tensor, sent: torch.Tensor) -> torch.Tensor:
        """Which columns to compute: bool [B, C], from the operand's ``value`` and the values last ``sent`` [B, C].

        Not asked at the first step of a sequence, which sends every column that is not zero.
        """


class ColumnScale(Protocol):
    """Anything that can say how strongly the output feels each column (``adaptive_lstm.Sensitivity`` does)."""

    @property
    def shape(self) -> StackShape:
        """The stack that was measured."""

    def columns(self, site: Site, gamma: float) -> npt.NDArray[np.float64]:
        """Saliency s_j of every column [C], with s_j^2 = sum_r F_r^gamma W_rj^2."""
