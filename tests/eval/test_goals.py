"""The pages show every goal of savings and of cold steps with what was reached, and what has no record."""

from __future__ import annotations

import math
from typing import Any

import pytest

from eval.report.blocks import Block, Paragraph, Table, by_shape
from eval.report.records import read
from eval.report.sections import goals
from eval.shared.common import RESULTS

from ..support.report_records import contender, speed, timing


def saved(group: str, got: float | None, least: float = 0.98) -> dict[str, Any]:
    verdict = "n/a" if got is None else "PASS" if got >= least else "MISS"
    return {"group": group, "goals": [{"goal": "times as fast", "got": got, "least": least, "verdict": verdict}]}


def table_and_words(blocks: list[Block]) -> tuple[dict[str, tuple[str, ...]], str]:
    (found,) = (one for one in blocks if isinstance(one, Table))
    told = " ".join(one.text for one in blocks if isinstance(one, Paragraph))
    return {row[0]: row[1:] for row in found.cells}, told


def test_streams_are_judged_one_by_one_and_by_their_mean() -> None:
    records = [saved("resemblyzer", 1.05, 2.0), saved("pjm", 4.0), saved("charrnn-bolano", None)]
    rows, told = table_and_words(goals.of_savings(records, "stream"))
    assert rows["resemblyzer"] == ("times as fast", "1.05", "at least 2.00", "*MISS")
    assert rows["pjm"][-1] == "PASS"
    assert rows["charrnn-bolano"][1:] == ("n/a", "at least 0.98", "n/a")
    assert rows["all 2 streams"] == ("geometric mean, times as fast", "2.049", "at least 1.50", "PASS")
    assert "Too noisy to tell: charrnn-bolano." in told
    assert "Without a record: beatnet, " in told
    assert "turbofan" not in told  # no stream
    assert "pjm" not in told


@pytest.mark.parametrize(("third", "verdict"), [(1.14, "*MISS"), (1.15, "PASS")])
def test_three_real_models_are_to_gain(third: float, verdict: str) -> None:
    """Two of one family count once, and what has no goals has no part in it."""
    gains = {"pyannote": 1.6, "nnsplit-de": 1.3, "nnsplit-en": 1.2, "arabic": third, "chemnet": 0.9}
    records = [*(saved(name, got) for name, got in gains.items()), {"group": "fsdd-digits"}]
    rows, told = table_and_words(goals.of_savings(records, "sequence"))
    (of_all,) = (row for name, row in rows.items() if "turbofan" in name)
    assert of_all == ("how many are 1.15 times as fast", "3" if verdict == "PASS" else "2", "at least 3.00", verdict)
    assert "turbofan" in told


def test_records_without_goals_have_no_table() -> None:
    assert goals.of_savings([{"group": "pjm"}], "sequence") == []


def cold(hidden: int, name: str, **against: float) -> dict[str, Any]:
    speeds = {base.replace("_", " "): speed(median) for base, median in against.items()}
    return {**contender(name), "H": hidden, "seconds": timing(1e-4), "speed": speeds}


def test_cold_steps_are_judged() -> None:
    records = [
        cold(256, "adaptive int8", ORT_int8=1.9), cold(256, "int8 + delta 20%", adaptive_int8=2.0),
        cold(256, "adaptive int8, ahead", adaptive_int8=2.0), cold(512, "adaptive int8", ORT_int8=1.1),
        cold(128, "adaptive int8", ORT_int8=0.5), cold(64, "ORT int8", ORT_int8=1.0),
    ]  # fmt: skip
    found = goals.of_cold_steps(by_shape(records).items())
    assert found is not None
    assert [row[1:] for row in found.cells] == [
        ("adaptive int8, times as fast as ORT int8", "1.9", "at least 1.50", "PASS"),
        ("int8 + delta 20%, share of the time of adaptive int8", "0.5", "at most 0.35", "*MISS"),
        ("adaptive int8, ahead, share of the time of adaptive int8", "0.5", "at most 0.60", "PASS"),
        ("adaptive int8, times as fast as ORT int8", "1.1", "at least 1.30", "*MISS"),
    ]
    assert goals.of_cold_steps(by_shape(records[4:]).items()) is None


def test_the_pages_tell_what_the_records_say() -> None:
    """Every goal in the records is a row, whatever its verdict."""
    some = [r for r in read(RESULTS).of("savings") if r["case"] == "latency, stream"]
    blocks = goals.of_savings(some, "stream")
    rows, _ = table_and_words(blocks)
    got = {r["group"]: goal for r in some for goal in r["goals"]}
    assert {name for name, row in rows.items() if row[-1] == "*MISS" and name in got} == {
        name for name, goal in got.items() if goal["verdict"] == "MISS"
    }
    known = [math.log(goal["got"]) for goal in got.values() if goal["got"] is not None]
    assert float(rows[f"all {len(known)} streams"][1]) == pytest.approx(math.exp(sum(known) / len(known)), rel=1e-3)
