"""Holding layers: a layer and all above it rest while its input hardly changes (law: ``holding``)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..errors import PolicyError, UnsupportedError
from ..types import StackShape
from .change import check_limit, unmoved
from .counts import LONGEST, MOST_KEPT, check_count
from .protocol import Keeps


@dataclass(frozen=True)
class HoldLayers:
    """Leave out a layer and all above it at timesteps at which its input and hidden state hardly change.

    Args:
        x: one entry per layer above the first, or a number for all of them: hold while
            ``rms(x_t - x_used) < x * rms(x_used)``, x the input of that layer, x_used that of the last timestep at
            which it ran; None: this layer does not decide.
        h: and while ``rms(h - h_used) < h`` for that layer's hidden state; None: no condition.
        catch_up: a held layer queues its inputs and works them off before it next runs. Its state is then exact and
            only the outputs of held timesteps are stale; work is saved only for inputs that are never needed.
        cap: longest run of held timesteps, up to 2**30; with ``catch_up``, which sets room for as many inputs aside,
            up to 4,096.

    The first layer always runs (``SkipTimesteps`` is the policy for it). Held layers keep c and h. Both directions of a
    bidirectional stack decide for themselves; ``catch_up`` is refused there.

    Raises:
        PolicyError: a limit is negative or NaN, or an impossible cap.
    """

    x: float | tuple[float | None, ...] = 0.0
    h: float | None = None
    catch_up: bool = False
    cap: int = 8

    def __post_init__(self) -> None:
        if isinstance(self.x, tuple | list):
            object.__setattr__(self, "x", tuple(self.x))
        for value in self.x if isinstance(self.x, tuple) else (self.x,):
            check_limit(value, "x")
        if self.x is None:
            raise PolicyError("x: got None, expected a number or one entry per layer above the first")
        check_limit(self.h, "h")
        check_count(self.cap, "cap with catch_up" if self.catch_up else "cap", MOST_KEPT if self.catch_up else LONGEST)

    def check(self, shape: StackShape) -> None:
        """Raise ``PolicyError`` if the limits do not fit, ``UnsupportedError`` for catch_up in two directions."""
        if shape.num_layers < 2:
            raise PolicyError("HoldLayers: the stack has one layer, which always runs; use SkipTimesteps")
        if isinstance(self.x, tuple) and len(self.x) != shape.num_layers - 1:
            raise PolicyError(
                f"x: got {len(self.x)} limits, expected {shape.num_layers - 1} (one per layer above the first); "
                "a policy belongs to the model that it was made for"
            )
        if self.catch_up and sum(self.decides(shape, layer) for layer in range(shape.num_layers)) > 1:
            raise UnsupportedError(
                "HoldLayers(catch_up=True) with several deciding layers: a queue would have to wait for a queue; give "
                "one layer a limit and the others None"
            )

    @property
    def active(self) -> bool:
        """Whether anything can be held."""
        return any(self.x if isinstance(self.x, tuple) else (self.x,)) and self.h != 0

    @property
    def keeps(self) -> Keeps:
        """What a held layer does."""
        return "inputs" if self.catch_up else "state"

    def limits(self, layer: int) -> tuple[float | None, float | None]:
        """Limits of x and h of a layer that decides."""
        return (self.x[layer - 1] if isinstance(self.x, tuple) else self.x), self.h

    def decides(self, shape: StackShape, layer: int) -> bool:
        """Layers above the first that have a limit."""
        return layer > 0 and self.limits(layer)[0] is not None

    def still(
        self, shape: StackShape, cell: int, x: torch.Tensor, x_used: torch.Tensor, h: torch.Tensor, h_used: torch.Tensor
    ) -> torch.Tensor:
        """Rows to hold, bool [B]."""
        x_limit, h_limit = self.limits(cell // shape.directions)
        return unmoved(x, x_used, x_limit, h, h_used, h_limit)
