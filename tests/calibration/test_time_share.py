"""Policies are chosen by the clock: what is measured slow is never returned, what is returned is so again."""

from __future__ import annotations

import copy
import functools
import itertools
import random
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import adaptive_lstm as al
from adaptive_lstm import bench, progress
from adaptive_lstm.calibration.time_budget import TimeBudget
from adaptive_lstm.calibration.workload import Use
from adaptive_lstm.errors import CalibrationError, InputError
from adaptive_lstm.policies import Parts
from adaptive_lstm.policies.combined import acts

from ..support.helpers import torch_lstm
from ..support.small_task import OPTIONS, I, adapted_classifier, drawn, unchanged
from ..support.virtual_clock import VirtualClock

BY_TIME = OPTIONS | {"objective": "latency"}
Seconds = Callable[[Parts], float]


def compressed() -> Any:
    """An adapted classifier in int8."""
    model = adapted_classifier(2)
    al.compress(model, quantize=al.Quantize("int8"))
    return model


def families(model: Any) -> list[Any]:
    """One that holds timesteps and one that exits."""
    return [al.SkipTimesteps, al.Family(al.ExitInTime, head=model.head, check_every=2)]


def calibrated(
    monkeypatch: pytest.MonkeyPatch, clock: Seconds, in_search: Seconds | None = None, **options: Any
) -> Any:
    """A calibration by a virtual clock, and the model."""
    model = compressed()
    with monkeypatch.context() as patch:
        VirtualClock(patch, clock, in_search)
        found = al.calibrate(model, drawn(240), **(BY_TIME | {"policies": families(model)} | options))
    return found, model


def test_what_skips_and_is_slow_is_never_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    found, model = calibrated(monkeypatch, lambda policy: 1.25 if policy.acts else 1.0)
    assert found.certified
    assert not acts(found.policy)
    assert found.time is None
    assert found.certificate.savings == {"macs": 1.0, "time": 1.0, "time_quartiles": [1.0, 1.0]}
    told = found.certificate.finalists
    kept = [p for p in found.frontier if p.macs < 1 and p.search_risks[0] <= 0.1]
    assert told["kept_limits"] == len(kept) > 0
    assert told["fastest"]["median"] == pytest.approx(1.25)
    assert told["timed"] == 12
    text = str(found.certificate)
    assert f"{len(kept)} candidates that skip kept the limits in the search, and 12 of them were timed" in text
    assert "the fastest of these: SLOWER: 1.25 times as long as with nothing skipped" in text
    assert not acts(found.apply(copy.deepcopy(model)).lstm.policy)


@pytest.mark.parametrize("misled", [False, True])
def test_the_choice_follows_the_clock_and_not_the_work(monkeypatch: pytest.MonkeyPatch, misled: bool) -> None:
    """Holding timesteps skips far more work here; only exits save time, even if the search predicts the opposite."""

    def seconds(policy: Parts) -> float:
        return 3.0 if policy.hold else 0.6 if policy.time_exit else 1.0

    opposite: Seconds = lambda policy: 0.3 if policy.hold else 2.0 if policy.time_exit else 1.0  # noqa: E731
    found, model = calibrated(monkeypatch, seconds, opposite if misled else None)
    (chosen,) = (p for p in found.frontier if p.name == found.certificate.policy)
    assert chosen.certified
    assert chosen.time is not None
    assert chosen.time.median == pytest.approx(0.6)
    assert "hold" not in found.certificate.policy
    assert min(found.frontier, key=lambda p: p.macs).name != chosen.name
    assert found.certificate.savings["time"] == pytest.approx(0.6)
    assert "time left: 60%" in str(found.certificate)
    slow = [p.time for p in found.frontier if p.time is not None and p.time.slower]
    assert slow
    assert all("SLOWER: 3.00 times" in str(share) for share in slow)
    # The same measurement gives the same share again.
    with monkeypatch.context() as patch:
        VirtualClock(patch, seconds)
        again = al.time_policy(found.apply(model), [x for x, _ in drawn(5)])
    assert again.median == pytest.approx(found.time.median)
    assert (again.use, again.isa, again.threads) == ("sequence", al.backend_info().isa, torch.get_num_threads())


@pytest.mark.parametrize(("min_gain", "returned"), [(0.05, False), (0.02, True), (0.0, True)])
def test_the_least_gain(monkeypatch: pytest.MonkeyPatch, min_gain: float, returned: bool) -> None:
    found, _ = calibrated(monkeypatch, lambda policy: 0.97 if policy.acts else 1.0, min_gain=min_gain)
    assert acts(found.policy) is returned


