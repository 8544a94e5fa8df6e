"""Sequences from .npz files: every layout that is described, and what is wrong with those that are not."""

import os
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adaptive_lstm.calibration.splits import Splits
from adaptive_lstm.cli.sequence_file import LabelledSequence, load_sequences
from adaptive_lstm.errors import InputError, ModelFileError

from ..support.cut_files import cut_while_read


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


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "f16", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"])
def test_every_number_has_its_value_in_every_byte_order(tmp_path: Path, order: str, kind: str) -> None:
    values = np.arange(24).reshape(2, 4, 3)
    x = values if kind.startswith("f") else values[..., 0]
    dtype = order + kind
    turned = np.asfortranarray(x.astype(dtype))
    pairs = _pairs(_saved(tmp_path, x=turned, y=np.array([3, 1]).astype(dtype)))
    np.testing.assert_array_equal(torch.cat([inputs for inputs, _ in pairs]).numpy(), x)
    assert pairs[0][0].dtype == (torch.float32 if kind.startswith("f") else torch.int64)
    assert [int(target) for _, target in pairs if target is not None] == [3, 1]
    pairs = _pairs(_saved(tmp_path, x=x.reshape(8, *x.shape[2:]).astype(dtype), length=np.array([5, 3], ">i4")))
    assert [inputs.shape[1] for inputs, _ in pairs] == [5, 3]


def test_other_targets_have_their_values(tmp_path: Path) -> None:
    for y in (
        np.array([True, False] * 2),
        np.array([1, 2, 3, np.nan], np.float16),
        np.array([[1], [2], [3], [2**40]], ">u8"),
    ):
        targets = [target for _, target in _pairs(_saved(tmp_path, x=X, y=y)) if target is not None]
        np.testing.assert_array_equal(torch.stack(targets).numpy(), y)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.float64(3)}, r"x has the shape \(\), expected"),
        ({"x": np.zeros((4, 0, 3), np.float32)}, "expected at least one timestep and one feature"),
        ({"x": np.zeros((4, 3, 0))}, "expected at least one timestep and one feature"),
        ({"x": X.astype(complex)}, "got x complex128, expected numbers"),
        ({"x": X.astype([("a", "f4")])}, "got x .*, expected numbers"),
        ({"x": X.astype("M8[s]")}, "got x datetime64.*, expected numbers"),
        ({"x": np.full((1, 2, 3), 1e300)}, "x is float64 and holds numbers beyond float32"),
        ({"x": np.full((1, 2), 2**63, np.uint64)}, "x is uint64 and holds numbers beyond int64"),
        ({"x": X, "y": np.full(4, 2**63, np.uint64)}, "y is uint64 and holds numbers beyond int64"),
        ({"x": X, "y": np.array([object()] * 4)}, "is damaged or not"),
        ({"x": X[0], "length": np.array([2**63 + 5, 2**63], np.uint64)}, "the lengths add up to 18446744073709551621"),
        ({"x": X[0], "length": np.array(5)}, "expected a list of integers above 0"),
        ({"x": X[0], "length": np.array([5], complex)}, "expected numbers"),
        ({"x": X, "split": np.array([["fit"], ["fit"], ["test"], ["search"]])}, "expected a list of fit, search, test"),
        ({"x": X, "split": np.array([1j, 2j, 3, 4])}, "split is complex128"),
        ({"x": X, "split": np.array([b"fit", b"fit", b"test", b"search"])}, r"split is \|S6"),
    ],
)
def test_other_arrays_are_refused(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        load_sequences(_saved(tmp_path, **arrays))


def _array(header: str, data: bytes = b"") -> bytes:
    """An .npy file with any header."""
    text = (header + "\n").encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


@pytest.mark.parametrize(
    "shape", ["(1000000000000,)", "(100000, 100000, 100)", "(-1, 3)", "(4611686018427387904, 8)", "(True, 2)", "(2.5,)"]
)
def test_headers_that_promise_what_is_not_there(shape: str, tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    for descr in ("'<f8'", "'|O'", "'<U1000000000'", "[('a', '<f8')]", "None"):
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("x.npy", _array(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}", bytes(64)))
        with pytest.raises(InputError, match=r"is damaged or not an \.npz file of numbers"):
            load_sequences(path)


def test_what_is_no_npz_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    for data in (
        b"",
        b"\0",
        b"nothing of the kind",
        b"PK\x05\x06" + bytes(17),
        _saved(tmp_path, x=X).read_bytes()[:-9],
    ):
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"is damaged or not an \.npz file of numbers"):
            load_sequences(path)
    np.save(path.with_suffix(".npy"), X)
    path.with_suffix(".npy").rename(path)
    with pytest.raises(InputError, match=r"is one \.npy array; save it with numpy\.savez"):
        load_sequences(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x", "no array")
    with pytest.raises(InputError, match="x is no array"):
        load_sequences(path)
    np.savez(tmp_path / "objects.npz", x=np.array([None, 1], dtype=object))
    with pytest.raises(InputError, match="is damaged or not "):
        load_sequences(tmp_path / "objects.npz")


def test_an_npz_file_of_another_name_is_read(tmp_path: Path) -> None:
    _saved(tmp_path, x=X).rename(tmp_path / "data.npy")
    assert len(_pairs(tmp_path / "data.npy")) == 4
    np.savez_compressed(tmp_path / "data.npz", x=X)
    assert len(_pairs(tmp_path / "data.npz")) == 4


def test_an_array_twice_is_refused(tmp_path: Path) -> None:
    one = _array("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 1)}", bytes(4))
    for names in (("x.npy", "x.npy"), ("x.npy", "x")):
        with zipfile.ZipFile(tmp_path / "data.npz", "w") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name in names:
                file.writestr(name, one)
        with pytest.raises(InputError, match="holds several arrays of one name"):
            load_sequences(tmp_path / "data.npz")


def test_archives_that_unfold_to_more_than_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "data.npz", x=np.zeros((100, 1000, 1000), np.uint8))
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 10_000}.__getitem__)
    with pytest.raises(ModelFileError, match="and this machine has"):
        load_sequences(tmp_path / "data.npz")


@pytest.mark.parametrize("length", [0, 100, 5000])
def test_sequences_that_are_truncated_while_they_are_read(tmp_path: Path, length: int) -> None:
    path = _saved(tmp_path, x=np.zeros((10, 100, 10), np.float32))
    found = cut_while_read(path, length, lambda: load_sequences(path))
    assert isinstance(found, InputError)
    assert "is damaged or" in str(found)


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.npz")
    for path, message in (
        (tmp_path / "fifo.npz", "is a FIFO"),
        (tmp_path, "is a folder"),
        (Path("/dev/zero"), "is a device"),
        (tmp_path / "absent.npz", "no such file"),
        (tmp_path / ("x" * 300), "cannot read"),
    ):
        with pytest.raises(ModelFileError, match=message):
            load_sequences(path)
