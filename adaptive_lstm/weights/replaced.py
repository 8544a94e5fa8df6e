"""Weights that an ``AdaptiveLSTM`` executes instead of its parameters: pruned, rounded with compensation, or both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..codec import short_repr
from ..errors import InputError
from .fingerprint import digest, weights_digest
from .layout import CellTensors

if TYPE_CHECKING:
    import torch
    from torch import nn


@short_repr
@dataclass(frozen=True, eq=False)
class ReplacedWeights:
    """Weights in the shape of the parameters, float32 on the CPU; pruned weights are zeros.

    ``cells``: one entry per layer and direction.
    ``origin``: ``weights_digest`` of the parameters that they were made from.
    ``stands_for``: ``digest`` of the weights whose place these take: they round to the same matrices in the precision
    that is set beside them. None: they are the ones that were made.
    """

    cells: tuple[CellTensors, ...]
    origin: str
    stands_for: str | None = None

    def digest(self) -> str:
        """SHA-256 of the weights, or of those they stand for, and of the parameters they replace, in hexadecimal."""
        if self.stands_for is not None:
            return self.stands_for
        return replaced_digest(self.origin, [vars(cell) for cell in self.cells])

    def check(self, lstm: nn.LSTM) -> None:
        """Raise ``InputError`` if the parameters of an LSTM are not those that these weights were made from.

        Hashes all parameters.
        """
        if weights_digest(lstm) != self.origin:
            raise InputError(
                "the weights have changed since they were pruned or rounded, and the replaced weights do not follow. "
                "Compress the model again (adaptive_lstm.compress), or go back to its parameters "
                "(adaptive_lstm.restore)."
            )

    def on(self, device: torch.device) -> tuple[CellTensors, ...]:
        """The weights on a device, as float32: in a narrower dtype they would be rounded again."""
        like = self.cells[0].w_ih.to(device)
        return tuple(cell.to_device(like) for cell in self.cells)


def replaced_digest(origin: str, cells: Sequence[Mapping[str, Any]]) -> str:
    """``ReplacedWeights.digest`` of tensors or arrays by the names of ``CellTensors``, one mapping per cell."""
    kinds = ("w_ih", "w_hh", "bias", "w_hr", "live", "constant")
    return digest([(origin, None), *((f"{i}.{kind}", cell[kind]) for i, cell in enumerate(cells) for kind in kinds)])
