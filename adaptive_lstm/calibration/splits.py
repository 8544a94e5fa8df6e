"""The sequences of a calibration: read, checked for duplicates, and split into three disjoint parts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from torch.nn.utils.rnn import PackedSequence

from ..codec import brief, is_iterable, is_number, is_whole, short_repr
from ..errors import CalibrationError, InputError
from . import risk
from .input_digest import fingerprint

T = TypeVar("T")


@short_repr
@dataclass(frozen=True)
class Splits(Generic[T]):
    """Three disjoint parts of the sequences.

    Attributes:
        fit: for sensitivity and translators.
        search: to choose the candidates to test, and their order.
        test: for the proof.
    """

    fit: Sequence[T]
    search: Sequence[T]
    test: Sequence[T]


def pairs(sequences: Iterable[Any]) -> list[tuple[Any, Any]]:
    """(inputs, target) of every sequence; the target is None where none is given.

    Raises:
        CalibrationError: no sequences (an iterator may be used up), or a tuple of another length than two.
    """
    if not is_iterable(sequences):
        raise CalibrationError(f"sequences: got {brief(sequences)}, expected a list with one entry for each")
    out = []
    for item in sequences:
        pair = item if isinstance(item, tuple | list) and not isinstance(item, PackedSequence) else (item, None)
        if len(pair) != 2:
            raise CalibrationError(
                f"sequences: got a {type(item).__name__} of {len(pair)}, expected an input or (inputs, "
                "target); several arguments of the model go into one tuple: ((x, lengths), None)"
            )
        out.append((pair[0], pair[1]))
    if not out:
        raise CalibrationError("sequences: got none (an iterator that was used up?); pass a list")
    return out


def check_distinct(fingerprints: Mapping[str, str]) -> None:
    """Refuse equal sequences: the same one could be used both to choose a policy and to test it.

    Args:
        fingerprints: of every sequence, by its name in messages.

    Raises:
        CalibrationError: two sequences are equal.
    """
    first: dict[str, str] = {}
    for name, digest in fingerprints.items():
        if digest in first:
            raise CalibrationError(
                f"{first[digest]} and {name} are equal, expected all sequences to differ: the same sequence could be "
                "used both to choose a policy and to test it; remove duplicates. Beside arrays nothing else counts, "
                "since it may be a label: a number that makes another sequence belongs into an array of several"
            )
        first[digest] = name


def split(count: int, shares: tuple[float, float, float], seed: int) -> Splits[int]:
    """Random disjoint splits of ``count`` sequences, none of them empty, as indices.

    Raises:
        CalibrationError: shares that are not three positive numbers, or fewer than three sequences.
    """
    given: Any = shares
    three = isinstance(given, Sequence) and len(given) == 3 and all(map(is_number, given))
    if not (three and all(0 < share < math.inf for share in given)):
        raise CalibrationError(f"shares: got {brief(given)}, expected three positive numbers (fit, search, test)")
    if count < 3:
        raise CalibrationError(f"sequences: got {count}, expected a few hundred")
    order = np.random.default_rng(seed).permutation(count).tolist()
    total = sum(shares)
    a = min(max(1, round(count * shares[0] / total)), count - 2)
    b = min(max(a + 1, round(count * (shares[0] + shares[1]) / total)), count - 1)
    return Splits(order[:a], order[a:b], order[b:])


def split_sequences(
    sequences: Iterable[Any] | Splits[Any], shares: tuple[float, float, float], seed: int
) -> tuple[Splits[tuple[Any, Any]], Splits[str]]:
    """The splits, each sequence as (inputs, target), in random order, and the fingerprint of every input.

    Given splits are shuffled too: if they are sorted by class or speaker, the first sequences of one do not represent
    it, and a test that bets on one loss after the other ("wsr" in ``risk.py``) does not hold.

    Raises:
        CalibrationError: equal sequences, or what ``pairs`` and ``split`` raise.
        InputError: a seed that is no whole number from 0.
    """
    if not (is_whole(seed) and seed >= 0):
        raise InputError(f"seed: got {brief(seed)}, expected a whole number from 0")
    if isinstance(sequences, Splits):
        random = np.random.default_rng(seed)
        given = {name: pairs(getattr(sequences, name)) for name in ("fit", "search", "test")}
        everything = [pair for part in given.values() for pair in part]
        names = [f"{name}[{i}]" for name, part in given.items() for i in range(len(part))]
        ends = np.cumsum([len(part) for part in given.values()])
        index = Splits(
            *(
                random.permutation(np.arange(end - len(part), end)).tolist()
                for end, part in zip(ends, given.values(), strict=True)
            )
        )
    else:
        everything = pairs(sequences)
        names = [f"sequences[{i}]" for i in range(len(everything))]
        index = split(len(everything), shares, seed)
    fingerprints = [fingerprint(inputs) for inputs, _ in everything]
    check_distinct(dict(zip(names, fingerprints, strict=True)))
    return _picked(everything, index), _picked(fingerprints, index)


def _picked(values: Sequence[T], index: Splits[int]) -> Splits[T]:
    return Splits(*([values[i] for i in part] for part in (index.fit, index.search, index.test)))


def check_size(test: int, limits: Sequence[float], confidence: float, binary: Sequence[bool], share: float) -> None:
    """Refuse a test split on which not even a loss of zero could be certified.

    Args:
        test: its size.
        limits: of every loss.
        confidence: of the certificate.
        binary: which losses can only be 0 or 1.
        share: of the test split, of all sequences; for the advice in the message.

    Raises:
        CalibrationError: it is too small.
    """
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
