"""An affine map as plain data: the form of translators and of linear heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..codec import brief
from ..errors import PolicyError
from ..types import FloatArray

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Affine:
    """``y = weight @ state + bias``: ``weight`` [out, in] and ``bias`` [out], float32, owned by the map.

    Raises:
        PolicyError: shapes that do not fit, or values that are not finite.
    """

    weight: FloatArray
    bias: FloatArray

    _NAME: ClassVar[str]
    _SHAPES: ClassVar[str]

    def __post_init__(self) -> None:
        try:
            with np.errstate(over="ignore"):
                weight, bias = (np.ascontiguousarray(a, np.float32) for a in (self.weight, self.bias))
        except (TypeError, ValueError, RuntimeError):
            got = f"weight {brief(self.weight)} and bias {brief(self.bias)}"
            raise PolicyError(f"{self._NAME}: got {got}, expected {self._SHAPES}") from None
        if weight.ndim != 2 or bias.shape != weight.shape[:1]:
            raise PolicyError(f"{self._NAME}: got weight {weight.shape} and bias {bias.shape}, expected {self._SHAPES}")
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise PolicyError(f"{self._NAME}: its weights hold NaN or infinity, or numbers that float32 does not")
        object.__setattr__(self, "weight", weight)
        object.__setattr__(self, "bias", bias)

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """[n, out] from states [n, in]."""
        import torch

        weight = torch.as_tensor(self.weight, dtype=states.dtype, device=states.device)
        return states @ weight.T + torch.as_tensor(self.bias, dtype=states.dtype, device=states.device)
