"""The command line's ``calibrate``: what it prints and writes, and what it refuses."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from adaptive_lstm.cli import main as cli
from adaptive_lstm.cli.demo import digits

from ..support.helpers import refused

LEVEL = ("--max-loss", "0.3", "--confidence", "0.9", "--objective", "macs")


def _calibrate(reader: tuple[str, Path], *more: str | Path) -> list[str]:
    return ["calibrate", reader[0], "--data", str(reader[1]), *LEVEL, *map(str, more)]


def test_calibrate_writes_the_certificate_and_every_candidate(
    reader: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    folder = tmp_path / "new" / "folder"
    assert cli.main([*_calibrate(reader, "--loss", "disagreement", "--head", "fc", "--out", folder), "--json"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found["certificate"] == json.loads((folder / "certificate.json").read_text(encoding="utf-8"))
    assert found["frontier"] == json.loads((folder / "frontier.json").read_text(encoding="utf-8"))["candidates"]
    assert found["certificate"]["certified"]
    assert {name: split["count"] for name, split in found["certificate"]["sequences"].items()} == {
        "fit": 15, "search": 15, "test": 30,
    }  # fmt: skip
    assert found["certificate"]["precision"] == {"lstm": "int8"}
    tried = {family for point in found["frontier"] for family in point["families"].split(" + ")}
    assert {"Dense", "Delta"} < tried
    assert [point["cost"] for point in found["frontier"]] == sorted(point["cost"] for point in found["frontier"])
    for name in ("certificate.json", "frontier.json", "frontier.png"):
        assert f"written: {folder / name}" in captured.err
    assert (folder / "frontier.png").stat().st_size > 10_000


def test_calibrate_for_several_losses_prints_what_can_be_read(
    reader: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    several = ("--loss", "accuracy_drop", "--loss", "clipped_error:2", "--max-loss", "0.2", "--quantize", "fp32")
    assert cli.main(_calibrate(reader, *several, "--out", tmp_path)) == 0
    text = capsys.readouterr().out
    assert "loss: largest loss / its limit on the search and on the test split, limit 1." in text
    assert "accuracy_drop: " in text
    assert "clipped_error(2): " in text
    assert "Tested on 30 sequences" in text
    assert "drawn independently" in text
    assert all(len(line) <= 200 for line in text.splitlines())


def test_nothing_certified_is_an_ordinary_answer(
    reader: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(_calibrate(reader, "--loss", "clipped_error:1e-9", "--out", tmp_path)) == 0
    assert "not certified: no policy passed clipped_error(1e-09) <= 0.3" in capsys.readouterr().out
    assert not json.loads((tmp_path / "certificate.json").read_text(encoding="utf-8"))["certified"]
    assert [path.name for path in tmp_path.glob("frontier.*")]


def test_calibrate_without_matplotlib_writes_the_rest(
    reader: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "adaptive_lstm.cli.frontier_plot", raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert cli.main(_calibrate(reader, "--loss", "clipped_error:1e-9", "--out", tmp_path)) == 0
    assert "pip install 'adaptive-lstm[demo]'" in capsys.readouterr().err
    assert (tmp_path / "frontier.json").is_file()
    assert not (tmp_path / "frontier.png").exists()


def test_bad_calibrations_get_one_clear_line(
    reader: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, data = reader
    file, folder = model.removesuffix(":build"), tmp_path / "absent"
    unlabelled = tmp_path / "unlabelled.npz"
    np.savez(unlabelled, x=np.zeros((4, 5, 3), dtype=np.float32))
    full = ("--loss", "disagreement", *LEVEL, "--out", folder)
    for arguments, message in (
        ((model,), "needs --data, --loss, --max-loss, --confidence too"),
        (("--data", data), "--data needs MODEL too"),
        ((digits.MODEL_FILE, "--data", data, *full), "weights alone cannot be run"),
        ((file, "--data", data, *full), "expected the function that builds the model too"),
        ((model, "--data", tmp_path / "absent.npz", *full), "no such file"),
        ((f"{file}:two", "--data", data, *full), "fails on x [1, "),
        ((f"{file}:unready", "--data", data, *full), "fails on x [1, "),
        ((model, "--data", data, *full, "--head", "lost"), "no module named 'lost'; its linear modules: fc, other"),
        ((model, "--data", data, *full, "--head", "other"), "head: it takes states of width 5, expected 8"),
        ((model, "--data", data, *full, "--loss", "taste"), "expected disagreement, accuracy_drop, cosine_distance or"),
        ((model, "--data", data, *full, "--loss", "clipped_error"), "clipped_error needs a scale above 0"),
        ((model, "--data", data, *full, "--loss", "clipped_error:-1"), "clipped_error needs a scale above 0"),
        ((model, "--data", data, *full, "--max-loss", "0.2"), "got 1 losses and 2 values of max_loss"),
        ((model, "--data", unlabelled, *full[2:], "--loss", "accuracy_drop"), "the sequences have none; add y"),
        ((model, "--data", data, *full[2:], "--loss", "disagreement", "--confidence", "0.4"), "confidence: got 0.4"),
        ((model, "--data", data, *full, "--loss", "accuracy_drop", "--max-loss", "0.001"), "too few sequences"),
    ):
        assert message in refused(capsys, "calibrate", *arguments), arguments
