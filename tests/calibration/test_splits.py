"""The sequences of a calibration: how they are read, told apart and split."""

from __future__ import annotations

import dataclasses
import math
from collections import UserDict, deque
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from adaptive_lstm.calibration.input_digest import fingerprint, fingerprint_of_all
from adaptive_lstm.calibration.risk import needed
from adaptive_lstm.calibration.splits import (
    Splits,
    check_distinct,
    check_size,
    pairs,
    split,
    split_sequences,
)
from adaptive_lstm.errors import CalibrationError

X = torch.arange(6.0).reshape(3, 2)
PACKED = pack_sequence([X, X[:2]])
SHARES = (0.25, 0.25, 0.5)


@pytest.mark.parametrize(
    ("item", "inputs", "target"),
    [
        (X, X, None),
        (PACKED, PACKED, None),
        ((X, 3), X, 3),
        ([X, 3], X, 3),
        ((PACKED, None), PACKED, None),
        (((X, PACKED), 1), (X, PACKED), 1),
        ({"x": X}, {"x": X}, None),
    ],
)
def test_what_a_sequence_is(item: Any, inputs: Any, target: Any) -> None:
    ((got, label),) = pairs(iter([item]))
    assert got is inputs or repr(got) == repr(inputs)
    assert label == target


@pytest.mark.parametrize("item", [(X,), (X, 1, 2), [X], []])
def test_what_is_none(item: Any) -> None:
    with pytest.raises(CalibrationError, match=f"{type(item).__name__} of {len(item)}"):
        pairs([X, item])


def test_used_up() -> None:
    data = (X for _ in range(3))
    assert len(pairs(data)) == 3
    with pytest.raises(CalibrationError, match="used up"):
        pairs(data)


class Clip:
    """A container of the user's own."""

    def __init__(self, samples: Any, rate: int = 16000):
        self.samples, self.rate = samples, rate


class Slots:
    """One without ``__dict__``."""

    __slots__ = ("samples",)

    def __init__(self, samples: Any):
        self.samples = samples


@dataclasses.dataclass
class Record:
    """A dataclass."""

    samples: Any


class Named(NamedTuple):
    """A tuple with names."""

    samples: Any


class Lazy:
    """Something that gives an array when asked."""

    def __init__(self, samples: torch.Tensor):
        self.samples = samples

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self.samples.numpy()


def with_payload(bits: int) -> torch.Tensor:
    """A NaN with these bits among zeros."""
    return torch.tensor([bits, 0], dtype=torch.int32).view(torch.float32)


ALIKE = [
    (X, X.double()),
    (X, X.half()),
    (X, X.bfloat16()),
    (X, X.long()),
    (X, X.to_sparse()),
    (X, X + 0j),
    (X, X[None]),
    (X, X.numpy()),
    (X, torch.stack([X, X], dim=2)[:, :, 0]),  # other strides
    (X, torch._neg_view(-X)),
    (X, torch.nn.Parameter(X.clone())),
    (X, pack_sequence([X])),
    (torch.zeros(3), -torch.zeros(3)),
    (np.zeros(3), -np.zeros(3, np.float32)),
    (0.0, -0.0),
    ([1.0, 2.0], torch.tensor([1.0, 2.0])),
    (with_payload(0x7FC00000), with_payload(0x7FC00001)),
    (with_payload(-0x00400000), with_payload(0x7FA00000)),
    ({"x": X * 0, "n": 1}, UserDict({"n": 1.0, "x": -0.0 * X})),
    ((X, X * 0), deque([X, X * -0.0])),
    (Clip(X * 0), Clip(X * -0.0)),
    (Clip([Clip(X)]), Clip((Clip(X.clone()),))),
    (Slots(X), Slots(X.clone())),
    (Record(X), Record(X.double())),
    (Named(X), Named(X.clone())),
    (Lazy(X), Lazy(X.clone())),
    ({1, 2, 3}, {3, 2, 1}),
    (b"abc", bytearray(b"abc")),
    (X, X.clone()),
    (X, X.T.contiguous().T),  # another layout of the same numbers
    (PACKED, pack_sequence([X.clone(), X[:2]])),
    ((X, 1), [X.clone(), 1]),
    ({"a": X, "b": 1}, {"b": 1, "a": X.clone()}),
    (X.numpy(), X.numpy().copy()),
    (X.clone().requires_grad_(), X),
    (Clip(X, 8000), Clip(X, 16000)),  # what stands beside arrays may be a label
    ({"x": X}, {"y": X}),
]
DIFFERENT = [
    (Clip(X), Clip(X + 1)),
    (Clip(1, 8000), Clip(1, 16000)),
    (Slots(X), Slots(X + 1)),
    (Record(X), Record(X + 1)),
    (Lazy(X), Lazy(X + 1)),
    ({"x": 1}, {"y": 1}),
    ({1: "a", 2: "b"}, {1: "b", 2: "a"}),
    (torch.tensor([2**53]), torch.tensor([2**53 + 1])),
    (torch.tensor([math.nan, 0.0]), torch.tensor([0.0, math.nan])),
    (torch.tensor([1 + 2j]), torch.tensor([1 - 2j])),
    (np.array(["a", "b"]), np.array(["a", "c"])),
    (X, X + 1e-6),
    (X, X.reshape(2, 3)),
    (X, X[:2]),
    (PACKED, pack_sequence([X[:2], X[:2], X[:1]])),
    (torch.zeros(0, 3), torch.zeros(3, 0)),
    (torch.tensor(1.0), torch.tensor(1.0000001)),
    (torch.rand(2000, generator=torch.Generator().manual_seed(0)), torch.rand(2000)),
    ({"x": torch.zeros(3000)}, {"x": torch.cat([torch.zeros(1500), torch.ones(1), torch.zeros(1499)])}),
    ((X, X), (X, X, X)),
    ("a", "b"),
    (torch.tensor([True, False]), torch.tensor([True, True])),
]


