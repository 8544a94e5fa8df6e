"""Sequences of different lengths: from padded to packed rows, longest first, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..codec import brief
from ..errors import InputError
from ..types import FloatArray


@dataclass(frozen=True, eq=False)
class Packing:
    """Where the timesteps of padded sequences lie among packed rows, as in torch's ``PackedSequence``.

    ``order`` [B]: rows of the batch, the longest first.
    ``back`` [B]: where each row of the batch is in that order.
    ``sizes`` [longest] int64: sequences that have a timestep left, never rising.
    ``times``, ``rows`` [n]: timestep and row of the batch of every packed row.
    """

    order: np.ndarray
    back: np.ndarray
    sizes: np.ndarray
    times: np.ndarray
    rows: np.ndarray

    @staticmethod
    def of(lengths: Sequence[int] | np.ndarray, steps: int, batch: int) -> Packing:
        """The packing of a batch of sequences whose lengths are these, of ``steps`` timesteps with their padding.

        Raises:
            InputError: not ``batch`` whole numbers from 1 to ``steps``.
        """
        try:
            found = np.asarray(lengths)
        except (TypeError, ValueError, RuntimeError):  # rows of different lengths, or no array
            found = np.zeros(0)
        if found.shape != (batch,) or found.dtype.kind not in "iu":
            raise InputError(f"lengths: got {brief(lengths)}, expected {batch} whole numbers, one for every row")
        if int(found.min()) < 1 or int(found.max()) > steps:
            wrong = int(found.min()) if int(found.min()) < 1 else int(found.max())
            raise InputError(f"lengths: got {wrong}, expected 1 to {steps}")
        order = np.argsort(-found.astype(np.int64), kind="stable")
        back = np.empty_like(order)
        back[order] = np.arange(batch)
        runs = found[order][None] > np.arange(int(found.max()))[:, None]  # [longest, B]
        times, places = runs.nonzero()
        return Packing(order, back, runs.sum(axis=1, dtype=np.int64), times, order[places])

    def packed(self, x: FloatArray) -> FloatArray:
        """Padded sequences [T, B, n] as packed rows."""
        rows: FloatArray = x[self.times, self.rows]
        return rows

    def padded(self, rows: FloatArray, steps: int) -> FloatArray:
        """Packed rows as padded sequences [steps, B, n], with zeros behind the end of each."""
        out = np.zeros((steps, len(self.order), rows.shape[1]), rows.dtype)
        out[self.times, self.rows] = rows
        return out
