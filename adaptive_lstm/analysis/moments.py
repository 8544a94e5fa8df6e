"""Second moments of an operand z = [x ; h], and of the same operand d in the dense run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from ..types import DoubleArray


@dataclass(frozen=True, eq=False)
class Moments:
    """Averages over timesteps, C columns each; in the dense run z is d.

    ``mean`` [C], ``covariance`` [C, C]: of z, the operand of the pruned layer.
    ``dense_mean`` [C]: of d.
    ``cross`` [C, C]: cov(d_i, z_j).
    """

    mean: DoubleArray
    covariance: DoubleArray
    dense_mean: DoubleArray
    cross: DoubleArray

    @property
    def power(self) -> DoubleArray:
        """E[z_j^2] of every column [C]."""
        return np.asarray(self.covariance.diagonal() + self.mean**2)


def moments(pairs: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> Moments:
    """Of operands (d, z), both [rows, C], batch by batch; d may be z itself."""
    count, sums = 0, [np.zeros(())] * 4
    for d, z in pairs:
        d64 = d.double()
        z64 = d64 if z is d else z.double()
        second = z64.T @ z64
        new = (z64.sum(0), second, d64.sum(0), second if z is d else d64.T @ z64)
        sums = [total + part.numpy() for total, part in zip(sums, new, strict=True)]
        count += len(z)
    mean, second_moment, dense_mean, cross = (total / max(count, 1) for total in sums)
    return Moments(mean, second_moment - np.outer(mean, mean), dense_mean, cross - np.outer(dense_mean, mean))