def test_a_clock_that_jumps_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """On average the policies take half the time, but no measurement is quiet enough to say so."""
    jump = random.Random(0).uniform
    found, _ = calibrated(monkeypatch, lambda policy: (0.5 if policy.acts else 1.0) * 10 ** jump(-2, 2))
    assert not acts(found.policy)


def test_use_decides_what_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps save time and calls lose it: a stream is given the policy, a sequence is not."""
    step, serve = al.Stream.step, al.AdaptiveLSTM._serve

    def run(use: Use) -> Any:
        model = compressed()
        with monkeypatch.context() as patch:
            clock = VirtualClock(patch, lambda policy: 1e-9)

            def timed_step(stream: al.Stream, x: torch.Tensor) -> torch.Tensor:
                clock.now += 600 if stream._executor.policy.acts else 1000
                return step(stream, x)

            def timed_serve(lstm: al.AdaptiveLSTM, *args: Any) -> Any:
                clock.now += 90_000 if acts(lstm.policy) else 50_000
                return serve(lstm, *args)

            patch.setattr(al.Stream, "step", timed_step)
            patch.setattr(al.AdaptiveLSTM, "_serve", timed_serve)
            return al.calibrate(model, drawn(240), **BY_TIME, policies=families(model), use=use)

    stream, sequence, batch = run("stream"), run("sequence"), run("batch")
    assert stream.time.median == pytest.approx(0.6)
    assert stream.time.use == stream.certificate.savings["use"] == "stream"
    assert sequence.time is batch.time is None
    assert batch.certificate.finalists["fastest"]["use"] == "batch"


def test_a_stream_is_given_what_it_can_run() -> None:
    """An exit in depth decides on whole sequences or on timesteps: for streams only the second is searched."""
    model = compressed()
    exits: list[Any] = [al.Family(al.ExitInDepth, head=model.head), al.Delta]
    found = al.calibrate(model, drawn(240), **(OPTIONS | {"objective": "macs"}), policies=exits, use="stream")
    assert found.certified
    with al.stream(found.apply(model, force=True).lstm) as stream:
        assert stream.step(torch.zeros(1, I)).isfinite().all()


def test_a_file_tells_of_another_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found, model = calibrated(monkeypatch, lambda policy: 0.5 if policy.acts else 1.0)
    served = found.apply(model)
    al.save(served, tmp_path / "here.alstm", certificate=found.certificate)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        al.load(tmp_path / "here.alstm", served)
    monkeypatch.setattr(bench, "cpu_model", lambda: "Another CPU")
    with pytest.warns(
        UserWarning, match=r"timed on .*: time left: 50%.* This is Another CPU .*measure it here"
    ) as told:
        al.load(tmp_path / "here.alstm", served)
    assert len(told) == 1
    assert told[0].filename == __file__


def test_apply_refuses_what_is_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    found, model = calibrated(monkeypatch, lambda policy: 78.2 if policy.acts else 1.0, objective="macs")
    assert acts(found.policy)  # it was to save multiply-accumulates
    assert found.time.slower
    assert "SLOWER: 78.20 times as long as with nothing skipped" in str(found.certificate)
    with unchanged(model), pytest.raises(InputError, match=r"SLOWER: 78\.20 times .*force=True"):
        found.apply(model)
    assert found.apply(model, force=True).lstm.policy is found.policy


def test_no_gain_measured_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A little slower, by less than the clock can tell: applied as asked, and no text reads as a saving."""
    calls = itertools.count()
    jump = [0.97] * 6 + [1.07] * 9  # of the rounds, in each of which the model runs 12 times

    def seconds(policy: Parts) -> float:
        return jump[next(calls) // 12 % len(jump)] if policy.acts else 1.0

    found, model = calibrated(monkeypatch, seconds, objective="macs")
    assert found.time.p25 < 1 < found.time.median
    for text in (str(found.time), str(found.certificate)):
        assert re.search(r"no gain measured: 1\.0\d times as long as with nothing skipped \(quartiles", text)
        assert "time left" not in text
    assert acts(found.apply(model).lstm.policy)


def test_the_test_split_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = compressed(), drawn(240)
    splits = al.Splits(data[:60], data[60:120], data[120:])
    seen: set[int] = set()
    measure, forward = bench.measure, type(model).forward

    def seeing(module: Any, x: torch.Tensor) -> Any:
        seen.add(x.data_ptr())
        return forward(module, x)

    def watched(contenders: Any, **options: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(type(model), "forward", seeing)
            return measure(contenders, **options)

    monkeypatch.setattr(bench, "measure", watched)
    al.calibrate(model, splits, **BY_TIME, policies=[al.SkipTimesteps])
    assert seen
    assert seen <= {x.data_ptr() for x, _ in splits.search}


@pytest.mark.parametrize(
    "data",
    [
        drawn(100)[:50] + [(x[:, :1], y) for x, y in drawn(100)[50:]],  # one timestep
        drawn(101),  # a search split of one
    ],
)
def test_odd_sequences_are_timed(data: Any) -> None:
    model = compressed()
    splits = al.Splits(data[:30], data[30 : 31 if len(data) == 101 else 40], data[-60:])
    assert al.calibrate(model, splits, **BY_TIME, policies=[al.SkipTimesteps]).certificate is not None


def test_no_candidate_within_the_limit() -> None:
    """Nothing is timed, and nothing is said of a fastest one."""
    always = al.losses.Loss("always", lambda *_: 1.0, lambda _: True)
    found = al.calibrate(compressed(), drawn(240), **(BY_TIME | {"loss": always}), policies=[al.SkipTimesteps])
    assert not found.certified
    assert found.certificate.finalists is None


def test_time_policy_of_any_use() -> None:
    model, inputs = compressed(), [x for x, _ in drawn(3)]
    model.lstm.policy = al.Delta.uniform(0.1)
    uses: tuple[Use, ...] = ("sequence", "stream", "batch")
    for use in uses:
        with unchanged(model):
            share = al.time_policy(model, inputs, use=use, rounds=4)
        assert share.rounds in (4, 8, 12)
        assert 0 < share.p25 <= share.median <= share.p75


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"use": "streams"}, "use: got 'streams', expected one of 'sequence', 'stream', 'batch'"),
        ({"use": "stream", "model": "bidirectional"}, "lstm is bidirectional and cannot stream"),
        ({"inputs": []}, "inputs: got none"),
        ({"inputs": torch.zeros(1, 3, I)}, "inputs: got Tensor, expected a list"),
        ({"rounds": 3}, "rounds: got 3, expected a whole number from 4"),
        ({"rounds": 20.5}, "rounds: got 20.5"),
        ({"rounds": "20"}, "rounds: got '20'"),
        ({"model": "plain"}, "holds no AdaptiveLSTM"),
    ],
)
def test_time_policy_refuses(arguments: dict[str, Any], message: str) -> None:
    models: dict[str | None, Callable[[], Any]] = {
        None: compressed,
        "bidirectional": lambda: al.adapt(torch.nn.ModuleDict({"lstm": torch_lstm(I, 6, bidirectional=True)}).eval()),
        "plain": lambda: torch_lstm(I, 6),
    }
    options: dict[str, Any] = {"inputs": [x for x, _ in drawn(2)]} | arguments
    model = models[options.pop("model", None)]()
    with pytest.raises(InputError, match=message):
        al.time_policy(model, options.pop("inputs"), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"use": "steps"}, "use: got 'steps'"),
        ({"min_gain": 1.0}, "min_gain: got 1.0, expected a share"),
        ({"min_gain": "5 %"}, "min_gain: got '5 %'"),
        ({"seconds": 0}, "seconds: got 0, expected a number above 0"),
        ({"seconds": float("nan")}, "seconds: got nan"),
    ],
)
def test_calibrate_refuses(options: dict[str, Any], message: str) -> None:
    model = compressed()
    with unchanged(model), pytest.raises(InputError, match=message):
        al.calibrate(model, drawn(100), **(BY_TIME | options), policies=[al.SkipTimesteps])


def test_too_little_time_is_said_at_once() -> None:
    with pytest.raises(
        CalibrationError, match=r"seconds: got 0\.001, but this model and these sequences need at least"
    ):
        al.calibrate(compressed(), drawn(240), **BY_TIME, seconds=0.001, policies=[al.SkipTimesteps])


def test_a_budget_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of the budget runs out in the search: fewer candidates run, and one is certified all the same."""
    ask = functools.partial(calibrated, monkeypatch, lambda policy: 0.5 if policy.acts else 1.0)
    whole, _ = ask()
    monkeypatch.setattr(progress, "time", SimpleNamespace(perf_counter=itertools.count().__next__))
    short, _ = ask(seconds=30)
    assert 1 < short.certificate.candidates["searched"] < whole.certificate.candidates["searched"]
    assert short.certified


def test_a_budget() -> None:
    budget = TimeBudget(None)
    budget.require(1e9)
    assert not budget.part(10).passed()
    assert not budget.part().passed()
    with pytest.raises(CalibrationError):
        TimeBudget(5).require(6)
