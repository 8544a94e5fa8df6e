"""Sequences as they are read: checked, and in windows of bounded size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn

from ..errors import InputError
from ..execution.plain import is_dense, not_dense


def windows(
    sequences: Iterable[Any], timesteps: int, check: Callable[[Any, int], torch.Tensor]
) -> Iterator[tuple[list[torch.Tensor], Exception | None]]:
    """Sequences in windows of about so many timesteps, each with the error that ended the reading, which ends all.

    Args:
        sequences: read only as far as the next window needs.
        timesteps: a window is full when it holds so many.
        check: a sequence and its number; gives it back, or raises.
    """
    items, number, ended, error = iter(sequences), 0, False, None
    while not ended:
        window: list[torch.Tensor] = []
        held = 0
        while held < timesteps and not ended:
            try:
                window.append(check(next(items), number))
            except StopIteration:
                ended = True
            except Exception as raised:  # noqa: BLE001 (so may what makes sequences)
                ended, error = True, raised
            else:
                number += 1
                held += len(window[-1])
        yield window, error


class SequenceCheck:
    """Refuses what cannot be a sequence beside those before it; an LSTM says by itself what it takes."""

    def __init__(self, model: Any):
        self._wanted: tuple[tuple[int, ...], torch.dtype, torch.device] | None = None
        self._as = "like those before it"
        if isinstance(model, nn.LSTM):
            weight = next(model.parameters())
            self._wanted, self._as = ((model.input_size,), weight.dtype, weight.device), "like the weights"

    def __call__(self, x: Any, number: int) -> torch.Tensor:
        """The sequence, if it fits. Raises ``InputError``, which names its number."""
        if not isinstance(x, torch.Tensor):
            raise InputError(f"sequence {number}: got {type(x).__name__}, expected a torch.Tensor [T, ...]")
        if not is_dense(x):
            raise InputError(f"sequence {number}: got {not_dense(x)}")
        if not x.dim() or not len(x):
            raise InputError(f"sequence {number}: got shape {tuple(x.shape)}, expected [T, ...] with T at least 1")
        got = tuple(x.shape[1:]), x.dtype, x.device
        if self._wanted is None:
            self._wanted = got
        if got != self._wanted:
            sizes, dtype, device = self._wanted
            raise InputError(
                f"sequence {number}: got shape {tuple(x.shape)} of {x.dtype} on {x.device}, expected "
                f"[{', '.join(['T', *map(str, sizes)])}] of {dtype} on {device} {self._as}"
            )
        return x
