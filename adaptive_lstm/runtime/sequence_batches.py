"""Sequences of different lengths as batches of a model, and what it returns taken apart again."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, Protocol

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence, pad_sequence

from ..errors import InputError

Layout = Literal["packed", "padded", "equal"]
Model = Callable[..., Any]

MOST_APART = 0.05  # of the largest output: padding changes more, and a decision that tips by rounding less


class Batches(Protocol):
    """How a model runs several sequences at once.

    ``mixes``: whether sequences of different lengths share a batch.
    """

    mixes: bool

    def run(self, sequences: Sequence[torch.Tensor]) -> list[Any]:
        """What the model returns for each of some sequences [T, ...], given the longest first."""


def batches_of(model: Model, layout: Layout) -> Batches:
    """How a model runs batches of a layout."""
    if layout == "packed":
        return PackedLSTM(model) if isinstance(model, nn.LSTM) else ModelBatches(lambda x: model(packed(x)))
    if layout == "padded":
        return ModelBatches(_padded(model))
    return ModelBatches(lambda x: model(torch.stack(x)), mixes=False)


def packed(sequences: Sequence[torch.Tensor]) -> PackedSequence:
    """As torch's ``pack_sequence``, whatever the default device is; in any order of lengths."""
    lengths: Any = [len(x) for x in sequences]  # of a list torch makes a tensor on the CPU
    sorted_ = all(a >= b for a, b in pairwise(lengths))
    return pack_padded_sequence(pad_sequence(list(sequences)), lengths, enforce_sorted=sorted_)


class PackedLSTM:
    """An ``nn.LSTM`` alone; results are those of its calls with a sequence [T, I]."""

    mixes = True

    def __init__(self, lstm: Model):
        self._lstm = lstm

    def run(self, sequences: Sequence[torch.Tensor]) -> list[Any]:
        """As ``Batches.run``."""
        output, (h, c) = self._lstm(packed(sequences))
        y, _ = pad_packed_sequence(output, batch_first=True)
        return [(y[i, : len(x)].clone(), (h[:, i].clone(), c[:, i].clone())) for i, x in enumerate(sequences)]


class ModelBatches:
    """A model that is called with several sequences, and returns tensors with a row for each.

    Which of them hold a row for every timestep, and so are cut to the lengths, is found out in the first batch of
    different lengths, by running its shortest sequence alone. What that gives must be what the batch gives: otherwise
    whatever follows a sequence in its row of the batch changes results.
    """

    def __init__(self, call: Callable[[list[torch.Tensor]], Any], *, mixes: bool = True):
        self._call, self.mixes = call, mixes
        self._timed: list[bool] | None = None  # of every leaf of the output

    def run(self, sequences: Sequence[torch.Tensor]) -> list[Any]:
        """As ``Batches.run``."""
        leaves, rebuilt = _taken_apart(self._call(list(sequences)))
        for leaf in leaves:
            _require_rows(leaf, len(sequences))
        timed = [False] * len(leaves)  # where all are of one length there is nothing to cut
        if len(sequences[-1]) < len(sequences[0]):
            if self._timed is None:
                self._timed = self._found_out(leaves, sequences)
            timed = self._timed
        return [
            rebuilt([_row(leaf, i, len(x) if cut else None) for leaf, cut in zip(leaves, timed, strict=True)])
            for i, x in enumerate(sequences)
        ]

    def _found_out(self, leaves: Sequence[Any], sequences: Sequence[torch.Tensor]) -> list[bool]:
        longest, shortest = len(sequences[0]), len(sequences[-1])
        alone, _ = _taken_apart(self._call([sequences[-1]]))
        timed = []
        for leaf, one in zip(leaves, alone, strict=True):
            cut = _has_timesteps(leaf, longest) and _has_timesteps(one, shortest)
            if isinstance(leaf, torch.Tensor):
                got, want = _row(leaf, -1, shortest if cut else None), _row(one, 0, None)
                _require_same(got, want, shortest, longest)
            timed.append(cut)
        return timed


def _padded(model: Model) -> Callable[[list[torch.Tensor]], Any]:
    """A call with x [B, T, ...], and with lengths [B] where a model has an argument of this name."""
    try:
        takes_lengths = "lengths" in inspect.signature(getattr(model, "forward", model)).parameters
    except ValueError:  # written in C
        takes_lengths = False

    def call(sequences: list[torch.Tensor]) -> Any:
        x = pad_sequence(sequences, batch_first=True)
        if not takes_lengths:
            return model(x)
        return model(x, lengths=torch.tensor([len(one) for one in sequences], device="cpu"))

    return call


# ------------------------------------------------------------------------------------------------------------ outputs

Rebuilt = Callable[[list[Any]], Any]


def _taken_apart(output: Any) -> tuple[list[Any], Rebuilt]:
    """The leaves of an output, packed ones padded, and what puts others in their places."""
    if isinstance(output, PackedSequence):
        return [pad_packed_sequence(output, batch_first=True)[0]], lambda leaves: leaves[0]
    if isinstance(output, Mapping):
        keys = list(output)
        return _joined(output.values(), lambda values: dict(zip(keys, values, strict=True)))
    if isinstance(output, tuple | list):
        return _joined(output, getattr(output, "_make", type(output)))  # of a named tuple
    return [output], lambda leaves: leaves[0]


def _joined(parts: Any, whole: Callable[[list[Any]], Any]) -> tuple[list[Any], Rebuilt]:
    apart = [_taken_apart(part) for part in parts]

    def rebuilt(leaves: list[Any]) -> Any:
        left = iter(leaves)
        return whole([part([next(left) for _ in own]) for own, part in apart])

    return [leaf for own, _ in apart for leaf in own], rebuilt


def _row(leaf: Any, i: int, timesteps: int | None) -> Any:
    """A row of a tensor in memory of its own, so that no result keeps the others alive; anything else as it is."""
    if not isinstance(leaf, torch.Tensor):
        return leaf
    return (leaf[i] if timesteps is None else leaf[i, :timesteps]).clone()


def _has_timesteps(leaf: Any, n: int) -> bool:
    return isinstance(leaf, torch.Tensor) and leaf.dim() > 1 and leaf.shape[1] == n


def _require_rows(leaf: Any, n: int) -> None:
    if isinstance(leaf, torch.Tensor) and (not leaf.dim() or len(leaf) != n):
        raise InputError(
            f"the model returned shape {tuple(leaf.shape)} for a batch of {n} sequences, expected [{n}, ...], a row "
            "for each; give a function that calls the model and returns such tensors"
        )


def _require_same(got: torch.Tensor, want: torch.Tensor, shortest: int, longest: int) -> None:
    beside = f"a sequence of {shortest} timesteps, beside one of {longest},"
    fix = (
        "the model must leave out what follows a sequence in its row (an argument `lengths` says where it ends); or "
        'choose layout="equal"'
    )
    if got.shape != want.shape:
        raise InputError(f"{beside} gave shape {tuple(got.shape)}, alone {tuple(want.shape)}; {fix}")
    size = float(want.abs().max()) if want.numel() else 0.0
    if not torch.allclose(got, want, rtol=0.0, atol=MOST_APART * size, equal_nan=True):
        apart = float((got - want).abs().max())
        raise InputError(f"{beside} gave results {apart:.2g} away from those that it gives alone; {fix}")
