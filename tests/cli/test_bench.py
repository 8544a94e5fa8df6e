"""The latency protocol on contenders whose relative cost is known, and what refuses to be a figure."""

import gc
import json
import math
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from adaptive_lstm import backend_info
from adaptive_lstm.bench import Ratio, Timing, format_seconds, machine, measure, pinned_threads, ratio
from eval.shared.common import write_results
from eval.shared.targets import Target, judge, verdict


def timing(*samples: float, name: str = "a", run: int = 1) -> Timing:
    return Timing(name=name, samples=samples, calls=1, run=run)


def logger(log: list[str], name: str, seconds: float = 0.0) -> Callable[[], None]:
    """A contender that writes its name down and takes at least ``seconds``."""

    def call() -> None:
        log.append(name)
        if seconds:
            time.sleep(seconds)

    return call


def test_known_cost_is_found() -> None:
    log: list[str] = []
    found = measure({"short": logger(log, "s", 2e-3), "long": logger(log, "l", 20e-3)}, repeats=7, warmup=1)
    assert 2e-3 <= found["short"].median < 20e-3 <= found["long"].median
    speed = ratio(found["long"], found["short"])
    assert 2 < speed.median < 11  # ten but for what a sleep oversleeps
    assert ratio(found["short"], found["long"]).median < 0.5


def test_every_round_has_every_contender_once_in_changing_order() -> None:
    log: list[str] = []
    names = ("a", "b", "c")
    measure({name: logger(log, name) for name in names}, repeats=40, warmup=0, min_time=0)
    assert log[:3] == list(names)  # one call each to find out how long it takes
    rounds = [tuple(log[start : start + 3]) for start in range(3, len(log), 3)]
    assert len(rounds) == 40
    assert all(sorted(one) == list(names) for one in rounds)
    first = Counter(one[0] for one in rounds)
    assert min(first[name] for name in names) >= 5  # nobody always starts
    assert len({pair for one in rounds for pair in pairwise(one)}) == 6  # and nobody always has the same neighbour


def test_the_order_depends_on_the_seed_alone() -> None:
    def order(seed: int) -> list[str]:
        log: list[str] = []
        contenders = {name: logger(log, name) for name in "abcd"}
        measure(contenders, repeats=10, warmup=1, min_time=0, seed=seed)
        return log

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_warmup_and_priming_are_not_timed() -> None:
    calls = 0

    def slow_at_first() -> None:
        nonlocal calls
        calls += 1
        if calls <= 2:
            time.sleep(0.2)

    found = measure({"x": slow_at_first}, repeats=5, warmup=2, prime=3, min_time=0)["x"]
    assert calls == 2 + 1 + 5 * (3 + 1)
    assert len(found.samples) == 5
    assert max(found.samples) < 0.2


def test_short_calls_are_repeated_within_a_sample() -> None:
    log: list[str] = []
    found = measure({"short": logger(log, "s"), "long": logger(log, "l", 2e-3)}, repeats=5, min_time=1e-3)
    assert found["short"].calls > 10
    assert found["long"].calls == 1
    assert found["short"].median < 1e-4  # seconds per call, not per sample
    assert log.count("s") >= 5 * found["short"].calls


def test_garbage_collection_is_off_while_timing_and_restored_after() -> None:
    seen: list[bool] = []
    measure({"x": lambda: seen.append(gc.isenabled())}, repeats=3, warmup=0, min_time=0)
    assert seen == [True, False, False, False]  # the first call only finds out how long a call takes
    assert gc.isenabled()


def test_an_exception_in_a_contender_is_passed_on() -> None:
    def broken() -> None:
        if not gc.isenabled():
            raise RuntimeError("mid-race")

    with pytest.raises(RuntimeError, match="mid-race"):
        measure({"x": broken}, repeats=1, warmup=0, min_time=0)
    assert gc.isenabled()


def test_quantiles_are_seconds_per_call() -> None:
    one = timing(*(0.001 * k for k in range(1, 102)))
    figures = (one.p05, one.p25, one.median, one.p75, one.p95, one.p99)
    assert figures == pytest.approx((0.006, 0.026, 0.051, 0.076, 0.096, 0.1))
    assert one.as_dict()["median"] == one.median
    assert str(one) == "51 ms (26 ms to 76 ms)"
    assert str(one.per(1000)) == "51 us (26 us to 76 us)"
    json.dumps(one.as_dict())


def test_ratios_are_paired_within_rounds() -> None:
    """A machine that slows down threefold halfway spoils both medians, and no ratio."""
    b = [0.01] * 5 + [0.03] * 5
    drifting = ratio(timing(*(2 * s for s in b), name="a"), timing(*b, name="b"))
    assert (drifting.p25, drifting.median, drifting.p75) == pytest.approx((2, 2, 2))
    assert drifting.meaningful
    assert str(drifting) == "2.00x"


