"""A pool of streams against streams of their own: whatever comes when, nothing is lost and nothing is mixed."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule
from torch import nn

import adaptive_lstm as al
from adaptive_lstm.errors import InputError, OverloadError, UnsupportedError
from adaptive_lstm.runtime.monitor import LOOK, Range

from ..support.helpers import adapted
from ..support.policy_cases import DELTA, STACK, depths, head, time_translators

I, H, L = 5, 9, 3  # noqa: E741 (the letter of the input size everywhere)
CAPACITY, BACKLOG, LIMIT, IDLE = 4, 3, 3, 10.0
torch.manual_seed(0)
POLICIES: dict[str, al.Policy] = {
    "dense": al.Dense(),
    "delta": DELTA,
    "skip": al.SkipTimesteps(x_share=0.3, h=0.1),
    "layers": al.HoldLayers(x_share=(0.2, None), mode="queue_input", cap=3),
    "exit in time": al.ExitInTime(head(H), threshold=0.4, translators=time_translators(STACK), check_every=2),
    "exit in depth": depths(STACK, "step")["head"],
    "combined": al.Combined(DELTA, al.SkipTimesteps(x_share=0.2), al.ExitInTime(None, threshold=0.03, window=2)),
    "exit in Python": al.ExitInTime(lambda s: s[:, :3], threshold=0.6, check_every=3),
}
KINDS = [(name, "fp32") for name in POLICIES] + [(name, "int8") for name in list(POLICIES)[:-1]]


def of(policy: al.Policy, quantize: str = "fp32") -> al.AdaptiveLSTM:
    return adapted(I, H, L, policy=policy, quantize=quantize)


def bound(name: str) -> float:
    """Delta on float matrices adds in another order: the raw input's and, in fp32, all others."""
    return 1e-6 if name in ("delta", "combined") else 0.0


