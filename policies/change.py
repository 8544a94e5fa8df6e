"""The law of holding: hold a layer while its input and its hidden state hardly change.

``SkipTimesteps`` holds the whole stack (the first layer decides), ``HoldLayers`` a layer and all above it. Both compare
with the last timestep at which the layer ran, never with the previous one, so that slow drift is noticed (the rule of
delta networks, Neil et al., ICML 2017, applied to whole vectors). Skipping state updates: Campos et al., "Skip RNN"
(ICLR 2018), there with a trained gate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..codec import brief, is_number
from ..errors import PolicyError

if TYPE_CHECKING:
    import torch

SEARCHED_LIMITS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
"""Shares of ``rms(x_used)`` that a search tries, from careful to bold."""


MIN_CHANGE = 2.0**-90
"""A root mean square change below is none: floats of that size are zeros to some executors. The native core has the
same number."""


def check_limit(value: float | None, where: str) -> None:
    """Raise ``PolicyError`` unless it is a number >= 0 or None; ``where`` names it."""
    if value is not None and not (is_number(value) and value >= 0):
        raise PolicyError(f"{where}: got {brief(value)}, expected a number >= 0 (0 never holds) or None (no condition)")


@dataclass(frozen=True)
class Change:
    """How far a layer's operands have changed since it last ran, for n batch rows.

    ``x`` [n, width], ``h`` [n, P]: its input and hidden state now.
    ``x_used``, ``h_used``: those of the last timestep at which it ran.
    """

    x: torch.Tensor
    x_used: torch.Tensor
    h: torch.Tensor
    h_used: torch.Tensor


def rms_change(value: torch.Tensor, used: torch.Tensor) -> torch.Tensor:
    """Root mean square of the change [n], summed in float64 so that every executor decides alike."""
    return (value.double() - used.double()).pow(2).mean(1).sqrt()


def unchanged(change: Change, x_limit: float | None, h_limit: float | None) -> torch.Tensor:
    """Which rows have changed too little to run: bool [n].

    The input must have changed by less than ``x_limit`` times its own size, and h by less than ``h_limit``. An exact
    repeat (a change below ``MIN_CHANGE``) is none under any limit above 0, silence (all zeros) included.
    """
    import torch

    x, used = change.x, change.x_used
    holds = torch.ones(len(x), dtype=torch.bool, device=x.device)
    if x_limit is not None:
        changed = rms_change(x, used)
        holds &= ((changed < MIN_CHANGE) & (x_limit > 0)) | (
            changed < x_limit * rms_change(used, torch.zeros_like(used))
        )
    if h_limit is not None:
        holds &= rms_change(change.h, change.h_used) < h_limit
    return holds
