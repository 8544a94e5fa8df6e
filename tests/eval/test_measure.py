"""``eval.measure``: a sweep goes on where it was, keeps one machine's records, and says what is missing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from eval import measure
from eval.measure import NAMES, keep_own, runs, sweep
from eval.report.records import COMMANDS

HERE = "abc1234", "this cpu"


def record(commit: str, cpu: str, case: str = "one") -> str:
    return json.dumps({"group": "g", "case": case, "commit": commit, "machine": {"cpu": cpu}})


class Runs:
    """Starts nothing and notes what was asked for; ``failing`` ends with an error."""

    def __init__(self, failing: str = ""):
        self.failing, self.asked = failing, list[tuple[str, bool]]()

    def __call__(self, arguments: Sequence[str], alone: bool) -> int:
        self.asked.append((" ".join(arguments), alone))
        return int(bool(self.failing) and self.failing in arguments[1])


def test_a_sweep_goes_on_where_it_was(tmp_path: Path) -> None:
    state, failing, names = tmp_path / "build" / "state.json", Runs("eval.scaling"), ("latency", "scaling", "roofline")
    missing = sweep(names, None, tmp_path, state, HERE, failing)
    assert missing == ["scaling: ended with status 1"]
    assert [asked for asked, _ in failing.asked] == [f"-m eval.{name}" for name in names]
    again = Runs()
    assert sweep(names, None, tmp_path, state, HERE, again) == []
    assert again.asked == [("-m eval.scaling", True)]
    other = Runs()
    sweep(names, None, tmp_path, state, ("def5678", "this cpu"), other)
    assert len(other.asked) == len(names)


def test_what_needs_the_zoo_is_named_without_it(tmp_path: Path) -> None:
    asked = Runs()
    missing = sweep(("frontier", "cores"), None, tmp_path, tmp_path / "state.json", HERE, asked)
    assert missing == ["frontier: needs --zoo"]
    assert asked.asked == [("-m eval.cores", False)]  # on all processors
    assert runs("frontier", Path("/models")) == [["-m", "eval.frontier", "--zoo", "/models"]]
    assert runs("validity", None) == [["-m", "eval.validity"], ["-m", "eval.validity", "--objective", "latency"]]


def test_records_of_others_go_when_an_evaluation_ends(tmp_path: Path) -> None:
    path = tmp_path / "roofline.jsonl"
    mine = record(*HERE)
    path.write_text("\n".join([record("abc1234", "another"), mine, record("0000000", "this cpu", "two")]) + "\n")
    sweep(("roofline",), None, tmp_path, tmp_path / "state.json", HERE, Runs())
    assert path.read_text() == mine + "\n"
    assert keep_own(path, HERE) == 0
    assert keep_own(tmp_path / "none.jsonl", HERE) == 0


def test_records_stay_when_an_evaluation_fails(tmp_path: Path) -> None:
    path = tmp_path / "roofline.jsonl"
    path.write_text(record("0000000", "another") + "\n")
    sweep(("roofline",), None, tmp_path, tmp_path / "state.json", HERE, Runs("roofline"))
    assert len(path.read_text().splitlines()) == 1


def test_every_evaluation_that_times_something_takes_part() -> None:
    assert set(COMMANDS) - set(NAMES) == {"quality", "embedded", "fuzzing"}


def test_changed_code_is_not_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(measure, "commit", lambda: "abc1234-dirty")
    with pytest.raises(SystemExit):
        measure.main([])
    assert "commit your changes first" in capsys.readouterr().err