class PoolAgainstStreams(RuleBasedStateMachine):
    """Opens, pushes, ticks, closes and moves, against a model: an ``al.stream`` and a list of frames for each."""

    name, quantize = "dense", "fp32"
    streams = Bundle("streams")

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.now = of(POLICIES[self.name], self.quantize), 0.0
        self.pool = al.StreamPool(
            self.lstm, CAPACITY, backlog=BACKLOG, max_batch=LIMIT, idle_timeout=IDLE, clock=lambda: self.now
        )
        self.model: dict[int, tuple[al.Stream, list[torch.Tensor]]] = {}
        self.heard: dict[int, float] = {}
        self.unserved: dict[int, int] = {}
        self.closed: set[int] = set()
        self.draw = torch.Generator().manual_seed(7)

    def expire(self) -> None:
        for stream in [s for s, t in self.heard.items() if self.now - t > IDLE and not self.model[s][1]]:
            self.forget(stream)

    def forget(self, stream: int) -> None:
        del self.model[stream], self.heard[stream]
        self.unserved.pop(stream, None)
        self.closed.add(stream)

    def joined(self, stream: int, alone: al.Stream, frames: list[torch.Tensor]) -> int:
        assert stream not in self.model
        assert stream not in self.closed
        self.model[stream], self.heard[stream] = (alone, frames), self.now
        return stream

    @rule(target=streams)
    def open(self) -> int:
        if len(self.model) == CAPACITY:
            self.expire()
        if len(self.model) == CAPACITY:
            with pytest.raises(OverloadError, match="rows of the pool are taken"):
                self.pool.open()
            return -1
        return self.joined(self.pool.open(), al.stream(self.lstm), [])

    @rule(stream=streams, n=st.integers(0, BACKLOG + 1), calm=st.booleans())
    def push(self, stream: int, n: int, calm: bool) -> None:
        frames = torch.randn(n, I, generator=self.draw) * (0.02 if calm else 1.0)
        if stream not in self.model:
            with pytest.raises(InputError, match=r"closed|never opened"):
                self.pool.push(stream, frames)
            return
        waiting = self.model[stream][1]
        if len(waiting) + n > BACKLOG:
            with pytest.raises(OverloadError, match="backlog"):
                self.pool.push(stream, frames)
            return
        self.pool.push(stream, frames[0] if n == 1 else frames)
        waiting.extend(frames)
        self.heard[stream] = self.now

    @rule()
    def push_each(self) -> None:
        takers = [s for s, (_, waiting) in self.model.items() if len(waiting) < BACKLOG][::-1]
        frames = torch.randn(len(takers), I, generator=self.draw)
        self.pool.push_each(takers, frames)
        for stream, frame in zip(takers, frames, strict=True):
            self.model[stream][1].append(frame)
            self.heard[stream] = self.now

    @rule(into=st.booleans())
    def tick(self, into: bool) -> None:
        self.expire()
        ready = {s for s, (_, waiting) in self.model.items() if waiting}
        if into:
            y = torch.full((2, H), 7.0)
            ran = dict(zip(self.pool.tick_into(y), y, strict=False))
            assert len(ran) == min(2, len(ready))
        else:
            ran = self.pool.tick()
            assert len(ran) == min(LIMIT, len(ready))
        assert ran.keys() <= ready
        for stream in ready:
            self.unserved[stream] = 0 if stream in ran else self.unserved.get(stream, 0) + 1
            assert self.unserved[stream] <= CAPACITY
        for stream, y in ran.items():
            alone, waiting = self.model[stream]
            torch.testing.assert_close(y, alone.step(waiting.pop(0)[None])[0], rtol=0, atol=bound(self.name))

    @rule(stream=consumes(streams))
    def close(self, stream: int) -> None:
        if stream not in self.model:
            with pytest.raises(InputError, match=r"closed|never opened"):
                self.pool.close(stream)
            return
        self.pool.close(stream)
        self.forget(stream)

    @precondition(lambda self: 0 < len(self.model) < CAPACITY)
    @rule(target=streams, data=st.data())
    def move(self, data: Any) -> int:
        """The stream goes on here, and a copy of it elsewhere in the pool."""
        stream = data.draw(st.sampled_from(sorted(self.model)))
        alone, waiting = self.model[stream]
        copy = al.stream(self.lstm)
        copy.state = alone.state
        return self.joined(self.pool.restore(self.pool.snapshot(stream)), copy, list(waiting))

    @rule(seconds=st.sampled_from([1.0, 6.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def look(self) -> None:
        self.expire()
        self.pool.expire()
        for stream, (alone, waiting) in self.model.items():
            stats = self.pool.stream_stats(stream)
            assert stats.waiting == len(waiting)
            assert stats.pushed == stats.steps + stats.waiting
            assert stats.done == bool(alone.exited[0])
            assert stats.idle == self.now - self.heard[stream]

    @invariant()
    def all_are_there(self) -> None:
        assert self.model.keys() <= set(self.pool)


@pytest.mark.parametrize(("name", "quantize"), KINDS)
def test_against_streams_of_their_own(name: str, quantize: str) -> None:
    class Case(PoolAgainstStreams):
        pass

    Case.name, Case.quantize = name, quantize
    machine: Any = Case.TestCase
    machine.settings = settings(
        max_examples=6, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
    )
    machine().runTest()


def test_many_threads_push() -> None:
    lstm = of(DELTA, "int8")
    lstm.quantize = al.Quantize("int8", raw="int8", raw_scale=[4.0] * I)  # integers: the bits of a lone stream
    threads, rounds = 32, 40
    pool = al.StreamPool(lstm, 2 * threads, backlog=5)
    got: dict[int, list[torch.Tensor]] = {}
    failed: list[BaseException] = []
    given: dict[int, torch.Tensor] = {}
    over = threading.Event()

    def client(me: int) -> None:
        try:
            draw = torch.Generator().manual_seed(me)
            for _ in range(2):
                stream, frames = pool.open(), torch.randn(rounds, I, generator=draw)
                given[stream] = frames
                at = 0
                while at < rounds:
                    n = min(int(torch.randint(1, 4, (), generator=draw)), rounds - at)
                    try:
                        pool.push(stream, frames[at : at + n])
                        at += n
                    except OverloadError:
                        over.wait(0.001)
        except BaseException as error:  # noqa: BLE001 (looked at below)
            failed.append(error)

    workers = [threading.Thread(target=client, args=(me,)) for me in range(threads)]
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers) or pool.waiting:
        for stream, y in pool.tick().items():
            got.setdefault(stream, []).append(y)
    for worker in workers:
        worker.join()
    assert not failed
    assert len(given) == len(got) == 2 * threads
    for stream, frames in given.items():
        assert torch.equal(torch.stack(got[stream]), al.stream(lstm).run(frames[:, None])[:, 0])
    assert pool.stats.timesteps == 2 * threads * rounds


def test_options_that_cannot_work_are_refused() -> None:
    lstm = of(al.Dense())
    for options in (
        {"capacity": 0},
        {"capacity": 1.5},
        {"capacity": 2**40},
        {"backlog": 2**62},
        {"backlog": 0},
        {"max_batch": 0},
        {"idle_timeout": 0},
        {"idle_timeout": "3"},
    ):
        with pytest.raises(InputError, match=next(iter(options))):
            al.StreamPool(lstm, **options)
    with pytest.raises(InputError, match="AdaptiveLSTM"):
        al.StreamPool(nn.LSTM(I, H))  # type: ignore[arg-type]
    for broken, message in ((adapted(I, H, 2).train(), "training"), (adapted(I, H, 1, bidirectional=True), "bidirec")):
        with pytest.raises(UnsupportedError, match=message):
            al.StreamPool(broken)
    lstm.policy = depths(STACK, "sequence")["head"]
    with pytest.raises(UnsupportedError, match="level='step'"):
        al.StreamPool(lstm)


class Fails(nn.Module):
    """A head that fails when it is told to."""

    broken = False

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        if self.broken:
            raise KeyError("no")
        return states[:, :3]


def test_a_tick_that_fails_loses_no_frame() -> None:
    failing = Fails()
    lstm = of(al.ExitInTime(failing, threshold=0.9, check_every=1))
    pool, x = al.StreamPool(lstm, 2), torch.randn(3, I)
    stream = pool.open()
    pool.push(stream, x)
    first = pool.tick()[stream]
    failing.broken = True
    for _ in range(2):
        late = pool.open()
        pool.push(late, x)
        with pytest.raises(KeyError):
            pool.tick()
        pool.close(late)
    failing.broken = False
    rest = [pool.tick()[stream] for _ in range(2)]
    assert torch.equal(torch.stack([first, *rest]), al.stream(lstm).run(x[:, None])[:, 0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes(dtype: torch.dtype) -> None:
    lstm = of(al.SkipTimesteps(x_share=0.2)).to(dtype)
    pool, x = al.StreamPool(lstm, 2), torch.randn(9, I).to(dtype)
    pool.open()
    stream = pool.open()
    pool.push(stream, x[:4])
    y = [pool.tick()[stream] for _ in range(2)]
    moved = pool.snapshot(stream)
    pool.close(stream)
    stream = pool.restore(moved)
    pool.push(stream, x[4:])
    y += [pool.tick()[stream] for _ in range(7)]
    assert y[0].dtype is dtype
    torch.testing.assert_close(torch.stack(y), al.stream(lstm).run(x[:, None])[:, 0], rtol=0, atol=0)


def test_a_calibrated_pool_is_watched() -> None:
    calm = {"activity": Range(0.18, 0.05, 300), "ran": Range(1.0, 0.0, 300)}
    lstm = of(al.Dense())
    lstm.plan = dataclasses.replace(lstm.plan, policy=DELTA, expected_rates=calm)
    pool = al.StreamPool(lstm, 3)
    streams = [pool.open() for _ in range(3)]

    def busy() -> None:
        for _ in range(2 * LOOK):
            pool.push_each(streams, torch.randn(3, I))
            pool.tick()

    with pytest.warns(al.DriftWarning, match="activity"):
        busy()
