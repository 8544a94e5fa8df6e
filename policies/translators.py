"""Translators: affine maps from the states known so far to the state in which the dense model would end.

One map per time bucket or per depth, fitted in closed form by ridge regression without labels
(``adaptive_lstm.fit_translators``). A head is trained for final states only and misreads early ones; it reads a
translated state almost as well as the final one. Depth: the "tuned lens" of Belrose et al. (arXiv 2303.08112), there
trained by gradient; exiting early by such a map: Din et al., "Jump to Conclusions" (arXiv 2303.09435).
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from ..codec import short_repr
from ..errors import PolicyError
from .affine import Affine
from .counts import LONGEST


@short_repr
@dataclass(frozen=True, eq=False)
class Map(Affine):
    """``weight`` [out, in] and ``bias`` [out], float32, of an affine map.

    Raises:
        PolicyError: shapes that do not fit, or values that are not finite.
    """

    _NAME: ClassVar[str] = "translator"
    _SHAPES: ClassVar[str] = "[out, in], [out]"

    @staticmethod
    def ridge(inputs: npt.NDArray[np.float64], gram: npt.NDArray[np.float64], strength: float) -> Map:
        """The ridge solution from sums over samples.

        Args:
            inputs: [in + 1, in + 1], sum of z z^T with z = [input ; 1].
            gram: [in + 1, out], sum of z y^T.
            strength: ridge as a share of the mean diagonal of ``inputs``. It applies to the bias too, hardly moving it.
        """
        ridge = strength * np.trace(inputs) / len(inputs)
        solved = np.linalg.solve(inputs + max(ridge, 1e-12) * np.eye(len(inputs)), gram)
        return Map(solved[:-1].T.astype(np.float32), solved[-1].astype(np.float32))


@short_repr
@dataclass(frozen=True, eq=False)
class TimeTranslators:
    """Maps from h of all layers [L * P] to the final h of the top layer [P], one per time bucket.

    ``starts``: first timestep of each bucket, ascending from 0; the last bucket has no end.

    Raises:
        PolicyError: buckets that do not ascend from 0, or not one map for each.
    """

    starts: tuple[int, ...]
    maps: tuple[Map, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "starts", tuple(int(s) for s in self.starts))
        object.__setattr__(self, "maps", tuple(self.maps))
        check_buckets(self.starts)
        if len(self.maps) != len(self.starts):
            raise PolicyError(f"translators: got {len(self.maps)} maps for {len(self.starts)} time buckets")


@short_repr
@dataclass(frozen=True, eq=False)
class DepthTranslators:
    """Maps from the outputs of layers 0..k [(k + 1) * D * P] to the top layer's [D * P], for k = 0..L-2.

    ``steps[k]``: fitted on all timesteps, for the outputs; ``finals[k]``: fitted on final states, for ``h_n``.

    Raises:
        PolicyError: not two maps for each layer.
    """

    steps: tuple[Map, ...]
    finals: tuple[Map, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(self.steps))
        object.__setattr__(self, "finals", tuple(self.finals))
        if len(self.steps) != len(self.finals):
            raise PolicyError(
                f"translators: got {len(self.steps)} maps of steps and {len(self.finals)} of final states"
            )


def check_buckets(starts: tuple[int, ...]) -> None:
    """Raise ``PolicyError`` unless the first timesteps of time buckets ascend from 0."""
    if not starts or starts[0] != 0 or any(b <= a for a, b in pairwise(starts)) or starts[-1] > LONGEST:
        raise PolicyError(f"time buckets: got first timesteps {starts}, expected ascending numbers from 0 to 2**30")


def bucket(starts: tuple[int, ...], time: int) -> int:
    """The index of the bucket that holds a timestep."""
    return bisect_right(starts, time) - 1
