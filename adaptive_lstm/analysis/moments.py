"""Second moments of an operand z = [x ; h], and of the same operand d in the dense run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..types import DoubleArray

BLOCK = 2048  # rows that are multiplied at once


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
    for d, z in _blocks(pairs):
        d64 = d.double()
        z64 = d64 if z is d else z.double()
        second = z64.T @ z64
        new = (z64.sum(0), second, d64.sum(0), second if z is d else d64.T @ z64)
        sums = [total + part.numpy() for total, part in zip(sums, new, strict=True)]
        count += len(z)
    mean, second_moment, dense_mean, cross = (total / max(count, 1) for total in sums)
    return Moments(mean, second_moment - np.outer(mean, mean), dense_mean, cross - np.outer(dense_mean, mean))


def _blocks(
    pairs: Iterable[tuple[torch.Tensor, torch.Tensor]],
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The same rows, many at once: a few at a time cost a pass over all [C, C] sums each time."""
    waiting: list[tuple[torch.Tensor, torch.Tensor]] = []
    for pair in pairs:
        waiting.append(pair)
        if sum(len(z) for _, z in waiting) >= BLOCK:
            yield _joined(waiting)
            waiting = []
    if waiting:
        yield _joined(waiting)


def _joined(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    if len(pairs) == 1:
        return pairs[0]
    z = torch.cat([z for _, z in pairs])
    return (z if all(d is z for d, z in pairs) else torch.cat([d for d, _ in pairs])), z
