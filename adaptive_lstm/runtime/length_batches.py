"""Sequences of different lengths shared out to batches, by their lengths alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby


def in_batches(lengths: Sequence[int], most: int, *, mixes: bool) -> Iterator[list[int]]:
    """Numbers of sequences batch by batch, the longest first.

    Args:
        lengths: of every sequence.
        most: timesteps of a batch whose sequences are padded to the longest; a sequence that is longer is one alone.
        mixes: whether different lengths share a batch.
    """
    falling = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    groups = [falling] if mixes else [list(same) for _, same in groupby(falling, key=lambda i: lengths[i])]
    for group in groups:
        first = 0
        while first < len(group):
            rows = max(1, most // lengths[group[first]])
            yield group[first : first + rows]
            first += rows
