"""Files are written at once and read without surprises: modes, links, folders, FIFOs, full disks, lost halves."""

from __future__ import annotations

import os
import resource
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn

import adaptive_lstm as al
from adaptive_lstm import files, tensorfile

from ..support.artifact_cases import lstm_of
from ..support.cut_files import cut_while_read
from ..support.helpers import assert_equal, infer, signal
from ..support.policy_cases import SHAPES


@pytest.fixture
def model() -> nn.LSTM:
    return lstm_of(SHAPES["plain"])


@pytest.fixture
def fast(model: nn.LSTM) -> al.AdaptiveLSTM:
    converted = al.AdaptiveLSTM.from_lstm(model)
    converted.policy = al.Delta.uniform(0.1)
    return converted


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def not_written(fast: nn.Module, path: Any, message: str) -> None:
    with pytest.raises(al.errors.ModelFileError, match=message):
        al.save(fast, path)


# ------------------------------------------------------------------------------------------------------------- writing


@pytest.mark.parametrize(("mask", "expected"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_new_file_gets_the_mode_that_the_umask_leaves(
    fast: al.AdaptiveLSTM, tmp_path: Path, mask: int, expected: int
) -> None:
    before = os.umask(mask)
    try:
        al.save(fast, tmp_path / "model")
    finally:
        os.umask(before)
    assert mode(tmp_path / "model") == expected


@pytest.mark.parametrize("given", [0o600, 0o640, 0o444])
def test_saving_again_keeps_the_mode(fast: al.AdaptiveLSTM, model: nn.LSTM, tmp_path: Path, given: int) -> None:
    path = tmp_path / "model"
    al.save(fast, path)
    path.chmod(given)
    fast.policy = al.Dense()
    al.save(fast, path)
    assert mode(path) == given
    assert al.load(path, model).policy == al.Dense()


def test_a_secret_is_never_readable_by_others_meanwhile(fast: al.AdaptiveLSTM, tmp_path: Path) -> None:
    path = tmp_path / "model"
    al.save(fast, path)
    path.chmod(0o600)
    seen = []

    def look(source: str, target: str) -> None:
        seen.append(mode(Path(source)))
        os.rename(source, target)

    def full(descriptor: int) -> None:
        seen.append(stat.S_IMODE(os.fstat(descriptor).st_mode))

    with mock.patch("os.replace", look), mock.patch("os.fsync", full):
        al.save(fast, path)
    assert seen == [0o600, 0o600]


def test_a_symbolic_link_stays_and_what_it_names_is_replaced(fast: al.AdaptiveLSTM, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    real, link, far = tmp_path / "folder" / "real", tmp_path / "link", tmp_path / "far"
    link.symlink_to(Path("folder") / "real")  # names nothing yet
    far.symlink_to(link)
    for path in (link, far):
        al.save(fast, path)
        assert (link.is_symlink(), far.is_symlink(), real.is_symlink()) == (True, True, False)
        assert al.load_certificate(real) is None
        real.write_bytes(b"")
    assert [one.name for one in real.parent.iterdir()] == ["real"]
    around = tmp_path / "around"
    around.symlink_to(around)
    not_written(fast, around, "cannot write .*around: ")


def test_another_hard_link_keeps_what_it_held(fast: al.AdaptiveLSTM, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    al.save(fast, one)
    os.link(one, other)
    before = one.read_bytes()
    fast.policy = al.Dense()
    al.save(fast, one)
    assert other.read_bytes() == before != one.read_bytes()


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("", "path: got '', expected the name of a file"),
        (b"", "path: got '', expected the name of a file"),
        ("folder/", "expected the name of a file"),
        (".", "is a folder, expected a file"),
        ("folder", "is a folder, expected a file"),
        ("absent/model", "cannot write .*: No such file"),
        ("taken/model", "cannot write .*: Not a directory"),
        ("x" * 300, "cannot write .*: File name too long"),
        ("x/" * 3000 + "x", r"cannot write .*\(\d,\d+ characters\): File name too long"),
        ("a\0b", "cannot write .*: embedded null"),
        ("fifo", "is a FIFO, expected a file"),
        ("/dev/null", "is a device, expected a file"),
        (None, "path: got NoneType, expected text"),
        (3, "path: got int, expected text"),
    ],
)
def test_what_is_no_file_is_refused_both_ways(
    fast: al.AdaptiveLSTM, model: nn.LSTM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: Any, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("taken").touch()
    os.mkfifo("fifo")
    before = sorted(path.name for path in tmp_path.iterdir())
    not_written(fast, named, message)
    readers: tuple[Callable[[], object], ...] = (
        *(lambda: al.load(named, model), lambda: al.load_certificate(named), lambda: al.Sensitivity.load(named)),
    )
    for reader in readers:
        with pytest.raises(al.errors.ModelFileError):
            reader()
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_every_form_of_a_path(fast: al.AdaptiveLSTM, model: nn.LSTM, tmp_path: Path) -> None:
    longest = "x" * 255
    for name in (longest, "ü", os.fsdecode(b"\xff\xfe"), ".hidden", "with space\nand line"):
        path = tmp_path / name
        for given in (path, str(path), os.fsencode(path)):
            al.save(fast, given)
            assert al.load(given, model).policy == fast.policy
            assert al.load_certificate(given) is None
    assert len(list(tmp_path.iterdir())) == 5


@pytest.mark.parametrize("failing", ["os.fsync", "os.replace", "os.open", "os.fchmod"])
def test_a_full_disk_or_a_read_only_folder_leaves_the_old_file(
    fast: al.AdaptiveLSTM, tmp_path: Path, failing: str
) -> None:
    path = tmp_path / "model"
    al.save(fast, path)
    whole = path.read_bytes()
    for number in (28, 13, 122):  # no space left, permission denied, quota exceeded
        with mock.patch(failing, side_effect=OSError(number, os.strerror(number))):
            not_written(fast, path, f"cannot write .*model: {os.strerror(number)}")
    with mock.patch(failing, side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        al.save(fast, path)
    assert path.read_bytes() == whole
    assert [one.name for one in tmp_path.iterdir()] == ["model"]


def test_a_disk_that_fills_while_the_file_is_written_leaves_the_old_one(fast: al.AdaptiveLSTM, tmp_path: Path) -> None:
    path = tmp_path / "model"
    al.save(fast, path)
    whole, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) // 2, limits[1]))
    try:
        not_written(fast, path, "cannot write .*model: File too large")
        not_written(fast, tmp_path / "new", "cannot write .*new: File too large")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == whole
    assert [one.name for one in tmp_path.iterdir()] == ["model"]


def test_what_cannot_be_written_is_known_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("link").symlink_to("folder/model")
    for path in ("new", "folder/model", "link"):
        files.require_writable(path)
    assert sorted(one.name for one in tmp_path.rglob("*")) == ["folder", "link"]
    for path, message in {
        "": "expected the name of a file",
        "folder": "it is a folder",
        "absent/model": "No such file",
        "/dev/null": "it is a device",
        "x" * 300: "File name too long",
    }.items():
        with pytest.raises(al.errors.ModelFileError, match=message):
            files.require_writable(path)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(al.errors.ModelFileError, match=r"cannot write link: no files may be made in .*folder"):
        files.require_writable("link")


def test_savers_at_once_leave_the_file_of_one_of_them(model: nn.LSTM, tmp_path: Path) -> None:
    path, taus = tmp_path / "model", [0.01 * i for i in range(1, 9)]

    def save_often(tau: float) -> None:
        fast = al.AdaptiveLSTM.from_lstm(model)
        fast.policy = al.Delta.uniform(tau)
        for _ in range(20):
            al.save(fast, path)
            seen.append(al.load(path, model).policy)

    seen: list[object] = []
    threads = [threading.Thread(target=save_often, args=(tau,)) for tau in taus]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 160
    assert all(any(policy == al.Delta.uniform(tau) for tau in taus) for policy in seen)
    assert [one.name for one in tmp_path.iterdir()] == ["model"]


# ------------------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("length", [0, 5, 1000, 20_000])
def test_a_file_truncated_while_it_is_read_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "file"
    tensorfile.write(path, "model", 1, {}, {f"a{i}": np.zeros(100_000, np.float32) for i in range(4)})
    found = cut_while_read(path, length, lambda: tensorfile.read(path, "model", 1))
    assert isinstance(found, al.errors.ModelFileError)
    assert "is damaged or no model file" in str(found)


def test_a_file_that_is_read_is_not_mapped(tmp_path: Path) -> None:
    """What came back stays whole when the file is cut afterwards, which is what a mapping does not survive."""
    path, values = tmp_path / "file", np.arange(10**6, dtype=np.float32)
    tensorfile.write(path, "model", 1, {"a": [1]}, {"values": values})
    header, arrays = tensorfile.read(path, "model", 1)
    os.truncate(path, 0)
    assert header == {"a": [1]}
    np.testing.assert_array_equal(arrays["values"], values)
    assert arrays["values"].flags.writeable


def test_a_file_that_lies_about_its_size_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    tensorfile.write(path, "model", 1, {}, {"a": np.zeros(2, np.float32)})
    os.truncate(path, 2**40)  # sparse
    with pytest.raises(al.errors.ModelFileError, match="but its header describes"):
        tensorfile.read(path, "model", 1)
    head = b'{"a":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]}}' % (2**44, 2**44)
    path.write_bytes(len(head).to_bytes(8, "little") + head)
    os.truncate(path, 8 + len(head) + 2**43)
    with pytest.raises(al.errors.ModelFileError, match="but its header describes"):
        tensorfile.contents(path)
    head = head.replace(str(2**44).encode(), str(2**43).encode())
    path.write_bytes(len(head).to_bytes(8, "little") + head)
    os.truncate(path, 8 + len(head) + 2**43)
    with pytest.raises(al.errors.ModelFileError, match=r"reading it takes .* GB, and this machine has"):
        tensorfile.contents(path)


def test_the_same_content_is_the_same_file() -> None:
    arrays = {f"{i}": np.arange(i, dtype=np.float32) for i in range(5)}
    header = {"name": "naïve", "values": [1, 0.1, None]}
    once = {tensorfile.dumps("case", 1, header, dict(reversed(arrays.items()))) for _ in range(20)}
    assert len(once) == 1
    assert once == {tensorfile.dumps("case", 1, header, arrays)}
    found, back = tensorfile.loads(next(iter(once)), "case", 1)
    assert found == header
    assert all(np.array_equal(back[name], array) for name, array in arrays.items())


def test_arrays_of_no_dimension_and_of_no_length_come_back(tmp_path: Path) -> None:
    arrays = {"scalar": np.array(3.0), "empty": np.zeros((0, 4), np.float32), "turned": np.arange(6.0).reshape(2, 3).T}
    tensorfile.write(tmp_path / "file", "model", 1, {}, arrays)
    _, found = tensorfile.read(tmp_path / "file", "model", 1)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, strict=True)
    for refused in (np.zeros(2, np.longdouble), np.array([None]), np.zeros(2, "M8[s]"), np.zeros(2, [("a", "f4")])):
        with pytest.raises(al.errors.ModelFileError, match="cannot write"):
            tensorfile.write(tmp_path / "other", "model", 1, {}, {"a": refused})
    assert not (tmp_path / "other").exists()


def test_a_loaded_model_outlives_its_file(fast: al.AdaptiveLSTM, model: nn.LSTM, tmp_path: Path) -> None:
    x = signal(12, 3, 5)
    al.save(fast, tmp_path / "model")
    loaded = al.load(tmp_path / "model", model)
    os.truncate(tmp_path / "model", 0)
    assert_equal(infer(loaded, x), infer(fast, x))
    assert torch.is_tensor(infer(loaded, x)[0])
