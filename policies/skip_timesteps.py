"""Skipping timesteps: the whole stack is held while its input hardly changes (law: ``change``)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ..codec import brief, is_one_of, plain_numbers, short_repr
from ..errors import PolicyError
from ..types import StackShape
from .change import SEARCHED_LIMITS, Change, check_limit, unchanged
from .counts import LONGEST, check_count
from .kind import PolicyKind
from .native_form import NativeHold
from .protocol import HoldAction
from .sweep import FitData, Settings, Sweep

if TYPE_CHECKING:
    import torch

    from .family import Family


@short_repr
@dataclass(frozen=True, kw_only=True)
class SkipTimesteps:
    """Skip all matrix work of a timestep while the stack's input and first hidden state hardly change.

    Args:
        x_share: hold while ``rms(x_t - x_used) < x_share * rms(x_used)``, x_used the input of the last timestep that
            ran. A share, so it needs no scale; None sets no condition.
        h: and while ``rms(h - h_used) < h`` for the hidden state of the first layer (in -1..1); None: no condition.
        mode: "hold_gates" keeps the gate pre-activations of every layer, and c and h still advance; "hold_state"
            keeps c and h, the rule of Skip RNN.
        cap: longest run of skipped timesteps, up to 2**30.

    Both directions of a bidirectional stack decide for themselves. A limit of 0 never skips.

    Raises:
        PolicyError: a limit is negative or NaN, both are None, or an unknown mode or cap.
    """

    x_share: float | None = 0.0
    h: float | None = None
    mode: Literal["hold_gates", "hold_state"] = "hold_gates"
    cap: int = 8

    kind: ClassVar[PolicyKind]

    def __post_init__(self) -> None:
        plain_numbers(self, "x_share", "h", "cap")
        check_limit(self.x_share, "x_share")
        check_limit(self.h, "h")
        if self.x_share is None and self.h is None:
            raise PolicyError("x_share and h: got None for both, expected at least one limit")
        if not is_one_of(self.mode, ("hold_gates", "hold_state")):
            raise PolicyError(f"mode: got {brief(self.mode)}, expected 'hold_gates' or 'hold_state'")
        check_count(self.cap, "cap", LONGEST)

    def check(self, shape: StackShape) -> None:
        """Fits every stack."""

    @property
    def active(self) -> bool:
        """Whether anything can be skipped."""
        return self.x_share != 0 and self.h != 0

    @property
    def action(self) -> HoldAction:
        """What a held layer does."""
        return self.mode

    def decides(self, shape: StackShape, layer: int) -> bool:
        """The first layer, for all."""
        return layer == 0

    def should_hold(self, shape: StackShape, cell: int, change: Change) -> torch.Tensor:
        """Rows to hold: bool [B]."""
        return unchanged(change, self.x_share, self.h)


def _sweeps(family: Family, fit: FitData) -> Iterator[Sweep]:
    modes: tuple[HoldAction, ...] = ("hold_gates", "hold_state")
    for mode in modes:

        def make(limit: float, mode: HoldAction = mode) -> Settings:
            return {name: family.make(x_share=limit, mode=mode) for name in fit.shapes}

        yield Sweep("skip", f"skip({mode})", SEARCHED_LIMITS, make)


def _native(policy: SkipTimesteps, shape: StackShape) -> tuple[NativeHold | None, ...]:
    first = NativeHold(policy.x_share, policy.h, policy.cap, policy.action)
    return (first, *(None,) * (shape.num_layers - 1))


SkipTimesteps.kind = PolicyKind(
    name="SkipTimesteps", decision="hold", searched=("x_share", "mode"), sweeps=_sweeps, native=_native
)
