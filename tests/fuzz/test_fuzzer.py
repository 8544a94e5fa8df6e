"""The fuzzer finds, shrinks and names what is planted, and survives it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from .__main__ import main
from .campaign import Campaign, Settings
from .target import drawn, load

WAYS = {
    "SEGFAULT": "crash: SIGSEGV",
    "HANG": "hang",
    "FOREIGN": "KeyError in planted.py: check",
    "WRONG": "the result is wrong",
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_planted_fault_is_found_shrunk_and_named(way: str, capsys: pytest.CaptureFixture[str]) -> None:
    target = f"tests.fuzz.planted:{way}"
    limit = 0.3 if way == "HANG" else 60.0
    cases = 8 if way == "HANG" else 30
    record = Campaign(Settings(target, seed=5, cases=cases, limit=limit)).run()
    failing = [n for n in range(cases) if _fails(drawn(load(target), 5, n))]
    assert record.faults == {WAYS[way]: len(failing)}
    assert record.cases == {"best": cases}
    (failure,) = record.failures
    assert failure.number == failing[0]
    assert failure.case == {"size": 7, "colour": "red", "noise": 0}
    printed = capsys.readouterr().out
    assert f"FAULT {WAYS[way]}" in printed
    _replay(printed, limit)
    assert f"FAULT {WAYS[way]}" in capsys.readouterr().out


def _fails(case: dict[str, object]) -> bool:
    return case["colour"] == "red" and int(str(case["size"])) >= 7


def _replay(printed: str, limit: float) -> None:
    """Run both commands that were printed; both must fail."""
    commands = [line.split(": ", 1)[1].strip() for line in printed.splitlines() if "python -m tests.fuzz" in line]
    assert len(commands) == 2
    for command in commands:
        words = shlex.split(command)
        assert words[:3] == ["python", "-m", "tests.fuzz"]
        assert main([*words[3:], "--limit", str(limit)]) == 1


def test_a_run_without_faults_counts_what_it_covered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = "tests.fuzz.planted:NOTHING"
    assert main([target, "--seed", "3", "--cases", "40", "--isas", "generic", "--record", str(tmp_path)]) == 0
    cases = [drawn(load(target), 3, n) for n in range(40)]
    record = json.loads((tmp_path / "fuzzing.jsonl").read_text())
    assert record["cases"] == {"generic": 40}
    assert record["covered"]["colour: red"] == sum(case["colour"] == "red" for case in cases)
    assert record["largest"] == {"size": max(case["size"] for case in cases)}
    assert (record["seed"], record["faults"]) == (3, {})
    assert "seed 3" in capsys.readouterr().out


def test_cases_depend_on_seed_and_number_alone() -> None:
    target = load("tests.fuzz.planted:NOTHING")
    assert drawn(target, 1, 7) == drawn(target, 1, 7) != drawn(target, 2, 7)
    assert drawn(target, 1, 7) != drawn(target, 1, 8)