@pytest.mark.parametrize(("a", "b"), ALIKE)
def test_equal_numbers_have_equal_fingerprints(a: Any, b: Any) -> None:
    assert fingerprint(a) == fingerprint(b)


@pytest.mark.parametrize(("a", "b"), DIFFERENT)
def test_other_numbers_have_other_fingerprints(a: Any, b: Any) -> None:
    assert fingerprint(a) != fingerprint(b)


def test_what_cannot_be_read_is_refused() -> None:
    with pytest.raises(CalibrationError, match=r"got a generator .* cannot be read"):
        fingerprint({"x": (x for x in X)})


def test_a_container_that_holds_itself_ends() -> None:
    loop: list[Any] = [X]
    loop.append(loop)
    assert fingerprint(loop) == fingerprint(loop)


def test_fingerprints_of_sets() -> None:
    assert fingerprint_of_all(["a", "b"]) == fingerprint_of_all(["b", "a"])
    assert fingerprint_of_all(["a", "b"]) != fingerprint_of_all(["a", "c"])


def test_shared_sequences_are_named() -> None:
    check_distinct({"x": "1", "y": "2"})
    with pytest.raises(CalibrationError, match="y and z are equal"):
        check_distinct({"x": "1", "y": "2", "z": "2"})


@given(st.integers(3, 300), st.tuples(*[st.floats(0.001, 10)] * 3), st.integers(0, 5))
def test_splits_are_disjoint_complete_and_not_empty(count: int, shares: tuple[float, float, float], seed: int) -> None:
    made = split(count, shares, seed)
    assert sorted([*made.fit, *made.search, *made.test]) == list(range(count))
    assert min(len(made.fit), len(made.search), len(made.test)) >= 1
    assert made == split(count, shares, seed)


def test_splits_are_random_and_as_large_as_asked() -> None:
    made = split(400, SHARES, seed=0)
    assert (len(made.fit), len(made.search), len(made.test)) == (100, 100, 200)
    assert made != split(400, SHARES, seed=1)
    assert abs(float(np.mean(made.test)) - 200) < 25


@pytest.mark.parametrize("shares", [(1, 1, 0), (1, 1, -1), (1, math.nan, 1), (1, 1, math.inf), (1, 1), (1, 1, 1, 1)])
def test_impossible_shares(shares: Any) -> None:
    with pytest.raises(CalibrationError, match="shares"):
        split(100, shares, seed=0)


def data(n: int, start: int = 0) -> list[tuple[torch.Tensor, int]]:
    return [(torch.full((2, 1), float(i)), i) for i in range(start, start + n)]


def test_drawing() -> None:
    everything = data(40)
    splits, fingerprints = split_sequences(everything, SHARES, seed=3)
    index = split(40, SHARES, seed=3)
    for part, told, wanted in zip(
        (splits.fit, splits.search, splits.test),
        (fingerprints.fit, fingerprints.search, fingerprints.test),
        vars(index).values(),
        strict=True,
    ):
        assert [label for _, label in part] == wanted
        assert told == [fingerprint(everything[i][0]) for i in wanted]


def test_given_splits_are_shuffled_within() -> None:
    given = Splits(data(20), data(20, start=20), data(60, start=40))
    splits, fingerprints = split_sequences(given, SHARES, seed=3)
    assert sorted(label for _, label in splits.fit) == list(range(20))
    assert sorted(label for _, label in splits.search) == list(range(20, 40))
    labels = [label for _, label in splits.test]
    assert sorted(labels) == list(range(40, 100))
    assert labels != sorted(labels)
    assert abs(float(np.mean(labels[:30])) - 69.5) < 15  # no half stands for one end
    assert fingerprints.test == [fingerprint(x) for x, _ in splits.test]
    assert split_sequences(given, SHARES, seed=3)[1] == fingerprints


def test_drawing_refuses_what_is_shared() -> None:
    with pytest.raises(CalibrationError, match=r"sequences\[2\] and sequences\[5\]"):
        split_sequences([*data(5), data(3)[2], *data(5, start=9)], SHARES, seed=0)
    with pytest.raises(CalibrationError, match=r"fit\[1\] and test\[0\]"):
        split_sequences(Splits(data(2), data(2, start=5), data(3, start=1)), SHARES, seed=0)


@pytest.mark.parametrize("binary", [True, False])
def test_how_many_are_needed(binary: bool) -> None:
    least = needed(0.05, 0.95, binary=binary)
    check_size(least, [0.05], 0.95, [binary], share=0.5)
    with pytest.raises(CalibrationError, match=f"needs at least {least} .* Give at least {4 * least} sequences"):
        check_size(least - 1, [0.05], 0.95, [binary], share=0.25)


def test_the_hardest_of_several_limits_counts() -> None:
    with pytest.raises(CalibrationError, match=r"at most 0.01 .* needs at least 299"):
        check_size(100, [0.05, 0.01], 0.95, [True, True], share=0.5)


def test_packed_sequences_stay_whole() -> None:
    assert isinstance(pairs([PACKED])[0][0], PackedSequence)
