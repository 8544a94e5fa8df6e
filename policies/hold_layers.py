"""Holding layers: a layer and all above it are held while its input hardly changes (law: ``change``)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ..codec import brief, is_one_of, plain_numbers, short_repr
from ..errors import PolicyError, UnsupportedError
from ..types import StackShape
from .change import SEARCHED_LIMITS, Change, check_limit, unchanged
from .combined import Combined
from .counts import LONGEST, MOST_KEPT, check_count
from .kind import PolicyKind
from .native_form import NativeHold
from .protocol import HoldAction
from .sweep import FitData, Settings, Sweep

if TYPE_CHECKING:
    import torch

    from .family import Family


@short_repr
@dataclass(frozen=True, kw_only=True)
class HoldLayers:
    """Hold a layer and all above it at timesteps at which its input and hidden state hardly change.

    Args:
        x_share: one entry per layer above the first, or a number for all of them: hold while
            ``rms(x_t - x_used) < x_share * rms(x_used)``, x the input of that layer, x_used that of the last timestep
            at which it ran; None: this layer does not decide.
        h: and while ``rms(h - h_used) < h`` for that layer's hidden state; None: no condition.
        mode: "hold_state" keeps c and h of held layers; "queue_input" also queues their inputs and replays them before
            the layer next runs. Its state is then exact and only the outputs of held timesteps are stale; work is saved
            only for inputs that are never needed.
        cap: longest run of held timesteps, up to 2**30; with a queue, which sets room for as many inputs aside,
            up to 4,096.

    The first layer always runs (``SkipTimesteps`` is the policy for it). Both directions of a bidirectional stack
    decide for themselves; a queue is refused there.

    Raises:
        PolicyError: a limit is negative or NaN, or an impossible cap.
    """

    x_share: float | tuple[float | None, ...] = 0.0
    h: float | None = None
    mode: Literal["hold_state", "queue_input"] = "hold_state"
    cap: int = 8

    kind: ClassVar[PolicyKind]

    def __post_init__(self) -> None:
        if isinstance(self.x_share, tuple | list):
            object.__setattr__(self, "x_share", tuple(self.x_share))
        plain_numbers(self, "x_share", "h", "cap")
        for value in self.x_share if isinstance(self.x_share, tuple) else (self.x_share,):
            check_limit(value, "x_share")
        if self.x_share is None:
            raise PolicyError("x_share: got None, expected a number or one entry per layer above the first")
        check_limit(self.h, "h")
        if not is_one_of(self.mode, ("hold_state", "queue_input")):
            raise PolicyError(f"mode: got {brief(self.mode)}, expected 'hold_state' or 'queue_input'")
        queue = self.mode == "queue_input"
        check_count(self.cap, "cap of a queue" if queue else "cap", MOST_KEPT if queue else LONGEST)

    def check(self, shape: StackShape) -> None:
        """Raise ``PolicyError`` if the limits do not fit, ``UnsupportedError`` for a queue in two directions."""
        if shape.num_layers < 2:
            raise PolicyError("HoldLayers: the stack has one layer, which always runs; use SkipTimesteps")
        if isinstance(self.x_share, tuple) and len(self.x_share) != shape.num_layers - 1:
            raise PolicyError(
                f"x_share: got {len(self.x_share)} limits, expected {shape.num_layers - 1} (one per layer above the "
                "first); a policy belongs to the model that it was made for"
            )
        if self.mode == "queue_input" and sum(self.decides(shape, layer) for layer in range(shape.num_layers)) > 1:
            raise UnsupportedError(
                "HoldLayers(mode='queue_input') with several deciding layers: a queue would have to wait for a queue; "
                "give one layer a limit and the others None"
            )

    @property
    def active(self) -> bool:
        """Whether anything can be held."""
        return any(self.x_share if isinstance(self.x_share, tuple) else (self.x_share,)) and self.h != 0

    @property
    def action(self) -> HoldAction:
        """What a held layer does."""
        return self.mode

    def limits(self, layer: int) -> tuple[float | None, float | None]:
        """Limits of x and h of a layer that decides."""
        return (self.x_share[layer - 1] if isinstance(self.x_share, tuple) else self.x_share), self.h

    def decides(self, shape: StackShape, layer: int) -> bool:
        """Layers above the first that have a limit."""
        return layer > 0 and self.limits(layer)[0] is not None

    def should_hold(self, shape: StackShape, cell: int, change: Change) -> torch.Tensor:
        """Rows to hold: bool [B]."""
        x_limit, h_limit = self.limits(cell // shape.directions)
        return unchanged(change, x_limit, h_limit)


def _with_limit(family: Family, shape: StackShape, limit: float, only: int | None) -> HoldLayers:
    """All layers above the first decide by this limit, or ``only`` that one."""
    above = range(1, shape.num_layers)
    share = limit if only is None else tuple(limit if layer == only else None for layer in above)
    made = family.make(x_share=share)
    assert isinstance(made, HoldLayers)
    return made


def _deciding(family: Family, shape: StackShape) -> tuple[int | None, ...]:
    """Which layers may decide: all above the first together (None), or with a queue one at a time."""
    if shape.num_layers < 2:
        return ()
    return tuple(range(1, shape.num_layers)) if family.settings.get("mode") == "queue_input" else (None,)


def _check_family(family: Family, shape: StackShape) -> None:
    if shape.num_layers < 2:
        HoldLayers().check(shape)
    for only in _deciding(family, shape):
        Combined(_with_limit(family, shape, SEARCHED_LIMITS[0], only)).check(shape)


def _sweeps(family: Family, fit: FitData) -> Iterator[Sweep]:
    options = {only: None for shape in fit.shapes.values() for only in _deciding(family, shape)}
    for only in options:

        def make(limit: float, only: int | None = only) -> Settings:
            return {
                name: _with_limit(family, shape, limit, only)
                for name, shape in fit.shapes.items()
                if only in _deciding(family, shape)
            }

        yield Sweep("hold", "hold" if only is None else f"hold(queue, layer {only})", SEARCHED_LIMITS, make)


def _native(policy: HoldLayers, shape: StackShape) -> tuple[NativeHold | None, ...]:
    return tuple(
        NativeHold(*policy.limits(layer), policy.cap, policy.action) if policy.decides(shape, layer) else None
        for layer in range(shape.num_layers)
    )


HoldLayers.kind = PolicyKind(
    name="HoldLayers",
    decision="hold",
    searched=("x_share",),
    sweeps=_sweeps,
    check_family=_check_family,
    native=_native,
)
