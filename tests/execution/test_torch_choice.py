"""Who serves a batch is settled on real calls, in turn, cheaply, for the process; and not where that is forbidden."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import adaptive_lstm as al
from adaptive_lstm.execution import compiled, torch_choice
from adaptive_lstm.execution.fingerprint import Fingerprint
from adaptive_lstm.execution.native_runner import NativeRunner
from adaptive_lstm.execution.racing import races
from adaptive_lstm.execution.torch_choice import ROUNDS, Contest
from tests.support.helpers import adapted, assert_close, assert_equal, infer

pytestmark = pytest.mark.usefixtures("races")

SIZE = (16, 96, 2)  # above the size from which there is a contest


@pytest.fixture(autouse=True)
def _no_contests(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(torch_choice, "_contests", {})
    races.cache_clear()
    yield
    races.cache_clear()


def played(torch_seconds: float, native_seconds: float, estimate: float | None = None) -> tuple[list[str], str | None]:
    """Who served, and who won."""
    contest = Contest()
    served: list[str] = []
    while contest.winner is None:
        side = contest.turn
        served.append(side)
        contest.served(side, torch_seconds if side == "torch" else native_seconds, 1)
        if contest.wants_corner and estimate is not None:
            contest.estimated(estimate, 1)
    return served, contest.winner


def test_a_contest() -> None:
    turns = ["torch", "native"] * ROUNDS
    assert played(1.0, 0.5) == (turns, "native")
    assert played(1.0, 1.1) == (turns, "torch")
    assert played(1.0, 0.99) == (turns, "torch")  # as good as equal: torch is never slower than itself
    assert played(1.0, 2.0) == (turns[:4], "torch")  # clear after two
    assert played(1.0, 2.0, estimate=1.5) == (turns[:2], "torch")  # the corner says so too
    assert played(1.0, 5.0, estimate=4.0) == (turns[:1], "torch")  # it never serves


def routes(fast: al.AdaptiveLSTM, x: torch.Tensor, calls: int) -> list[str]:
    found: list[str] = []
    for _ in range(calls):
        infer(fast, x)
        assert fast.last_run is not None
        found.append(fast.last_run.route.by)
    return found


def test_real_calls_are_served_in_turn_and_every_one_is_right() -> None:
    fast, x = adapted(*SIZE), torch.randn(40, 8, 16)
    want = infer(lambda x: nn.LSTM.forward(fast, x), x)
    for call in range(2 * ROUNDS):
        assert_close(infer(fast, x), want, "fp32")
        assert fast.last_run is not None
        assert call or fast.last_run.route.by == "torch"
    settled = routes(fast, x, 4)
    assert len(set(settled)) == 1


def test_the_race_runs_a_small_part_only() -> None:
    fast, x = adapted(*SIZE), torch.randn(64, 8, 16)
    fast.executor()
    with (
        mock.patch.object(NativeRunner, "run", autospec=True, side_effect=NativeRunner.run) as runs,
        mock.patch.object(nn.LSTM, "forward", autospec=True, side_effect=nn.LSTM.forward) as forwards,
    ):
        infer(fast, x)
        assert forwards.call_count == 1
        assert sum(call.args[1].timesteps for call in runs.call_args_list) <= x.shape[0] * x.shape[1] // 8
        infer(fast, x)
        assert forwards.call_count + runs.call_count <= 5


def test_results_hold_for_the_process_and_alike_sizes() -> None:
    fast, x = adapted(*SIZE), torch.randn(40, 8, 16)
    routes(fast, x, 2 * ROUNDS + 1)
    (settled,) = set(routes(fast, x, 2))
    again = adapted(*SIZE)
    for other in (x, x[:36], x[:, :7]):  # the same powers of two
        assert routes(again, other, 2) == [settled] * 2
    fast.replan()
    assert routes(fast, x, 1) == [settled]
    assert len(torch_choice._contests) == 1


class Clock:
    """Time that only calls and comparisons of weights take: seconds per batch row and timestep."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, native: float, torch: float = 1.0, compared: float = 0.0):
        self.now, self.native_timesteps = 0.0, 0
        run, forward, followed = NativeRunner.run, nn.LSTM.forward, Fingerprint.followed

        def timed_run(runner: Any, batch: Any) -> Any:
            self.now += native * batch.timesteps
            self.native_timesteps += batch.timesteps
            return run(runner, batch)

        def timed_forward(lstm: Any, x: Any, hx: Any = None) -> Any:
            self.now += torch * x.shape[0] * x.shape[1]
            return forward(lstm, x, hx)

        def timed_followed(fingerprint: Any, *given: Any, **options: Any) -> Any:
            self.now += compared
            return followed(fingerprint, *given, **options)

        monkeypatch.setattr(NativeRunner, "run", timed_run)
        monkeypatch.setattr(nn.LSTM, "forward", timed_forward)
        monkeypatch.setattr(Fingerprint, "followed", timed_followed)
        for module in (torch_choice, compiled):
            monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: self.now))


