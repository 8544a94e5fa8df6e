"""The scripts of ``eval/`` on the smallest stacks: what their records say, and that they notice what is wrong.

Times on a busy machine say nothing, so no test here compares two of them.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import adaptive_lstm as al
from adaptive_lstm.bench import Timing
from adaptive_lstm.peers import Unavailable
from eval import bulk, cores, long_stream, savings, scaling, streaming, throughput
from eval.footprint import __main__ as footprint
from eval.shared import common

from ..support.eval_records import Record, Run, assert_quantiles, of
from ..support.helpers import torch_lstm


@pytest.fixture(autouse=True, scope="module")
def _little_garbage() -> Iterator[None]:
    """Every measurement collects garbage first, and need not walk over all that was imported."""
    gc.freeze()
    yield
    gc.unfreeze()


def test_a_run_that_was_broken_off_knows_its_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert common.recorded(tmp_path, "savings") == frozenset()
    for commit, case in (("abc1234", "latency"), ("def5678", "latency, stream")):
        monkeypatch.setattr(common, "commit", lambda commit=commit: commit)
        common.write_results(tmp_path, "savings", [{"group": "pjm", "case": case}])
    assert common.recorded(tmp_path, "savings") == {("pjm", "latency, stream")}


@pytest.mark.parametrize(("fastest", "verdict"), [(0.05, "n/a"), (-0.03, "MISS")])
def test_a_goal_is_missed_only_where_the_quartiles_agree(fastest: float, verdict: str) -> None:
    [goal] = savings.goals("pjm", "sequence", {"saved": -0.04, "saved_quartiles": [-0.1, fastest]})
    assert goal["verdict"] == verdict
    [goal] = savings.goals("pjm", "sequence", {"saved": 0.0, "saved_quartiles": [-0.1, fastest]})
    assert goal["verdict"] == "PASS"


@pytest.mark.skipif(shutil.which("git") is None, reason="no git")
def test_records_say_which_code_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> str:
        who = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.org")
        return subprocess.run(
            ("git", *who, *arguments), cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    monkeypatch.setattr(common, "ROOT", tmp_path / "eval")
    results = tmp_path / "eval" / "results"
    results.mkdir(parents=True)
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert common.commit() == "unknown"
    (tmp_path / "code.py").write_text("1\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    name = git("rev-parse", "--short", "HEAD").strip()
    (results / "new.jsonl").write_text("{}\n")
    assert common.commit() == name
    (tmp_path / "code.py").write_text("2\n")
    assert common.commit() == f"{name}-dirty"


# ------------------------------------------------------------------------------------------------------- streaming


def test_streaming(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "MOST", 8)
    found = run(
        streaming.main, "--quick", "--shapes", "4,8,1", "--peers", "torch,ORT", "--rate", "10", "--between", "1"
    )
    everyone = {"torch", "ORT", "adaptive fp32", "adaptive int8", "int8 + delta 50%"}
    steps, streams = of(found, "step"), of(found, "streams")
    assert {record["contender"] for record in steps.values()} == everyone
    for record in steps.values():
        assert_quantiles(record["seconds"])
        assert record["seconds"]["calls"] == 1  # single steps: an average has no tail
        assert (record["I"], record["H"], record["L"], record["batch"], record["threads"]) == (4, 8, 1, 1, 1)
        assert record["speed"].keys() == {"torch", "ORT"}
    ours = {"adaptive fp32", "adaptive int8", "int8 + delta 50%", "int8 + delta 20%"}
    cold = of(found, "cold")
    assert {record["contender"] for record in cold.values()} == {"torch", "ORT", *ours, *(f"{n}, ahead" for n in ours)}
    for record in cold.values():
        for timing in ("warm", "seconds", "reading"):
            assert_quantiles(record[timing])
        assert record["between"] == 1 << 20
        assert record["speed"].keys() == {"torch", "ORT", "adaptive int8"}
    assert {(record["contender"], record["way"]) for record in streams.values()} == {
        (name, way) for name in everyone for way in ("one by one", "batched")
    }
    for record in streams.values():
        assert record["period"] == 0.1
        assert record["counts"] == [8]  # as many as may be tried: all of them are far from busy
        assert (record["streams"], record["streams_per_core"], record["meaningful"]) == (8, 8, True)
        assert record["batch"] == (8 if record["way"] == "batched" else 1)
        assert record["tick"]["p99"] <= record["period"]


@pytest.mark.parametrize(
    ("counts", "meaningful"), [((100, 104, 98), True), ((100, 20, 104), False), ((0, 0, 0), False)]
)
def test_searches_that_disagree_are_marked(counts: tuple[int, ...], meaningful: bool) -> None:
    fleet, options = streaming.Fleet(Counting([]), 4, "one by one"), argparse.Namespace(rate=100.0, threads=1)
    record = streaming.capacity(fleet, [(count, None) for count in counts], (4, 8, 1), options)
    assert record["counts"] == list(counts)
    assert record["streams"] == sorted(counts)[1]
    assert record["meaningful"] is meaningful


@pytest.mark.parametrize("capacity", [0, 1, 2, 3, 37, 64, 1000, 10**9])
def test_search_finds_the_capacity(capacity: int) -> None:
    tried, searching = [], streaming.searching()
    try:
        count = next(searching)
        while True:
            tried.append(count)
            count = searching.send(count <= capacity)
    except StopIteration as stop:
        found = stop.value
    assert found == max((n for n in tried if n <= capacity), default=0)
    largest = min(capacity, streaming.MOST)
    assert largest - largest // streaming.BISECT - 1 <= found <= largest
    assert found == capacity or capacity > 2 * streaming.BISECT
    assert len(tried) < 25


def test_trial_knows_what_is_in_time() -> None:
    late = streaming.trial(lambda: time.sleep(2e-3), period=1e-3, ticks=500)
    assert late.p99 > 1e-3
    assert len(late.samples) == streaming.PILOT  # no long trial for what cannot pass
    in_time = streaming.trial(lambda: None, period=0.5, ticks=30)
    assert in_time.p99 <= 0.5
    assert len(in_time.samples) == 30


@dataclass(frozen=True)
class Counting:
    """A contender whose streams count their steps."""

    made: list[list[int]]
    name: str = "counting"
    precision: str = "fp32"
    nbytes: int | None = None

    def whole(self, x: Tensor) -> Callable[[], Any]:
        raise NotImplementedError

    def steps(self, x: Tensor) -> Callable[[], Any]:
        return self.whole(x)

    def stream(self, x: Tensor) -> Callable[[], Any]:
        mine = [x.shape[0], 0]
        self.made.append(mine)

        def step() -> None:
            mine[1] += 1

        return step


def test_contenders_without_batches_serve_one_by_one() -> None:
    fleets, unavailable = streaming.fleets_of([Counting([], "ncnn"), Counting([])], 4)
    ways = [(fleet.who.name, fleet.way) for fleet in fleets]
    assert ways == [("ncnn", "one by one"), ("counting", "one by one"), ("counting", "batched")]
    assert unavailable == [Unavailable("ncnn, batched", streaming.UNBATCHED["ncnn"])]


def test_a_tick_advances_every_stream_once() -> None:
    who = Counting([])
    fleet = streaming.Fleet(who, 3, "one by one")
    fleet.tick(2)()
    fleet.tick(5)()
    assert who.made == [[1, 2], [1, 2], [1, 1], [1, 1], [1, 1]]  # five streams, two of them served twice
    batched = Counting([])
    streaming.Fleet(batched, 3, "batched").tick(7)()
    assert batched.made == [[7, 1]]


# ------------------------------------------------------------------------------------------------------ throughput


def test_throughput(run: Run) -> None:
    arguments = ("--quick", "--shapes", "3,8,1", "--batches", "1", "4", "--peers", "ORT", "--threads", "1")
    found = run(throughput.main, *arguments)
    assert {(r["batch"], r["contender"], r["form"]) for r in found} == {
        (size, name, form)
        for size in (1, 4)
        for name, forms in (
            ("torch", ("padded", "packed")),
            ("ORT", ("padded",)),
            ("adaptive fp32", ("padded", "packed")),
            ("adaptive int8", ("padded", "packed")),
            ("adaptive int8, 64 levels", ("padded", "packed")),
        )
        for form in forms
    }
    for record in found:
        assert_quantiles(record["seconds"])
        sequences = record["lengths"]["sequences"]
        assert record["sequences_per_second"] == pytest.approx(sequences / record["seconds"]["median"])
        assert (record["lengths"]["padding"] > 0) == (record["batch"] > 1)


def test_lengths_follow_their_law() -> None:
    found = sorted(throughput.lengths(999))
    assert found[499] == throughput.MEDIAN
    assert throughput.SHORTEST <= found[0] < found[-1] == throughput.LONGEST
    one_sigma = math.exp(throughput.SIGMA)  # 16 % of a normal law lie beyond it, on either side
    assert found[159] == pytest.approx(throughput.MEDIAN / one_sigma, rel=0.02)
    assert found[839] == pytest.approx(throughput.MEDIAN * one_sigma, rel=0.02)
    assert throughput.lengths(16) != sorted(throughput.lengths(16))


def test_a_broken_peer_is_caught() -> None:
    lstm, batches = torch_lstm(3, 8, batch_first=True), throughput.batches(3, 8)
    options = argparse.Namespace(peers=("torch",))
    with torch.no_grad():
        ways, _ = throughput.ways(lstm, batches, options, 1)
        right, wrong = throughput.check(ways, lstm, batches)
        assert (len(right), wrong) == (len(ways), [])
        other = tuple(lambda call=call: call() + 0.5 for call in ways[0].batches)
        nan = tuple(lambda call=call: call() * math.nan for call in ways[0].batches)
        for calls in (other, nan):
            broken = throughput.Way("broken", "padded", "fp32", False, calls)
            right, wrong = throughput.check([*ways, broken], lstm, batches)
            assert right == ways
            assert [one.name for one in wrong] == ["broken, padded"]
            assert "differs from torch fp32" in wrong[0].reason
        with pytest.raises(RuntimeError, match="own runtime is wrong"):
            throughput.check([throughput.Way("ours", "padded", "fp32", True, other)], lstm, batches)


# ------------------------------------------------------------------------------------------------------------ bulk


def test_bulk(run: Run) -> None:
    arguments = ("--quick", "--shapes", "3,8,1", "--sequences", "9", "--tokens", "128", "--threads", "1")
    found = run(bulk.main, *arguments)
    assert [(record["contender"], record["way"]) for record in found] == [
        ("torch", "one by one"),
        ("torch", "sorted"),
        ("adaptive fp32", "one by one"),
        ("adaptive fp32", "mapped"),
        ("adaptive int8", "one by one"),
        ("adaptive int8", "mapped"),
    ]
    for record in found:
        assert_quantiles(record["seconds"])
        assert (record["sequences"], record["timesteps"]) == (9, sum(throughput.lengths(9)))
        assert record["timesteps_per_second"] == pytest.approx(record["timesteps"] / record["seconds"]["median"])
        assert record["speed"].keys() == set(bulk.BASES)


def test_bulk_times_nothing_that_is_wrong() -> None:
    plain, sequences = torch_lstm(3, 8, batch_first=True), list(torch.randn(3, 4, 3))
    with torch.no_grad():
        found = bulk.passes(plain, sequences, 9, 1)
        bulk.check(found, plain, sequences)
        mapped = found[-1]
        for wrong in (lambda y: y[::-1], lambda y: [*y[:-1], y[-1] * math.nan]):
            broken = bulk.Pass("ours", "mapped", "int8", lambda wrong=wrong: wrong(mapped.run()))  # type: ignore[misc]
            with pytest.raises(RuntimeError, match="ours, mapped differs from torch"):
                bulk.check([broken], plain, sequences)


# --------------------------------------------------------------------------------------------------------- scaling


def test_scaling_is_saved(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "DEPTH_WIDTH", 8)
    sizes = ("--widths", "8", "16", "--depths", "1", "2", "--lengths", "1", "50", "--length-widths", "8")
    found = run(scaling.main, "--peers", "torch", *sizes)
    who = {"torch", "adaptive fp32", "adaptive int8"}
    for group, count in (("width", 2), ("depth", 2), ("length", 2), ("fixed", 1)):
        records = of(found, group).values()
        assert {record["contender"] for record in records} == who
        assert len(records) == count * len(who)
    for record in found:
        if record["group"] == "fixed":
            assert record["fixed"].keys() == {"p25", "median", "p75", "meaningful"}
            assert record["per_step"]["median"] > 0
            continue
        assert_quantiles(record["seconds"])
        cell_steps = record["L"] * record["T"]
        assert record["per_cell_step"] == pytest.approx(record["seconds"]["median"] / cell_steps)
    saved = [json.loads(line) for line in (tmp_path / "scaling.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(r["group"], r["case"]) for r in saved] == [(r["group"], r["case"]) for r in found]
    assert all({"machine", "versions", "commit"} <= record.keys() for record in saved)


def test_line_recovers_what_a_call_costs() -> None:
    lengths = (1, 10, 100, 1000)

    def timings(fixed: list[float]) -> list[Timing]:
        return [Timing("a", tuple(f + 2e-6 * n for f in fixed), 1, 1) for n in lengths]

    found = scaling.line(lengths, timings([4e-6, 5e-6, 6e-6]))
    assert found.fixed == pytest.approx((4.5e-6, 5e-6, 5.5e-6))
    assert found.per_step == pytest.approx((2e-6,) * 3)
    assert found.misfit == pytest.approx(0, abs=1e-9)
    assert found.meaningful
    assert not scaling.line(lengths, timings([1e-6, 5e-6, 20e-6, 90e-6])).meaningful
    assert not scaling.line(lengths, timings([-3e-7, -3e-7, -3e-7])).meaningful


# ----------------------------------------------------------------------------------------------------------- cores


def test_cores_are_compared(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    case = cores.Case(5, 9, 3, 2, 40, goal=1.5)
    monkeypatch.setattr(cores, "GROUPS", {"long": (case,)})
    fp32, int8 = run(cores.main, "--precisions", "fp32,int8", "--seconds", "1")
    assert (fp32["precision"], int8["precision"]) == ("fp32", "int8")
    for record in (fp32, int8):
        assert record["chosen"] == 1  # too little work to wake another thread
        assert record["speed"].keys() == {"median", "p25", "p75", "rounds"}  # null where they are too far apart
        for timing in record["seconds"].values():
            assert_quantiles(timing)
    assert al.get_num_threads() == torch.get_num_threads()


# ----------------------------------------------------------------------------------------------------- long streams


@pytest.mark.slow
def test_long_stream(run: Run) -> None:
    """Nothing adds up: the second half of 200,000 steps is no worse than the first."""
    found = run(long_stream.main, "--quick")
    assert [record["case"] for record in found] == list(long_stream.CASES)
    for record in found:
        assert record["counted"]
        assert record["steps"] == long_stream.QUICK_STEPS
        (early, late), (early_fresh, late_fresh) = record["reference"], record["fresh"]
        assert late <= max(2 * early, 5e-3 if "int8" in record["case"] else 2e-5)
        assert late_fresh <= 2 * early_fresh
        assert record["growth"] < 4e6


# ------------------------------------------------------------------------------------------------------- footprint


@pytest.mark.slow
def test_footprint(run: Run) -> None:
    runtimes = ("torch", "ORT", "adaptive fp32", "adaptive int8 from file", "adaptive int8 without torch")
    found = run(footprint.main, "--quick", "--shapes", "8,64,1", "--runtimes", ",".join(runtimes))
    told = {record["contender"]: record for record in found}
    assert tuple(sorted(told)) == tuple(sorted(runtimes))
    for record in found:
        assert record["unavailable"] == []
        for stage in ("import", "load", "first", "second", "process"):
            assert_quantiles(record["seconds"][stage])
        whole = sum(record["seconds"][stage]["median"] for stage in ("import", "load", "first", "second"))
        assert record["seconds"]["process"]["p95"] > 0.5 * whole
        memory = record["memory"]
        assert memory["peak"] > memory["after_import"] > memory["python"] > 0
        assert memory["python"] < 60e6  # a fresh process, not what pytest and torch take here
    for slim in ("ORT", "adaptive int8 without torch"):  # which proves that they ran without torch
        assert told[slim]["memory"]["peak"] < told["torch"]["memory"]["peak"]
    assert told["adaptive int8 from file"]["weights"] < 0.5 * told["adaptive fp32"]["weights"]


def test_a_process_that_fails_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def child(kind: str, folder: Path, threads: int) -> Record:
        if kind == "ORT":
            raise ChildProcessError("No module named 'onnxruntime'")
        return {"output": [math.nan if kind == "torch int8" else 0.25]}

    monkeypatch.setattr(footprint, "child", child)
    options = argparse.Namespace(quick=True, threads=1)
    expected = torch.tensor([0.25]).numpy()
    runs, unavailable = footprint.processes(["torch", "torch int8", "ORT"], tmp_path, expected, options)
    assert {kind: len(mine) for kind, mine in runs.items()} == {"torch": footprint.QUICK_REPEATS}
    reasons = {one.name: one.reason for one in unavailable}
    assert reasons["ORT"] == "No module named 'onnxruntime'"
    assert "differs from torch fp32 by nan" in reasons["torch int8"]
