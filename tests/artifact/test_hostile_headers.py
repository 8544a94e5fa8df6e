"""Headers that are too large, too deep, or say a thing twice: refused at once, whatever their checksum says."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from torch import nn

import adaptive_lstm as al
from adaptive_lstm import strict_json, tensorfile
from adaptive_lstm.artifact.policies import MAX_PARTS

from ..support.artifact_cases import certificate_of, lstm_of, read_file
from ..support.policy_cases import SHAPES

DENSE: dict[str, Any] = {"kind": "Dense", "settings": {}}
SOON = 2.0  # seconds; a fifth of one on an idle machine


def delta(h: Any) -> dict[str, Any]:
    return {"kind": "Delta", "settings": {"h": h, "x": None}}


def nested(depth: int) -> Any:
    found: Any = 0.1
    for _ in range(depth):
        found = [found]
    return found


@pytest.fixture
def saved(tmp_path: Path) -> tuple[nn.LSTM, Path]:
    model = lstm_of(SHAPES["plain"])
    al.save(al.adapt(model), tmp_path / "model")
    return model, tmp_path / "model"


def signed(header: dict[str, Any]) -> str:
    """As JSON with the checksum that fits it."""
    return json.dumps(header | {"sha256": tensorfile.checksum(header, {})})


def write(path: Path, header: str, version: str = "1") -> None:
    """A file with this header, however large."""
    save_file({}, path, {"format": "adaptive_lstm model", "version": version, "header": header})


def refused(path: Path, model: nn.Module, message: str) -> None:
    for reader in (lambda: al.load(path, model), lambda: al.load_certificate(path)):
        begun = time.perf_counter()
        with pytest.raises(al.errors.ModelFileError, match=message):
            reader()
        assert time.perf_counter() - begun < SOON


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (delta([0.1] * 10**6), "more than 32,768 values in JSON"),
        (delta([[0.1] * 4000] * 250), "more than 32,768 values in JSON"),
        (delta([0.1] * 5000), "got 5,000 entries, expected at most 4,096"),
        (delta(nested(200)), "nested deeper than 32 levels"),
        (delta(nested(30)), "nested deeper than 32 levels"),
        (delta(nested(5)), "expected a finite number"),
        ({"kind": "Combined", "policies": [DENSE] * 10**5}, "more than 32,768 values in JSON"),
        ({"kind": "Combined", "policies": [DENSE] * 3000}, f"a list of at most {MAX_PARTS} policies"),
        ({"kind": "Combined", "policies": [delta([None] * 400)] * 60}, "60 column policies, expected at most one"),
        ({"kind": "Combined", "policies": [{"kind": "Combined", "policies": []}]}, "Combined inside Combined"),
        (DENSE | {"settings": dict.fromkeys(map(str, range(9000)), 1)}, "9,000 entries, expected at most 4,096"),
        (delta(10**4000), "expected a finite number"),
        (delta(math.inf), "expected a finite number"),
        (delta(-math.inf), "expected a finite number"),
    ],
)
def test_a_header_without_end(saved: tuple[nn.LSTM, Path], policy: Any, message: str) -> None:
    model, path = saved
    header, _ = read_file(path)
    header["lstms"][""]["policy"] = policy
    write(path, signed(header))
    refused(path, model, message)


def test_a_model_without_end(saved: tuple[nn.LSTM, Path]) -> None:
    model, path = saved
    header, _ = read_file(path)
    entry = header["lstms"][""]
    write(path, signed(header | {"lstms": {"x" * 99 + str(i): entry for i in range(800)}}))
    with pytest.raises(al.errors.ModelFileError, match="is of a model with the LSTMs") as refusal:
        al.load(path, model)
    assert len(str(refusal.value)) < 1000
    write(path, signed(header | {"lstms": dict.fromkeys(map(str, range(5000)), 0)}))
    refused(path, model, "5,000 entries, expected at most 4,096")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"policy": ', '"policy": {"kind": "Dense", "settings": {}}, "policy": ', "the name 'policy' twice"),
        ('"lstms": ', '"lstms": {}, "lstms": ', "the name 'lstms' twice"),
        ('"sha256": ', '"sha256": "", "sha256": ', "the name 'sha256' twice"),
        ('"kind": ', '"kind": "Delta", "kind": ', "the name 'kind' twice"),
    ],
)
def test_a_name_twice_in_our_header(saved: tuple[nn.LSTM, Path], old: str, new: str, message: str) -> None:
    model, path = saved
    header, _ = read_file(path)
    write(path, signed(header).replace(old, new, 1))
    refused(path, model, message)


def test_a_name_twice_in_the_header_of_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "file"
    tensorfile.write(path, "model", 1, {}, {"a": np.zeros(2, np.float32), "b": np.ones(2, np.float32)})
    whole = path.read_bytes()
    for old, new, twice in ((b'"b":', b'"a":', "a"), (b'"version":', b'"format" :', "format")):
        path.write_bytes(whole.replace(old, new))
        with pytest.raises(al.errors.ModelFileError, match=f"the name '{twice}' twice"):
            tensorfile.read(path, "model", 1)
    path.write_bytes(whole.replace(b'"b":', b'"a":'))
    with pytest.raises(al.errors.ModelFileError, match="the name 'a' twice"):
        tensorfile.contents(path)


def test_a_name_twice_among_many() -> None:
    """Found in one pass: to count every name among all would take minutes."""
    names = ",".join(f'"{i:x}":0' for i in range(300_000))
    with pytest.raises(ValueError, match="the name 'last' twice"):
        strict_json.loads(f'{{{names},"last":0,"last":1}}', 2**20)


@pytest.mark.parametrize("found", ["-1", "0", "1.0", "1e0", "True", "", " 1", "1_0", "١", "one", "1" * 5000, "3"])
def test_versions(saved: tuple[nn.LSTM, Path], found: str) -> None:
    model, path = saved
    header, _ = read_file(path)
    write(path, signed(header), found)
    refused(path, model, "reads up to version 2; upgrade it" if found == "3" else "expected a whole number from 1")


@pytest.mark.parametrize("found", [b"1", b"1.0", b"true", b"null", b"[1]", b'{"1":1}'])
def test_versions_that_are_no_text(saved: tuple[nn.LSTM, Path], found: bytes) -> None:
    model, path = saved
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    head, rest = whole[8 : 8 + length].replace(b'"version":"1"', b'"version":' + found), whole[8 + length :]
    path.write_bytes(len(head).to_bytes(8, "little") + head + rest)
    refused(path, model, r"got version .*, expected a whole number from 1")


def test_a_certificate_that_says_a_thing_twice_or_without_end() -> None:
    text = certificate_of(al.adapt(lstm_of(SHAPES["plain"]))).to_json()
    assert al.Certificate.from_json(text).to_json() == text
    for hostile, message in {
        text.replace('"confidence": 0.95', '"confidence": 0.95, "confidence": 0.99'): "'confidence' twice",
        text.replace('"candidates": {}', f'"candidates": {[0] * 10**5}'): "more than",
        text.replace('"candidates": {}', '"candidates": ' + "[" * 100 + "]" * 100): "nested deeper",
        text.replace('"mean": 0.01', f'"mean": 1{"0" * 400}'): "too large|OverflowError",
    }.items():
        with pytest.raises(al.errors.InputError, match=message):
            al.Certificate.from_json(hostile)


def test_as_much_as_may_be_said_is_written_and_read_and_no_more(tmp_path: Path) -> None:
    path = tmp_path / "file"
    arrays = {f"{i}.replaced.weights": np.zeros(1, np.float32) for i in range(20_000)}
    most = {"values": [0.5] * (tensorfile.MAX_VALUES - 3)}
    tensorfile.write(path, "model", 1, most, arrays)
    header, found = tensorfile.read(path, "model", 1)
    assert header == most
    assert found.keys() == arrays.keys()
    with pytest.raises(al.errors.ModelFileError, match=r"cannot write .*file: got more than 32,768 values"):
        tensorfile.write(path, "model", 1, {"values": [0.5] * tensorfile.MAX_VALUES}, {})
    with pytest.raises(al.errors.ModelFileError, match=r"cannot write .*: got a header of .* bytes, expected at most"):
        tensorfile.write(path, "model", 1, {"values": "x" * tensorfile.MAX_HEADER}, {})
    assert tensorfile.read(path, "model", 1)[0] == most


def test_strict_json() -> None:
    deepest = nested(strict_json.MAX_DEPTH)
    assert strict_json.loads(json.dumps(deepest), 99) == deepest
    assert strict_json.loads('{"a": [1, {"b": "a"}], "b": {"a": null}}', 99) == {"a": [1, {"b": "a"}], "b": {"a": None}}
    for text in (
        "",
        "{",
        "nul",
        '{"a": 1,}',
        json.dumps(nested(33)),
        "[" * 10**5,
        "[1,2,3]" * 2,
        "[" + "1," * 99 + "1]",
    ):
        with pytest.raises(ValueError):
            strict_json.loads(text, 99)
