"""Skipping timesteps: the whole stack is held while its input hardly changes (law: ``holding``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from ..errors import PolicyError
from ..types import StackShape
from .change import check_limit, unmoved
from .counts import LONGEST, check_count
from .protocol import Keeps


@dataclass(frozen=True)
class SkipTimesteps:
    """Leave out all matrix work of a timestep while the stack's input and first hidden state hardly change.

    Args:
        x: hold while ``rms(x_t - x_used) < x * rms(x_used)``, x_used the input of the last timestep that ran. A share,
            so it needs no scale; None sets no condition.
        h: and while ``rms(h - h_used) < h`` for the hidden state of the first layer (in -1..1); None: no condition.
        mode: "hold_gates" keeps the gate pre-activations of every layer, and c and h still advance; "copy_state"
            keeps c and h, the rule of Skip RNN.
        cap: longest run of skipped timesteps, up to 2**30.

    Both directions of a bidirectional stack decide for themselves. A limit of 0 never skips.

    Raises:
        PolicyError: a limit is negative or NaN, both are None, or an unknown mode or cap.
    """

    x: float | None = 0.0
    h: float | None = None
    mode: Literal["hold_gates", "copy_state"] = "hold_gates"
    cap: int = 8

    def __post_init__(self) -> None:
        check_limit(self.x, "x")
        check_limit(self.h, "h")
        if self.x is None and self.h is None:
            raise PolicyError("x and h: got None for both, expected at least one limit")
        if self.mode not in ("hold_gates", "copy_state"):
            raise PolicyError(f"mode: got {self.mode!r}, expected 'hold_gates' or 'copy_state'")
        check_count(self.cap, "cap", LONGEST)

    def check(self, shape: StackShape) -> None:
        """Fits every stack."""

    @property
    def active(self) -> bool:
        """Whether anything can be skipped."""
        return self.x != 0 and self.h != 0

    @property
    def keeps(self) -> Keeps:
        """What a held layer does."""
        return "gates" if self.mode == "hold_gates" else "state"

    def decides(self, shape: StackShape, layer: int) -> bool:
        """The first layer, for all."""
        return layer == 0

    def limits(self, layer: int) -> tuple[float | None, float | None]:
        """Limits of x and h of a layer that decides."""
        return self.x, self.h

    def still(
        self, shape: StackShape, cell: int, x: torch.Tensor, x_used: torch.Tensor, h: torch.Tensor, h_used: torch.Tensor
    ) -> torch.Tensor:
        """Rows to hold, bool [B]."""
        return unmoved(x, x_used, self.x, h, h_used, self.h)
