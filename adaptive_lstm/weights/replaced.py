"""Pruned weights beside the original ones: what a compressed ``AdaptiveLSTM`` executes instead of its parameters."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import torch
from torch import nn

from ..errors import InputError
from .fingerprint import _update, digest
from .layout import CellTensors


@dataclass(frozen=True, eq=False)
class ReplacedWeights:
    """Weights in the shape of the original ones, float32 on the CPU; zeros are what was pruned.

    Weights that only compensated rounding has moved are kept the same way.

    ``cells``: one entry per layer and direction; ``origin``: ``digest`` of the parameters that they were made from.
    """

    cells: tuple[CellTensors, ...]
    origin: str

    def digest(self) -> str:
        """SHA-256 of the pruned weights, in hexadecimal."""
        found = hashlib.sha256(self.origin.encode())
        for cell in self.cells:
            for value in (cell.w_ih, cell.w_hh, cell.bias, cell.w_hr, cell.fixed):
                _update(found, "" if value is None else str(tuple(value.shape)), value)
        return found.hexdigest()

    def tensors(self, lstm: nn.LSTM) -> tuple[CellTensors, ...]:
        """The same in the dtype and on the device of an LSTM's parameters.

        Raises:
            InputError: the parameters are no longer those that were pruned.
        """
        if digest(lstm) != self.origin:
            raise InputError(
                "the weights have changed since they were pruned or rounded, and what was made of them does not "
                "follow. Compress the model again (adaptive_lstm.compress), or go back to its parameters "
                "(adaptive_lstm.restore)."
            )
        like = next(lstm.parameters())
        return tuple(moved(cell, like) for cell in self.cells)


def moved(cell: CellTensors, like: torch.Tensor) -> CellTensors:
    """A cell's weights in the dtype and on the device of another tensor."""

    def to(value: torch.Tensor | None) -> torch.Tensor | None:
        return None if value is None else value.detach().to(like)

    return replace(
        cell,
        w_ih=cell.w_ih.detach().to(like),
        w_hh=cell.w_hh.detach().to(like),
        bias=cell.bias.detach().to(like),
        w_hr=to(cell.w_hr),
        fixed=to(cell.fixed),
    )