@pytest.mark.parametrize("shape", [(64, 8, 16), (3, 256, 16)])  # a long call, and a large batch
def test_a_native_side_that_is_far_slower_never_serves(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, native=10.0)
    assert routes(adapted(*SIZE), torch.randn(shape), 4) == ["torch"] * 4
    assert 0 < clock.native_timesteps <= shape[0] * shape[1] // 4  # a corner of one call


@pytest.mark.parametrize(("compared", "winner"), [(0.0, "native"), (0.5, "torch")])
def test_comparing_the_weights_counts(compared: float, winner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fast, x = adapted(*SIZE), torch.randn(40, 8, 16)
    prune.l1_unstructured(fast, "weight_hh_l0", 0.3)  # computes the weight for every call
    Clock(monkeypatch, native=0.8, compared=compared * 40 * 8)
    routes(fast, x, 2 * ROUNDS + 2)
    assert routes(fast, x, 3) == [winner] * 3


@pytest.mark.parametrize("shape", [(1, 2, 16), (4, 8, 16), (1, 8)])
def test_small_calls_are_native_from_the_first(shape: tuple[int, ...]) -> None:
    if al.backend_info().isa == "generic":
        pytest.skip("the generic kernels race at every size")
    fast, x = adapted(shape[-1], 24), torch.randn(shape)
    first = infer(fast, x)
    assert routes(fast, x, 3) == ["native"] * 3
    assert_equal(infer(fast, x), first)


@pytest.mark.parametrize("how", ["off", "deterministic"])
def test_races_can_be_turned_off(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fast, x = adapted(*SIZE), torch.randn(40, 8, 16)
    if how == "off":
        monkeypatch.setenv("ADAPTIVE_LSTM_RACE", "off")
    else:
        torch.use_deterministic_algorithms(True)
    try:
        assert routes(fast, x, 3) == ["native"] * 3
    finally:
        torch.use_deterministic_algorithms(False)
    assert not torch_choice._contests


def test_a_wrong_switch_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAPTIVE_LSTM_RACE", "maybe")
    with pytest.raises(al.errors.BackendError, match="got 'maybe', expected 'on' or 'off'"):
        infer(adapted(*SIZE), torch.randn(40, 8, 16))


@pytest.mark.parametrize("batch_first", [True, False])
def test_warm_up_settles(batch_first: bool) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(16, 96, 2, batch_first=batch_first)
            self.seen = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.seen += 1
            y: torch.Tensor = self.lstm(x)[0]
            return y

    fast = al.adapt(Model().eval())
    (lstm,) = (m for m in fast.modules() if isinstance(m, al.AdaptiveLSTM))
    al.warm_up(fast, [(8, 40), (1, 1)])
    assert lstm.last_run is None
    x = torch.randn((8, 40, 16) if batch_first else (40, 8, 16))
    assert len(set(routes(lstm, x, 4))) == 1
    al.warm_up(fast, [x[..., :5, :], (x[:, :3],)])
    assert fast.seen == 0
    for wrong in ([(0, 4)], [(4, 0)]):
        with pytest.raises(al.AdaptiveLSTMError, match="expected at least 1"):
            al.warm_up(fast, wrong)
    with pytest.raises(al.AdaptiveLSTMError, match="training mode"):
        al.warm_up(fast.train(), [(1, 1)])
    with pytest.raises(al.AdaptiveLSTMError, match="no AdaptiveLSTM"):
        al.warm_up(Model().eval(), [(1, 1)])


@pytest.mark.parametrize("given", ["tensor", "dict", "pair"])
def test_what_is_warmed_up_may_come_alone(given: str) -> None:
    lstm, x = adapted(*SIZE), torch.randn(40, 8, 16)
    alone: Any = {"tensor": x, "dict": {"input": x}, "pair": (8, 40)}[given]
    al.warm_up(lstm, alone)
    assert len(torch_choice._contests) == 1
    assert len(set(routes(lstm, x, 3))) == 1
    assert len(torch_choice._contests) == 1
