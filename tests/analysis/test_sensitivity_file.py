"""A saved sensitivity comes back as it was; anything else is refused with the reason."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

import adaptive_lstm as al
from adaptive_lstm import tensorfile
from adaptive_lstm.analysis.sensitivity import Sensitivity

from ..support.helpers import adapted, signal

I = 3  # noqa: E741 (the letter of the input size everywhere)
H, T, B = 5, 8, 2


@pytest.fixture(scope="module")
def measured() -> Sensitivity:
    lstm = adapted(I, H, 2, bidirectional=True, proj_size=2)
    return al.measure_sensitivity(lstm, signal(T, B, I, step=0.3), probes=2)


@pytest.fixture
def saved(measured: Sensitivity, tmp_path: Path) -> Path:
    path = tmp_path / "encoder.sensitivity"
    measured.save(path)
    return path


def arrays(value: Any) -> Iterator[np.ndarray]:
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, tuple):
        for part in value:
            yield from arrays(part)
    else:
        yield from (value.thresholds, value.activity, value.residual)


def test_round_trip(measured: Sensitivity, saved: Path) -> None:
    loaded = Sensitivity.load(str(saved))
    assert (loaded.shape, loaded.steps) == (measured.shape, measured.steps) == (measured.shape, T * B)
    for name in ("rows", "weights", "moments", "means", "curves"):
        pairs = list(zip(arrays(getattr(loaded, name)), arrays(getattr(measured, name)), strict=True))
        assert len(pairs) >= measured.shape.num_cells
        for got, want in pairs:
            assert got.dtype == want.dtype
            np.testing.assert_array_equal(got, want)
    assert al.Delta.priced(loaded, 100.0) == al.Delta.priced(measured, 100.0)
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_a_failed_save_leaves_what_was_there(measured: Sensitivity, saved: Path, tmp_path: Path) -> None:
    before = saved.read_bytes()
    with mock.patch("os.replace", side_effect=OSError(28, "No space left on device")):
        for path in (saved, tmp_path / "new"):
            with pytest.raises(al.AdaptiveLSTMError, match=r"cannot write .*No space left"):
                measured.save(path)
    for path in (tmp_path / "missing" / "file", saved / "file", tmp_path):
        with pytest.raises(al.AdaptiveLSTMError, match="cannot write"):
            measured.save(path)
    assert [p.name for p in tmp_path.iterdir()] == [saved.name]
    assert saved.read_bytes() == before
    measured.save(saved)  # an existing file is replaced


def refused(path: Path, message: str) -> None:
    with pytest.raises(al.AdaptiveLSTMError, match=message) as caught:
        Sensitivity.load(path)
    assert str(path) in str(caught.value)


def test_damaged_and_foreign_files(saved: Path, tmp_path: Path) -> None:
    whole, path = saved.read_bytes(), tmp_path / "other"
    for data in (b"", whole[:5], whole[: len(whole) // 2], whole[:-1], whole + b"x", b"\xff" * 100, pickle.dumps([1])):
        path.write_bytes(data)
        refused(path, "damaged or no sensitivity file")
    save_file({"weight": np.zeros(3)}, path)
    refused(path, "got another kind of safetensors file, expected adaptive_lstm sensitivity")
    refused(tmp_path / "missing", "no such file")
    refused(tmp_path, "no such file")


def parts(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """What safetensors says about a file, and its arrays."""
    with safe_open(path, framework="numpy") as file:
        return dict(file.metadata()), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def unsigned(metadata: dict[str, str]) -> dict[str, Any]:
    """The header of a file, without its checksum."""
    header: dict[str, Any] = json.loads(metadata["header"])
    del header["sha256"]
    return header


def test_altered_numbers_are_refused(saved: Path) -> None:
    whole = saved.read_bytes()
    for place in (len(whole) - 1, len(whole) - 700, len(whole) // 2):
        saved.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        refused(saved, "is damaged: its contents have changed since it was written")
    metadata, contents = parts(saved)
    save_file(contents, saved, metadata | {"header": json.dumps(unsigned(metadata))})
    refused(saved, "is damaged")


def test_files_of_before_have_no_checksum(measured: Sensitivity, saved: Path) -> None:
    metadata, contents = parts(saved)
    header = unsigned(metadata)
    del header["shape"]["one_step"]  # there were no cells
    save_file(contents, saved, metadata | {"version": "1", "header": json.dumps(header)})
    for old, new in zip(arrays(measured.moments), arrays(Sensitivity.load(saved).moments), strict=True):
        np.testing.assert_array_equal(old, new)


def test_other_contents(saved: Path, tmp_path: Path) -> None:
    metadata, contents = parts(saved)
    metadata["header"] = json.dumps(unsigned(metadata))
    path = tmp_path / "other"

    def change(message: str, new: dict[str, Any] | None = None, **changed: str) -> None:
        said, held = metadata | changed, contents | (new or {})
        try:
            header = json.loads(said["header"])
            said["header"] = json.dumps(header | {"sha256": tensorfile.checksum(header, held)})
        except (ValueError, TypeError):
            pass  # no header that could hold one
        save_file(held, path, said)
        refused(path, message)

    change("got sensitivity of version 3, .* reads up to version 2; upgrade", version="3")
    change("got adaptive_lstm model, expected adaptive_lstm sensitivity", format="adaptive_lstm model")
    change("damaged", version="new")
    change("damaged", header="{")
    change("damaged", header="[1]")
    change("damaged", header="{}")
    change("damaged", header=metadata["header"].replace('"num_layers": 2', '"num_layers": 3'))
    change("damaged", header=metadata["header"].replace('"hidden_size": 5', '"hidden_size": 6'))
    change(r"means\.1: got .*float32.*expected .*float64", {"means.1": contents["means.1"].astype(np.float32)})
    change(r"moments\.0: got \(\(3, 3\)", {"moments.0": np.zeros((3, 3))})
    change(r"extra\.0: got", {"extra.0": np.zeros(3)})
    del contents["rows.2"]
    change(r"rows\.2: got None")
