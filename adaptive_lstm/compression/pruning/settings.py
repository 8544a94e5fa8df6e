"""``Prune``: the pattern, the share, the score and the compensation of static pruning."""

from __future__ import annotations

import math
import re
from dataclasses import KW_ONLY, dataclass
from typing import Literal

from ...codec import brief, is_number, is_one_of, plain_numbers
from ...errors import InputError

Saliency = Literal["auto", "magnitude", "taylor", "activation", "second-order", "obs"]
Compensate = Literal["auto", "none", "mean", "refit"]
Allocation = Literal["uniform", "global"]

PATTERNS = ("unstructured", "N:M", "block", "column", "unit", "layer")
SALIENCIES: tuple[Saliency, ...] = ("auto", "magnitude", "taylor", "activation", "second-order", "obs")
COMPENSATIONS: tuple[Compensate, ...] = ("auto", "none", "mean", "refit")
ALLOCATIONS: tuple[Allocation, ...] = ("uniform", "global")

STRIP = 16
"""Units whose rows of one gate the kernels take together."""

KERNEL_BLOCK = (4 * STRIP, 1)
"""Rows and columns of a block of the kernels: four strips of one gate and one column."""


@dataclass(frozen=True)
class Prune:
    """Static pruning of the gate weights, without a gradient step.

    Args:
        pattern: ``"unstructured"``; ``"N:M"``, for example ``"2:4"``: in every row, N of M neighbouring weights stay;
            ``"block"``; ``"column"`` of an input or recurrent matrix; ``"unit"``: hidden units with their rows and the
            columns that read them; ``"layer"``: whole layers, each replaced by a feed-forward map.
        sparsity: share to remove of the prunable weights, the hidden units or the layers, as near as whole blocks,
            columns, units or layers allow. None: 1 - N/M of an N:M pattern, else 0.5; ``share`` is the number.
        block: rows and columns of a block. Default: the kernels' own, 64 rows of one gate in strips of 16 (the last
            strips of a gate may share a block with the first of the next) and one column. Other sizes are plain rows
            and columns of every gate's matrix.
        saliency: the score of a weight (``masks.scores``). ``"obs"`` removes weights in rounds by their exact
            second-order loss and refits the rest after each (unstructured and N:M). ``"auto"``: the best on held-out
            data.
        gamma: damping exponent of the output sensitivity in second-order and OBS scores, 0 to 1; None: the best on
            held-out data.
        compensate: how the remaining weights compensate: ``"none"``; ``"mean"``: the mean of what was removed is folded
            into the bias; ``"refit"``: least squares against the dense layer; ``"auto"``: the best on held-out data.
        ridge: of a refit, toward the original weights, as a multiple of E[z_j^2]; None: the best on held-out data.
        allocation: ``"uniform"``: the same sparsity in every layer, direction and matrix; ``"global"``: one price for
            all of them. N:M fixes the allocation.
        raw: whether the first layer's input columns may be pruned too. Raw features are few and unscaled, and pruning
            them can cost more than all the rest.

    Raises:
        InputError: a value that is unknown or out of range, or a combination that cannot work.
    """

    pattern: str = "unstructured"
    sparsity: float | None = None
    _: KW_ONLY
    block: tuple[int, int] = KERNEL_BLOCK
    saliency: Saliency = "auto"
    gamma: float | None = None
    compensate: Compensate = "auto"
    ridge: float | None = None
    allocation: Allocation = "global"
    raw: bool = False

    def __post_init__(self) -> None:
        self._check_names()
        if self.sparsity is None:
            n, m = self.n_of_m or (1, 2)
            object.__setattr__(self, "sparsity", 1 - n / m)
        self._check_numbers()
        self._check_combination()

    @property
    def share(self) -> float:
        """``sparsity`` as a number: None is resolved when the settings are made."""
        assert self.sparsity is not None
        return self.sparsity

    @property
    def n_of_m(self) -> tuple[int, int] | None:
        """N and M of an N:M pattern, or None."""
        found = re.fullmatch(r"([0-9]{1,6}):([0-9]{1,6})", str(self.pattern))
        return (int(found[1]), int(found[2])) if found else None

    def _check_names(self) -> None:
        if not is_one_of(self.pattern, PATTERNS) and self.n_of_m is None:
            raise InputError(f"pattern: got {brief(self.pattern)}, expected one of {', '.join(PATTERNS)}")
        if self.pattern == "N:M":
            raise InputError("pattern: got 'N:M', expected numbers, for example '2:4' to keep two of every four")
        if self.n_of_m is not None and not 0 < self.n_of_m[0] < self.n_of_m[1]:
            raise InputError(f"pattern: got {brief(self.pattern)}, expected N:M with 0 < N < M, for example '2:4'")
        for name, known in (("saliency", SALIENCIES), ("compensate", COMPENSATIONS), ("allocation", ALLOCATIONS)):
            value = getattr(self, name)
            if not is_one_of(value, known):
                raise InputError(f"{name}: got {brief(value)}, expected one of {', '.join(known)}")
        if not isinstance(self.raw, bool):
            raise InputError(f"raw: got {brief(self.raw)}, expected True or False")

    def _check_numbers(self) -> None:
        plain_numbers(self, "sparsity", "block", "gamma", "ridge")
        if not (_number(self.sparsity) and 0 <= self.share < 1):
            raise InputError(f"sparsity: got {brief(self.sparsity)}, expected a number from 0 to below 1")
        if self.gamma is not None and not (_number(self.gamma) and 0 <= self.gamma <= 1):
            raise InputError(f"gamma: got {brief(self.gamma)}, expected a number from 0 to 1, or None: chosen on data")
        if self.ridge is not None and not (_number(self.ridge) and self.ridge >= 0):
            raise InputError(f"ridge: got {brief(self.ridge)}, expected a number from 0, or None: chosen on data")
        sizes: object = self.block
        if not (isinstance(sizes, tuple) and len(sizes) == 2 and all(type(n) is int and n > 0 for n in sizes)):
            raise InputError(f"block: got {brief(self.block)}, expected two positive whole numbers, (rows, columns)")

    def _check_combination(self) -> None:
        if self.n_of_m is not None:
            n, m = self.n_of_m
            if abs(self.share - (1 - n / m)) > 1e-6:
                raise InputError(
                    f"sparsity: got {self.sparsity} with pattern {self.pattern!r}, which removes {1 - n / m:.6g}; "
                    "leave sparsity out, or take other numbers for N and M"
                )
        if self.saliency == "obs" and self.pattern != "unstructured" and self.n_of_m is None:
            raise InputError(
                f"saliency: got 'obs' with pattern {self.pattern!r}, expected 'unstructured' or N:M: the elimination "
                "takes single weights; for whole structures use 'second-order'"
            )
        if self.saliency == "obs" and self.compensate in ("none", "mean"):
            raise InputError(
                f"compensate: got {self.compensate!r} with saliency 'obs', expected 'refit' or 'auto': its scores hold "
                "only for weights that are refitted"
            )
        if self.pattern == "layer" and self.compensate in ("none", "mean"):
            raise InputError(
                f"compensate: got {self.compensate!r} with pattern 'layer', expected 'refit' or 'auto': a layer is "
                "replaced by a fitted map"
            )


def _number(value: object) -> bool:
    return is_number(value) and math.isfinite(value)
