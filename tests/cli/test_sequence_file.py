"""Sequences from .npz files: every layout that is described, and what is wrong with those that are not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adaptive_lstm.calibration.splits import Splits
from adaptive_lstm.cli.sequence_file import LabelledSequence, load_sequences
from adaptive_lstm.errors import InputError


def _saved(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "data.npz", **arrays)
    return folder / "data.npz"


def _pairs(path: Path) -> list[LabelledSequence]:
    found = load_sequences(path)
    assert isinstance(found, list)
    return found


def test_sequences_of_one_length_come_batch_first_with_their_targets(tmp_path: Path) -> None:
    x, y = np.arange(24, dtype=np.float64).reshape(2, 4, 3), np.array([1, 0])
    pairs = _pairs(_saved(tmp_path, x=x, y=y))
    assert [inputs.shape for inputs, _ in pairs] == [(1, 4, 3), (1, 4, 3)]
    assert all(inputs.dtype == torch.float32 for inputs, _ in pairs)
    np.testing.assert_array_equal(torch.cat([inputs for inputs, _ in pairs]).numpy(), x)
    assert [int(target) for _, target in pairs if target is not None] == [1, 0]


def test_sequences_of_several_lengths_lie_end_to_end(tmp_path: Path) -> None:
    x = np.arange(18, dtype=np.float16).reshape(6, 3)
    pairs = _pairs(_saved(tmp_path, x=x, length=np.array([1, 3, 2])))
    assert [tuple(inputs.shape) for inputs, _ in pairs] == [(1, 1, 3), (1, 3, 3), (1, 2, 3)]
    np.testing.assert_array_equal(torch.cat([inputs[0] for inputs, _ in pairs]).numpy(), x)
    assert all(target is None for _, target in pairs)


@pytest.mark.parametrize("length", [None, [2, 4]])
def test_tokens_have_no_features(length: list[int] | None, tmp_path: Path) -> None:
    tokens = np.arange(6, dtype=np.uint8)
    arrays = {"x": tokens.reshape(2, 3)} if length is None else {"x": tokens, "length": np.array(length)}
    pairs = _pairs(_saved(tmp_path, **arrays))
    assert [tuple(inputs.shape) for inputs, _ in pairs] == ([(1, 3)] * 2 if length is None else [(1, 2), (1, 4)])
    assert all(inputs.dtype == torch.int64 for inputs, _ in pairs)


def test_a_split_of_ones_own_is_kept(tmp_path: Path) -> None:
    x = np.arange(5, dtype=np.float32).reshape(5, 1, 1)
    found = load_sequences(_saved(tmp_path, x=x, split=np.array(["test", "fit", "search", "test", "fit"])))
    assert isinstance(found, Splits)
    parts = [[float(inputs) for inputs, _ in part] for part in (found.fit, found.search, found.test)]
    assert parts == [[1, 4], [2], [0, 3]]


X = np.zeros((4, 5, 3), dtype=np.float32)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"inputs": X}, "holds inputs; expected x"),
        ({"x": X[0], "lengths": np.array([5])}, "holds x, lengths; expected x, and optionally length"),
        ({"x": X[0]}, r"x has the shape \(5, 3\), expected \[N, T, I\]"),
        ({"x": X, "length": np.array([5])}, r"x has the shape \(4, 5, 3\), expected \[sum of lengths, I\]"),
        ({"x": X[0], "length": np.array([2, 2])}, "the lengths add up to 4, but x holds 5 timesteps"),
        ({"x": X[0], "length": np.array([5, 0])}, "expected a list of integers above 0"),
        ({"x": X[0], "length": np.array([2.5, 2.5])}, "expected a list of integers above 0"),
        ({"x": X, "y": np.zeros(3)}, r"y has the shape \(3,\), expected one row for each of 4 in x"),
        ({"x": X.astype(str)}, "got x <U"),
        ({"x": X, "split": np.array(["fit", "fit", "test", "test"])}, r"expected fit, search, test, all three"),
        ({"x": X, "split": np.array(["fit", "search", "test", "train"])}, r"expected fit, search, test, all three"),
        ({"x": X[:0]}, "expected at least one sequence"),
    ],
)
def test_what_does_not_fit_is_said(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        load_sequences(_saved(tmp_path, **arrays))


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.npz").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match="is damaged or not "):
        load_sequences(tmp_path / "data.npz")
    np.savez(tmp_path / "objects.npz", x=np.array([None, 1], dtype=object))
    with pytest.raises(InputError, match="is damaged or not "):
        load_sequences(tmp_path / "objects.npz")
