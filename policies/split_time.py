"""Splitting in time: a long sequence as chunks that run side by side, as rows of one batch.

LSTMs forget. A chunk that starts ``warm_up`` timesteps early from a state that is not its own comes close to the one
that it would have had. Layer by layer, so that the layer above is given nearly exact inputs. Weights are then read
once for all chunks of a timestep, and chunks need not wait for each other. The truncated past is that of truncated
backpropagation (Williams & Peng, Neural Computation 1990); that stable recurrent models lose little by it: Miller &
Hardt, "Stable Recurrent Models" (ICLR 2019).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..codec import brief, is_number, plain_numbers, short_repr
from ..errors import PolicyError
from ..types import Counts, FloatArray, StackShape
from .counts import LONGEST, check_count
from .kind import PolicyKind
from .seam import Seam
from .sweep import FitData, Settings, Sweep

if TYPE_CHECKING:
    import torch

    from .family import Family

SEARCHED_CHUNKS = (512, 256, 128, 64)
SEARCHED_WARM_UPS = (128, 64, 32, 16, 8)
"""Timesteps that a search tries, from careful to bold."""


@short_repr
@dataclass(frozen=True, eq=False)
class StartStates:
    """Where chunks begin their warm-up.

    ``h``: per cell [P]; ``c``: per cell [H].

    Raises:
        PolicyError: not as many of each, not vectors, or values that are not finite.
    """

    h: tuple[FloatArray, ...]
    c: tuple[FloatArray, ...]

    def __post_init__(self) -> None:
        for name in ("h", "c"):
            each = tuple(np.ascontiguousarray(v, dtype=np.float32) for v in getattr(self, name))
            if any(v.ndim != 1 or not np.isfinite(v).all() for v in each):
                raise PolicyError(f"start, {name}: got {brief(each)}, expected a vector of finite numbers per cell")
            object.__setattr__(self, name, each)
        if len(self.h) != len(self.c):
            raise PolicyError(f"start: got {len(self.h)} vectors h and {len(self.c)} vectors c, expected as many")


@short_repr
@dataclass(frozen=True, kw_only=True, eq=False)
class SplitTime:
    """Cut long sequences into chunks that run as rows of one batch, each warmed up from a fresh state.

    Only the first chunk of a sequence starts from its given state. Every other one runs ``warm_up`` timesteps more than
    its own, whose outputs are not used. At the seam its state is compared with the one that the chunk before has
    reached; beyond the tolerance its own timesteps are run again from there. A sequence of at most ``chunk`` timesteps
    beyond the warm-up runs as it is, exactly. It pays where many rows cost less than as many timesteps of one: for long
    sequences of models that forget soon. For streams it is refused.

    Args:
        chunk: the most timesteps that a chunk may have of its own, up to 2**30, which never splits. The chunks of a
            sequence differ by one timestep at the most.
        warm_up: timesteps that a chunk starts early, up to 2**30.
        tolerance: the largest ``residual`` (``Seam``) at which the outputs of a chunk are used, a number or one per
            cell; infinity: never run again, 0: always, which makes the results exact and costs more than it saves.
            ``calibrate`` sets what it saw.
        start: states from which chunks warm up; None: zeros.

    Raises:
        PolicyError: impossible settings.
    """

    chunk: int = LONGEST
    warm_up: int = 32
    tolerance: float | tuple[float, ...] = math.inf
    start: StartStates | None = None

    kind: ClassVar[PolicyKind]

    def __post_init__(self) -> None:
        plain_numbers(self, "chunk", "warm_up")
        check_count(self.chunk, "chunk", LONGEST)
        check_count(self.warm_up, "warm_up", LONGEST)
        given = self.tolerance
        each = tuple(given) if isinstance(given, tuple | list) else (given,)
        if not all(is_number(t) and t >= 0 for t in each):
            raise PolicyError(f"tolerance: got {brief(given)}, expected a number >= 0 or one per cell")
        floats = tuple(map(float, each))
        object.__setattr__(self, "tolerance", floats if isinstance(given, tuple | list) else floats[0])
        if not isinstance(self.start, StartStates | None):
            raise PolicyError(f"start: got {type(self.start).__name__}, expected StartStates or None (zeros)")

    def check(self, shape: StackShape) -> None:
        """Raise ``PolicyError`` if tolerances or start states are of another stack."""
        belongs = "a policy belongs to the model that it was made for"
        if isinstance(self.tolerance, tuple) and len(self.tolerance) != shape.num_cells:
            raise PolicyError(
                f"tolerance: got {len(self.tolerance)} values, expected {shape.num_cells}, one per layer and "
                f"direction; {belongs}"
            )
        if self.start is None:
            return
        expected = [(shape.output_size, shape.hidden_size)] * shape.num_cells
        got = [(len(h), len(c)) for h, c in zip(self.start.h, self.start.c, strict=True)]
        if got != expected:
            raise PolicyError(f"start: got vectors of {brief(got)} values, expected {brief(expected)}; {belongs}")

    @property
    def active(self) -> bool:
        """Whether anything can be split."""
        return self.chunk < LONGEST

    def begin(self, cell: int) -> tuple[FloatArray, FloatArray] | None:
        """h [P] and c [H] from which the chunks of a cell warm up; None: zeros."""
        return None if self.start is None else (self.start.h[cell], self.start.c[cell])

    def strain(self, cell: int, seam: Seam) -> torch.Tensor:
        """The residual as a multiple of the tolerance [n]; 0 where there is none."""
        import torch

        residual = seam.residual
        limit = self.tolerance[cell] if isinstance(self.tolerance, tuple) else self.tolerance
        if limit == 0:
            return torch.full_like(residual, math.inf)
        return residual / limit


def _macs(policy: SplitTime, shape: StackShape, counts: Counts) -> int:
    """Of the timesteps that ran in addition: warm-ups, and what was run again."""
    live = counts.live_units or (shape.hidden_size,) * shape.num_cells
    total = 0
    for extra, units, cell in zip(counts.seams.extra, live, counts.columns, strict=False):
        columns = (cell.x_sent + cell.h_sent) // max(cell.ran, 1)  # of every timestep, as nothing else is skipped
        total += extra * units * (4 * columns + shape.proj_size)
    return total


def _sweeps(family: Family, fit: FitData) -> Iterator[Sweep]:
    """Ever shorter warm-ups, for chunks of several lengths; the tolerance is what was measured after such a warm-up."""
    longest = max((seen.longest for seen in fit.forgetting.values()), default=0)
    for mean in (False, True):
        for chunk in SEARCHED_CHUNKS:
            levels = tuple(float(w) for w in SEARCHED_WARM_UPS if w + chunk < longest)
            if len(levels) < 2:
                continue

            def make(level: float, chunk: int = chunk, mean: bool = mean) -> Settings:
                warm_up = round(level)
                return {
                    name: family.make(
                        chunk=chunk,
                        warm_up=warm_up,
                        tolerance=seen.tolerance(warm_up, mean=mean),
                        start=seen.mean if mean else None,
                    )
                    for name, seen in fit.forgetting.items()
                }

            start = ", from the mean state" if mean else ""
            yield Sweep("split", f"split(chunks of {chunk}{start})", levels, make)


SplitTime.kind = PolicyKind(
    name="SplitTime",
    decision="split",
    searched=("chunk", "warm_up", "tolerance", "start"),
    sweeps=_sweeps,
    needs=frozenset({"forgetting"}),
    macs=_macs,
)
