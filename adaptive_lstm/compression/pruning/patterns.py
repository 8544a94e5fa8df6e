"""Keep-masks from scores, for every pattern within a matrix: groups of weights that are removed together, and N:M."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...types import DoubleArray
from ...weights.layout import gate_and_unit_of_rows
from .refit import Mask
from .settings import KERNEL_BLOCK, STRIP, Prune

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Groups:
    """Groups of a matrix [R, C]: weights with the same row label [R] and column label [C] (labels from 0)."""

    rows: Labels
    columns: Labels

    def sums(self, values: DoubleArray) -> DoubleArray:
        """Sums of values [R, C] over every group [row groups, column groups]."""
        if len(self.rows) - 1 == self.rows.max(initial=-1) and len(self.columns) - 1 == self.columns.max(initial=-1):
            return values  # single weights
        out = np.zeros((self.rows.max(initial=-1) + 1, self.columns.max(initial=-1) + 1))
        np.add.at(out, (self.rows[:, None], self.columns[None]), values)
        return out

    def per_weight(self, keep: Mask) -> Mask:
        """One entry per group as one per weight [R, C]."""
        return np.asarray(keep[self.rows[:, None], self.columns[None]])


def groups(prune: Prune, hidden: int, columns: int) -> Groups:
    """The groups of one gate matrix [4H, columns] under an unstructured, block or column pattern."""
    gate, unit = gate_and_unit_of_rows(hidden)
    rows, each = np.arange(len(gate)), np.arange(columns)
    if prune.pattern == "unstructured":
        return Groups(rows, each)
    if prune.pattern == "column":
        return Groups(np.zeros_like(rows), each)
    height, width = prune.block
    if prune.block == KERNEL_BLOCK:  # strips of one gate, four to a block, and of two gates only where one ends
        strips = -(-hidden // STRIP)
        return Groups((gate * strips + unit // STRIP) // (height // STRIP), each // width)
    tall = -(-hidden // height)  # blocks of one gate; the last one may be lower
    return Groups(gate * tall + unit // height, each // width)


def cheapest(scores: Sequence[DoubleArray], sizes: Sequence[DoubleArray], share: float) -> list[Mask]:
    """Which groups stay when those with the lowest score per weight are removed, as near to the share as groups allow.

    Args:
        scores: of every group, one array per matrix.
        sizes: prunable weights of every group; 0: the group stays.
        share: of all prunable weights to remove, 0 to 1.
    """
    flat = np.concatenate([s.ravel() for s in scores])
    size = np.concatenate([s.ravel() for s in sizes])
    each = np.where(size > 0, flat / np.maximum(size, 1), np.inf)
    target, most, largest = share * size.sum(), int((size > 0).sum()), float(size.max(initial=0.0))
    if most and largest * most == size.sum():  # of one size, such as single weights: no order is needed
        return _like(scores, ~_lowest(each, math.ceil(target / largest - 0.5)))
    order = np.argsort(each, kind="stable")
    gone = np.cumsum(size[order])
    count = min(int(np.searchsorted(gone, target, side="right")), most)  # as many as do not exceed it
    if count < most and gone[count] - target < target - (gone[count - 1] if count else 0.0):
        count += 1
    keep = np.ones(len(flat), dtype=bool)
    keep[order[:count]] = False
    return _like(scores, keep)


def _lowest(values: DoubleArray, count: int) -> Mask:
    """Which are the lowest; among equals the first ones."""
    if count == 0:
        return np.zeros(len(values), dtype=bool)
    limit = np.partition(values, count - 1)[count - 1]
    lowest = values < limit
    lowest[np.flatnonzero(values == limit)[: count - int(lowest.sum())]] = True
    return np.asarray(lowest)


def _like(arrays: Sequence[DoubleArray], flat: Mask) -> list[Mask]:
    """One mask for all as one for each array."""
    ends = np.cumsum([one.size for one in arrays])[:-1]
    return [part.reshape(one.shape) for part, one in zip(np.split(flat, ends), arrays, strict=True)]


def n_of_m(scores: DoubleArray, n: int, m: int) -> Mask:
    """The N weights with the highest scores [R, C] stay in every M neighbours of a row.

    A last group of fewer columns k keeps its N * k / M, rounded up.
    """
    rows, columns = scores.shape
    keep = np.zeros(scores.shape, dtype=bool)
    whole = columns // m * m
    for part, size in ((slice(0, whole), m), (slice(whole, columns), columns - whole)):
        if size and part.stop > part.start:
            grouped = scores[:, part].reshape(rows, -1, size)
            stay = -(-n * size // m)
            best = np.argsort(-grouped, axis=2, kind="stable")[..., :stay]
            flags = np.zeros(grouped.shape, dtype=bool)
            np.put_along_axis(flags, best, True, axis=2)
            keep[:, part] = flags.reshape(rows, -1)
    return keep
