"""Pruned weights beside the original ones: what a compressed ``AdaptiveLSTM`` executes instead of its parameters."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import torch
from torch import nn

from ..errors import InputError
from .fingerprint import _update, digest
from .layout import PairTensors


@dataclass(frozen=True, eq=False)
class PrunedWeights:
    """Weights in the shape of the original ones, float32 on the CPU; zeros are what was pruned.

    Weights that only compensated rounding has moved are kept the same way.

    ``pairs``: one entry per layer and direction; ``origin``: ``digest`` of the parameters that they were made from.
    """

    pairs: tuple[PairTensors, ...]
    origin: str

    def digest(self) -> str:
        """SHA-256 of the pruned weights, in hexadecimal."""
        found = hashlib.sha256(self.origin.encode())
        for pair in self.pairs:
            for value in (pair.w_ih, pair.w_hh, pair.bias, pair.w_hr, pair.fixed):
                _update(found, "" if value is None else str(tuple(value.shape)), value)
        return found.hexdigest()

    def tensors(self, lstm: nn.LSTM) -> tuple[PairTensors, ...]:
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
        return tuple(moved(pair, like) for pair in self.pairs)


def moved(pair: PairTensors, like: torch.Tensor) -> PairTensors:
    """A pair's weights in the dtype and on the device of another tensor."""

    def to(value: torch.Tensor | None) -> torch.Tensor | None:
        return None if value is None else value.detach().to(like)

    return replace(
        pair,
        w_ih=pair.w_ih.detach().to(like),
        w_hh=pair.w_hh.detach().to(like),
        bias=pair.bias.detach().to(like),
        w_hr=to(pair.w_hr),
        fixed=to(pair.fixed),
    )
