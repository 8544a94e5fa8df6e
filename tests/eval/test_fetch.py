"""Weights from Python packages: what is read, what is refused, and that nothing is written or run on the way."""

import dataclasses
import hashlib
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import torch

from eval import zoo
from eval.zoo import fetch as fetching
from eval.zoo import packages
from eval.zoo.archives import Deb
from eval.zoo.beatnet import BeatNet
from eval.zoo.fetch import FetchError, fetch, lacking

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = "BeatNet/models/model_1_weights.pt"


def saved(what: object) -> bytes:
    """As torch.save writes it."""
    file = io.BytesIO()
    torch.save(what, file)
    return file.getvalue()


def wheel(folder: Path, name: str, version: str, files: Mapping[str, bytes]) -> str:
    """Write a wheel that pip accepts and return its sha256; its own code fails if anything runs it."""
    meta = f"{name}-{version}.dist-info"
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/__init__.py", "raise SystemExit('a fetched package was run')")
        for file, content in files.items():
            archive.writestr(file, content)
        archive.writestr(f"{meta}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{meta}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{meta}/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which alone pip looks for packages."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def pin(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Replace the hash that a model's wheel must have."""

    def change(name: str, sha256: str) -> None:
        package = dataclasses.replace(packages.FETCHABLE[name], sha256=sha256)
        monkeypatch.setattr(fetching, "FETCHABLE", {**packages.FETCHABLE, name: package})

    return change


def test_fetched_model_loads(shelf: Path, pin: Callable[[str, str], None], tmp_path: Path) -> None:
    weights = BeatNet().state_dict()
    pin("beatnet", wheel(shelf, "BeatNet", "1.1.3", {WEIGHTS: saved(weights)}))
    written = fetch("beatnet", tmp_path / "zoo")
    assert {path.name for path in written} == {"beatnet_model_1_weights.pt", "SOURCE.txt"}
    assert lacking("beatnet", tmp_path / "zoo") == {}
    model = zoo.load("beatnet", tmp_path / "zoo").model
    assert all(torch.equal(model.state_dict()[name], weights[name]) for name in weights)
    text = next(path for path in written if path.name == "SOURCE.txt").read_text(encoding="utf-8")
    assert "BeatNet==1.1.3" in text
    assert "CC BY 4.0" in text
    with pytest.raises(FetchError, match="not overwritten"):
        fetch("beatnet", tmp_path / "zoo")


def test_other_wheel_is_refused(shelf: Path, tmp_path: Path) -> None:
    found = wheel(shelf, "BeatNet", "1.1.3", {WEIGHTS: saved(BeatNet().state_dict())})
    with pytest.raises(FetchError, match=f"{found}, expected {packages.FETCHABLE['beatnet'].sha256}"):
        fetch("beatnet", tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()


def test_what_pip_says_is_passed_on(shelf: Path, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"(?s)could not download BeatNet==1\.1\.3: .*No matching distribution"):
        fetch("beatnet", tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()


def test_command_line_names_what_is_missing(shelf: Path, tmp_path: Path) -> None:
    """Without a network and for a model that no package has: exit code 1, the reason, nothing written."""
    for name, said in (("beatnet", "pip could not download"), ("pjm", "licence"), ("resnet", "no model has the name")):
        command = [sys.executable, "-m", "eval.zoo", "fetch", name, "--to", str(tmp_path / "zoo")]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (1, "")
        assert said in done.stderr
        assert not (tmp_path / "zoo").exists()


def deb(folder: Path, files: Mapping[str, bytes]) -> bytes:
    """A Debian package that holds files under their names."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    found = b"!<arch>\n"
    for name, body in (("debian-binary", b"2.0"), ("control.tar.xz", b"odd"), ("data.tar.xz", data.getvalue())):
        found += f"{name:16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(body):<10}`\n".encode() + body + b"\n" * (len(body) % 2)
    return found


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Put an apt-get that "downloads" some bytes before all others; none at all until then."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def offer(content: bytes) -> None:
        (folder / "content").write_bytes(content)
        script = folder / "apt-get"
        script.write_text(
            f'#!/bin/sh\n[ "$1 $2" = "download tesseract-ocr-eng=1:4.1.0-2" ] && /bin/cp {folder}/content a.deb\n'
        )
        script.chmod(0o755)

    return offer


def test_debian_package(apt: Callable[[bytes], None], pin: Callable[[str, str], None], tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"tesseract-ocr-eng=1:4\.1\.0-2 is a package of Debian"):
        fetch("tesseract", tmp_path / "zoo")
    content = deb(tmp_path, {"usr/share/tesseract-ocr/5/tessdata/eng.traineddata": b"its network"})
    apt(content)
    with pytest.raises(FetchError, match="is not the file that this project knows"):
        fetch("tesseract", tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()
    pin("tesseract", hashlib.sha256(content).hexdigest())
    written = fetch("tesseract", tmp_path / "zoo")
    assert {path.name: path.read_bytes() for path in written}["eng.traineddata"] == b"its network"
    assert list(lacking("tesseract", tmp_path / "zoo")) == ["../nnsplit_3xbi128/ud_ewt_test_sentences.txt"]
    (tmp_path / "zoo" / "nnsplit_3xbi128").mkdir()
    (tmp_path / "zoo" / "nnsplit_3xbi128" / "ud_ewt_test_sentences.txt").touch()
    assert lacking("tesseract", tmp_path / "zoo") == {}


@pytest.mark.parametrize("content", [b"PK\x03\x04", deb(Path(), {})[:100]], ids=["a wheel", "cut short"])
def test_what_is_no_debian_package(content: bytes) -> None:
    with pytest.raises(FetchError, match="no Debian package"):
        Deb(content)


def test_fetched_models_are_found_beside_the_zoo(
    shelf: Path, pin: Callable[[str, str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In build/zoo, unless the zoo itself has the model."""
    monkeypatch.setattr(zoo.base, "FETCHED", tmp_path / "fetched")
    there = {WEIGHTS: saved(BeatNet().state_dict())}
    pin("beatnet", wheel(shelf, "BeatNet", "1.1.3", there))
    fetch("beatnet", tmp_path / "fetched")
    assert zoo.load("beatnet", tmp_path / "zoo").name == "beatnet"
    (tmp_path / "zoo" / zoo.beatnet.FOLDER).mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="beatnet needs"):
        zoo.load("beatnet", tmp_path / "zoo")


def test_models_that_were_not_fetched_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of all models only, and said so; one that was asked for by name is missed."""
    monkeypatch.setattr(zoo.base, "FETCHED", tmp_path / "fetched")
    (tmp_path / "zoo" / zoo.nakdimon.FOLDER).mkdir(parents=True)
    assert set(zoo.present(zoo.NAMES, tmp_path / "zoo")) == set(zoo.NAMES) - {"silero", "tesseract"}
    assert "silero was not fetched: python -m eval.zoo fetch silero" in capsys.readouterr().err
    assert zoo.present(["silero", "pjm"], tmp_path / "zoo") == ["silero", "pjm"]
    with pytest.raises(FileNotFoundError, match="silero needs"):
        zoo.load("silero", tmp_path / "zoo")


def test_every_model_is_fetchable_or_says_why_not() -> None:
    assert set(zoo.NAMES) == packages.FETCHABLE.keys() | packages.UNFETCHABLE.keys()
    assert not packages.FETCHABLE.keys() & packages.UNFETCHABLE.keys()
    for name in packages.UNFETCHABLE:
        with pytest.raises(FetchError, match="can be fetched: arabic, beatnet"):
            fetch(name, Path("nowhere"))


class Trap:
    """Unpickling it calls a function."""

    def __reduce__(self) -> Any:
        return (print, ("unpickled",))


def test_checkpoint_is_data(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Exception, match="print"):
        packages.checkpoint(saved({"weight": torch.zeros(2), "extra": Trap()}))
    assert capsys.readouterr().out == ""


class Leftover:
    """What a training framework keeps beside the weights."""

    def __init__(self) -> None:
        self.settings = [1, 2]


def test_named_leftovers_are_skipped() -> None:
    content = saved({"state_dict": {"w": torch.ones(3)}, "hyper": Leftover()})
    with pytest.raises(Exception, match="Leftover"):
        packages.checkpoint(content)
    loaded = packages.checkpoint(content, [f"{Leftover.__module__}.Leftover"])
    assert torch.equal(loaded["state_dict"]["w"], torch.ones(3))
    assert not isinstance(loaded["hyper"], Leftover)


def test_conversions(tmp_path: Path) -> None:
    """Of the formats that are not copied as they are."""
    lstm = torch.nn.LSTM(2, 3).state_dict()
    layers: list[Any] = [(kind, ({"weight": torch.full((1,), float(i))}, {}, {})) for i, kind in enumerate("CCLL")]
    tokenizer = 'ARABIC_LETTERS = ("ab" "c")\nPUNCTUATION = " ."\n_SPECIAL_TOKENS = ["<PAD>"]\n'
    contents = {
        "resemblyzer/pretrained.pt": saved({"model_state": {f"lstm.{k}": v for k, v in lstm.items()}, "step": 3}),
        "whisperx/assets/pytorch_model.bin": saved({"state_dict": lstm}),
        "fcd/ChemNet_v0.13_pretrained.pt": saved(layers),
        "diacritize/assets/bilstm_best.pt": b"as it is",
        "nakdimon/data/Nakdimon.onnx": b"a graph",
        "scriptures/json/bible.json": json.dumps([[["a  b\n", "c"], ["d"]], [["e"]]]).encode(),
        "usr/share/tesseract-ocr/5/tessdata/eng.traineddata": b"a network",
        **{f"silero_vad/data/{name}.onnx": name.encode() for name in zoo.silero.FILES},
        "diacritize/tokenizer.py": (tokenizer + "raise SystemExit\n").encode(),
    }
    wheel(tmp_path, "all", "1", contents)
    with ZipFile(tmp_path / "all-1-py3-none-any.whl") as archive:
        converted = {
            name: package.convert(*[archive] * len(package.archives))
            for name, package in packages.FETCHABLE.items()
            if name != "beatnet"
        }
    for name, prefix in (("resemblyzer", "lstm."), ("pyannote", "")):
        (tmp_path / "w.npz").write_bytes(converted[name]["weights.npz"])
        read = zoo.base.arrays(tmp_path / "w.npz")
        assert read.keys() == {prefix + key for key in lstm}
        assert all(torch.equal(read[prefix + key], lstm[key]) for key in lstm)
    (tmp_path / "w.npz").write_bytes(converted["chemnet"]["weights.npz"])
    read = zoo.base.arrays(tmp_path / "w.npz")
    assert {name: float(value) for name, value in read.items()} == {
        "conv1.weight": 0.0,
        "conv2.weight": 1.0,
        "lstm1.weight": 2.0,
        "lstm2.weight": 3.0,
    }
    assert converted["silero"] == {f"{name}.onnx": name.encode() for name in zoo.silero.FILES}
    assert converted["arabic"]["bilstm_best.pt"] == b"as it is"
    tables = json.loads(converted["arabic"]["vocab_labels.json"])
    assert tables["vocab"] == {"<PAD>": 0, "a": 1, "b": 2, "c": 3, " ": 4, ".": 5}
    assert len(tables["labels"]) == 15
    assert converted["nakdimon"] == {"Nakdimon.onnx": b"a graph", "verses.txt": b"a b\nc\nd\ne"}
    assert converted["tesseract"] == {"eng.traineddata": b"a network"}


def test_loader_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo.base, "FETCHED", tmp_path / "fetched")
    with pytest.raises(FileNotFoundError, match=r"beatnet needs .*beatnet_model_1_weights\.pt"):
        zoo.load("beatnet", tmp_path)
