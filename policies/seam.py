"""The seams of a sequence that runs in chunks: how far a warmed-up state is from the true one.

A chunk starts some timesteps early from a state that is not its own, and forgets it (``split_time``). Where its own
part begins, the chunk before has arrived at the state that it should have: the true one, given its own start.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .change import rms_change

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Seam:
    """The states of one cell at n seams.

    ``h`` [n, P], ``c`` [n, H]: after the warm-up.
    ``true_h``, ``true_c``: those that the chunks before have reached.
    """

    h: torch.Tensor
    c: torch.Tensor
    true_h: torch.Tensor
    true_c: torch.Tensor

    @functools.cached_property
    def residual(self) -> torch.Tensor:
        """Root mean square difference of h or of tanh(c), whichever is larger: float64 [n].

        Of tanh(c), because that is what the outputs see of it: cells that count grow without bound.
        """
        c, true_c = self.c.double().tanh(), self.true_c.double().tanh()
        return rms_change(self.h, self.true_h).maximum(rms_change(c, true_c))
