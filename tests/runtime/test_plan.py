"""Everything that is set on a module is one plan; another runner or an observer is there for a block only."""

from dataclasses import replace

import pytest
import torch

import adaptive_lstm as al
from adaptive_lstm.execution.batch import Batch
from adaptive_lstm.execution.runner import Result
from adaptive_lstm.runtime.adapt import keep_settings
from adaptive_lstm.runtime.call import Call
from adaptive_lstm.runtime.monitor import Range

from ..support.helpers import OnReference, adapted, always_native, infer, signal

RATES = {"activity": Range(0.5, 0.1, 40)}


def test_a_plan_sets_everything_at_once() -> None:
    lstm = adapted(5, 9, 2)
    plan = replace(lstm.plan, policy=al.Delta.uniform(0.1), quantize=al.Quantize("int8"), expected_rates=RATES)
    lstm.plan = plan
    assert (lstm.plan, lstm.policy, lstm.quantize, lstm.replaced) == (plan, plan.policy, plan.quantize, None)
    monitor = lstm.monitor
    assert monitor is not None
    assert monitor.expected == RATES
    lstm.quantize = al.Quantize("bf16")
    assert lstm.policy is plan.policy
    assert id(lstm.monitor) == id(monitor)
    lstm.policy = al.Delta.uniform(0.2)
    assert lstm.quantize.precision == "bf16"
    assert lstm.plan.expected_rates is None
    assert lstm.monitor is None


def test_a_plan_that_does_not_fit_changes_nothing() -> None:
    lstm = adapted(5, 9, 1, policy=al.Delta.uniform(0.1))
    before = lstm.plan
    with pytest.raises(al.errors.PolicyError, match="one layer"):
        lstm.plan = replace(before, policy=al.HoldLayers(x_share=0.1), quantize=al.Quantize("int8"))
    with pytest.raises(al.errors.InputError, match=r"expected adaptive_lstm\.Quantize"):
        lstm.plan = replace(before, policy=al.Dense(), quantize="int8")  # type: ignore[arg-type]
    assert lstm.plan is before


def test_settings_are_kept() -> None:
    lstm = adapted(5, 9, 2, policy=al.Delta.uniform(0.1))
    lstm.plan = replace(lstm.plan, expected_rates=RATES)
    x = signal(12, 1, 5)
    y, plan, last, monitor = infer(lstm, x)[0], lstm.plan, lstm.last_run, lstm.monitor
    assert monitor is not None
    with keep_settings([lstm]):
        lstm.policy = al.Delta.uniform(5.0)
        assert not torch.equal(infer(lstm, x)[0], y)
    assert (lstm.plan, lstm.last_run, lstm.monitor) == (plan, last, monitor)
    assert monitor.status.seen == 1
    assert torch.equal(infer(lstm, x)[0], y)


class Ones:
    """Returns ones, and keeps what it was given."""

    def __init__(self) -> None:
        self.given: list[Batch] = []

    def run(self, batch: Batch) -> Result:
        self.given.append(batch)
        ones = torch.ones(2, batch.rows, 9)
        return Result(batch.x.new_ones(*batch.x.shape[:-1], 9), ones, ones, None)


def test_another_runner_for_a_while() -> None:
    lstm, runner = adapted(5, 9, 2, batch_first=True), Ones()
    x, packed = torch.randn(3, 7, 5), torch.nn.utils.rnn.pack_sequence([torch.randn(n, 5) for n in (4, 2)])
    want = infer(lstm, x)[0]
    last = lstm.last_run
    with lstm.run_on(runner):
        lstm.train()  # whatever the mode
        assert torch.equal(lstm(x)[0], torch.ones(3, 7, 9))
        assert torch.equal(lstm(x[0])[0], torch.ones(7, 9))
        assert torch.equal(lstm(packed)[0].data, torch.ones(6, 9))
        lstm.eval()
    assert [(b.rows, b.timesteps, b.batch_first) for b in runner.given] == [(3, 21, True), (1, 7, True), (2, 6, False)]
    assert lstm.last_run == last
    assert torch.equal(infer(lstm, x)[0], want)


def test_an_observer_sees_every_finished_call() -> None:
    lstm, calls = adapted(5, 9, 2, policy=al.Delta.uniform(0.1)), list[Call]()
    x = signal(12, 3, 5)
    with lstm.watched_by(calls.append):
        infer(lstm, x)
        with lstm.run_on(Ones()):
            infer(lstm, x)
    infer(lstm, x)
    (made,) = calls
    assert made.input is x
    assert made.rows == 3
    assert made.seconds > 0
    assert made.stats == lstm.last_run


@pytest.mark.parametrize(
    ("policy", "dtype", "by"),
    [(al.Dense(), torch.float32, "native"), (OnReference(al.Delta.uniform(0.1)), torch.float64, "reference")],
)
def test_statistics_tell_the_threads(policy: al.Policy, dtype: torch.dtype, by: str) -> None:
    lstm = adapted(5, 9, 2, policy=policy).to(dtype)
    with always_native():
        infer(lstm, signal(4, 1, 5).to(dtype))
    stats = lstm.last_run
    assert stats is not None
    expected = by if al.backend_info().backend == "native" or by == "reference" else "torch"
    assert stats.route.by == expected
    assert stats.threads == (1 if expected == "native" else torch.get_num_threads())