@pytest.mark.parametrize(
    ("samples", "text"),
    [
        ((1, 1, 1, 3, 3, 3), "n/a (spread 1.00 to 3.00, 6 rounds)"),
        ((2, 2, 2), "n/a (spread 2.00 to 2.00, 3 rounds)"),
    ],
    ids=["scattered", "too few rounds"],
)
def test_a_meaningless_ratio_is_refused(samples: tuple[float, ...], text: str) -> None:
    noisy = ratio(timing(*samples), timing(*(1 for _ in samples), name="b"))
    assert not noisy.meaningful
    assert str(noisy) == text
    assert noisy.as_dict()["median"] is None
    assert verdict(noisy, 2.0) == "n/a"


def test_only_contenders_of_one_run_are_divided() -> None:
    first = measure({"a": lambda: None}, repeats=4, min_time=0)["a"]
    second = measure({"b": lambda: None}, repeats=4, min_time=0)["b"]
    with pytest.raises(ValueError, match=r"one measure\(\) call .*'a': run \d+, 4 samples; 'b': run \d+, 4 samples"):
        ratio(first, second)
    with pytest.raises(ValueError, match="2 samples; 'b': run 1, 3 samples"):
        ratio(timing(1, 1), timing(1, 1, 1, name="b"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"repeats": 0}, "repeats must be at least 1, got 0"),
        ({"warmup": -1}, "warmup must be at least 0, got -1"),
        ({"prime": -2}, "prime must be at least 0, got -2"),
        ({"min_time": -1e-3}, "min_time must be a time in seconds, 0 or more, got -0.001"),
        ({"min_time": math.nan}, "min_time must be .* got nan"),
        ({"min_time": math.inf}, "min_time must be .* got inf"),
        ({"contenders": {}}, "no contenders"),
        ({"contenders": {"x": 3}}, "contender 'x' must be callable without arguments, got int"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_bad_arguments_are_named(settings: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"contenders": {"x": lambda: None}, **settings}
    with pytest.raises(ValueError, match=message):
        measure(**arguments)  # type: ignore[arg-type]


def test_threads_are_pinned_and_restored() -> None:
    before = torch.get_num_threads()
    with pinned_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with pytest.raises(KeyError), pinned_threads(before + 1):
        raise KeyError
    assert torch.get_num_threads() == before
    with pytest.raises(ValueError, match="threads must be at least 1, got 0"), pinned_threads(0):
        pass


def test_machine_says_what_was_measured_on() -> None:
    here = machine(backend_info())
    assert {"cpu", "cores", "backend", "isa", "torch", "threads", "platform", "time"} <= here.keys()
    assert here["cpu"]
    assert here["threads"] == torch.get_num_threads()
    json.dumps(here)


def test_times_are_written_with_their_unit() -> None:
    assert [format_seconds(s) for s in (2.1, 1.48e-3, 7.94e-6, 3e-8)] == ["2.1 s", "1.48 ms", "7.94 us", "30 ns"]


def test_a_verdict_needs_more_than_noise() -> None:
    assert verdict(Ratio(median=1.3, p25=1.2, p75=1.4, rounds=9), 1.3) == "PASS"
    assert verdict(Ratio(median=0.95, p25=0.9, p75=0.96, rounds=9), 0.97) == "MISS"
    assert verdict(Ratio(median=0.96, p25=0.9, p75=1.02, rounds=9), 0.97) == "OPEN"
    assert verdict(Ratio(median=15, p25=11, p75=25, rounds=9), 10) == "PASS"  # wide, but all of it on one side
    assert verdict(Ratio(median=0.2, p25=0.1, p75=0.3, rounds=9), 1) == "MISS"
    timings = {"us": timing(1, 1, 1, 1, name="us"), "them": timing(2, 2, 2, 2, name="them")}
    assert judge(Target("us", "them", 3.0), timings)["line"] == "MISS  us against them: 2.00x (at least 3x)"
    assert judge(Target("us", "nobody", 3.0), timings)["verdict"] == "n/a"


def test_results_replace_those_of_the_same_case_only(tmp_path: Path) -> None:
    def kept() -> list[tuple[str, str, int]]:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        assert all({"machine", "versions", "commit"} <= line.keys() for line in lines)
        return [(line["group"], line["case"], line["value"]) for line in lines]

    cases = [{"group": "whole", "case": "A", "value": 1}, {"group": "whole", "case": "B", "value": 2}]
    path = write_results(tmp_path / "results", "latency", cases)
    assert kept() == [("whole", "A", 1), ("whole", "B", 2)]
    write_results(tmp_path / "results", "latency", [{"group": "whole", "case": "A", "value": 3}])
    assert kept() == [("whole", "B", 2), ("whole", "A", 3)]
    assert [one.name for one in path.parent.iterdir()] == ["latency.jsonl"]
