"""The sequences of a calibration: taken in, told apart, and split into three disjoint parts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch.nn.utils.rnn import PackedSequence

from . import risk
from .errors import CalibrationError

T = TypeVar("T")


@dataclass(frozen=True)
class Splits(Generic[T]):
    """Three disjoint parts: ``fit`` for sensitivity and translators, ``search`` to choose, ``test`` for the proof."""

    fit: Sequence[T]
    search: Sequence[T]
    test: Sequence[T]


def pairs(sequences: Iterable[Any]) -> list[tuple[Any, Any]]:
    """(inputs, target) of every sequence; the target is None where none is given.

    Raises:
        CalibrationError: nothing there, an iterator that is used up, or an item that is no input.
    """
    out = []
    for item in sequences:
        pair = item if isinstance(item, tuple) and not isinstance(item, PackedSequence) else (item, None)
        if len(pair) != 2:
            raise CalibrationError(
                f"sequences: got a tuple of {len(pair)}, expected an input or an (inputs, target) pair; several "
                "arguments of the model go into one tuple: ((x, lengths), None)"
            )
        out.append(pair)
    if not out:
        raise CalibrationError("sequences: got none (an iterator that was used up?); pass a list")
    return out


def _bytes(value: Any) -> Iterator[bytes]:
    if isinstance(value, PackedSequence):
        value = (value.data, value.batch_sizes)
    if isinstance(value, torch.Tensor):
        array = value.detach().cpu().contiguous()
        yield f"{array.dtype}{tuple(array.shape)}".encode()
        yield array.view(torch.uint8).numpy().tobytes() if array.numel() and array.dim() else str(array).encode()
    elif isinstance(value, np.ndarray):
        yield f"{value.dtype}{value.shape}".encode() + np.ascontiguousarray(value).tobytes()
    elif isinstance(value, tuple | list):
        yield f"({len(value)}".encode()
        for part in value:
            yield from _bytes(part)
    else:
        yield repr(value).encode()


def fingerprint(inputs: Any) -> str:
    """SHA-256 of an input: equal for equal numbers."""
    digest = hashlib.sha256()
    for part in _bytes(inputs):
        digest.update(part)
    return digest.hexdigest()


def fingerprint_of_all(sequences: Iterable[str]) -> str:
    """One fingerprint for a set of sequences, whatever their order."""
    return hashlib.sha256("".join(sorted(sequences)).encode()).hexdigest()


def refuse_shared(fingerprints: Sequence[str]) -> None:
    """Raise ``CalibrationError`` if a sequence occurs twice: it could stand in two splits and prove itself."""
    first: dict[str, int] = {}
    for i, print_ in enumerate(fingerprints):
        if print_ in first:
            raise CalibrationError(
                f"sequences {first[print_]} and {i} are equal, expected all to differ: one that stands in two splits "
                "would be tested on what it was chosen by; remove duplicates"
            )
        first[print_] = i


def split(count: int, shares: tuple[float, float, float], seed: int) -> Splits[int]:
    """Random disjoint splits of ``count`` sequences, as indices.

    Raises:
        CalibrationError: shares that are not positive.
    """
    if not all(s > 0 for s in shares):
        raise CalibrationError(f"split: got {shares}, expected three positive shares (fit, search, test)")
    order = np.random.default_rng(seed).permutation(count).tolist()
    total = sum(shares)
    a = max(1, round(count * shares[0] / total))
    b = max(a + 1, round(count * (shares[0] + shares[1]) / total))
    return Splits(order[:a], order[a:b], order[b:])


def refuse_too_few(test: int, limits: Sequence[float], confidence: float, binary: Sequence[bool], share: float) -> None:
    """Raise ``CalibrationError`` if not even a loss of zero could be certified on a test split of this size."""
    least = max(risk.needed(m, confidence, binary=b) for m, b in zip(limits, binary, strict=True))
    if test >= least:
        return
    likely = max(risk.needed(m, confidence, m / 2, binary=b) for m, b in zip(limits, binary, strict=True))
    raise CalibrationError(
        f"too few sequences: the test split has {test}, and a mean loss of at most {min(limits)} at confidence "
        f"{confidence} needs at least {least} without any loss, about {likely} at half the limit. Give at least "
        f"{int(np.ceil(least / share))} sequences in all (better {int(np.ceil(likely / share))}), or allow a larger "
        "max_loss"
    )
