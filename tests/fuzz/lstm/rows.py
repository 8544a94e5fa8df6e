"""Rows of a stream, and streams of a pool, that go their own ways: each against a stream of its own."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import torch

import adaptive_lstm as al
from adaptive_lstm.errors import OverloadError
from adaptive_lstm.types import StreamState

from ..outcome import Outcome, leaves
from ..target import Case, Fault, Seen
from .runs import Reference
from .tensors import signal

BACKLOG = 3


def check_rows(case: Case, fast: al.AdaptiveLSTM, seen: Seen) -> None:
    """Random rounds of a stream of all rows and of a pool, where the bits must be those of lone streams."""
    executor = fast.executor()
    if case["bidirectional"] or not executor.policy.streams:
        return
    if executor.native is None or case["proj"] or not Reference(fast, case["rows"]).exact:
        seen.covered.append("rows: sums in another order")
        return
    choice, frames = random.Random(case["seed"]), signal(case, 2 * case["rows"], "rows")
    _rows(fast, frames, choice, seen)
    _pool(fast, frames, choice, seen)


def _rows(fast: al.AdaptiveLSTM, frames: torch.Tensor, choice: random.Random, seen: Seen) -> None:
    """All rows of a stream, frames [T, B, I]."""
    batch = frames.shape[1]
    many, lone = al.stream(fast, batch), [al.stream(fast) for _ in range(batch)]
    for x in frames:
        way = choice.choice(("some", "some", "new", "chunk", "beam"))
        seen.covered.append(f"rows: {way}")
        if way == "some":
            rows = choice.sample(range(batch), choice.randint(0, batch))
            y = many.step(x[rows], rows=rows)
            want = [lone[b].step(x[b : b + 1]) for b in rows]
            _must_equal("chosen rows of a stream", y, torch.cat([y[:0], *want]))
        elif way == "new":
            rows = choice.sample(range(batch), choice.randint(1, batch))
            many.reset(rows=rows)
            for b in rows:
                lone[b].reset()
        elif way == "chunk":
            _chunk(many, lone, torch.stack([x, x.flip(0), x]), choice, batch_first=fast.batch_first)
        else:
            _beam(many, lone, choice)
        state = many.state
        if Outcome(leaves(state)).finite:
            _must_be_joined(state, lone)


def _must_be_joined(state: StreamState, lone: list[al.Stream]) -> None:
    """What lone streams that have not begun do not remember, a batch may remember as fresh values."""
    got, want = leaves(state), leaves(StreamState.merge(*(one.state for one in lone)))
    if any(name not in got or not torch.equal(got[name].nan_to_num(7), t.nan_to_num(7)) for name, t in want.items()):
        raise Fault("rows: the state differs from those of streams of their own")


def _chunk(
    many: al.Stream, lone: list[al.Stream], x: torch.Tensor, choice: random.Random, *, batch_first: bool
) -> None:
    """A chunk [T, B, I] in which rows start anew."""
    done = torch.tensor([[choice.random() < 0.3 for _ in lone] for _ in x])
    y = many.run(x.transpose(0, 1), done=done.T).transpose(0, 1) if batch_first else many.run(x, done=done)
    for b, alone in enumerate(lone):
        for t in range(len(x)):
            if done[t, b]:
                alone.reset()
            _must_equal("a chunk in which rows start anew", y[t, b : b + 1], alone.step(x[t, b : b + 1]))


def _beam(many: al.Stream, lone: list[al.Stream], choice: random.Random) -> None:
    """Every row goes on from a random one."""
    state, states = many.state, [one.state for one in lone]
    if not all(Outcome(leaves(one)).finite for one in (state, *states)):  # such a state is refused
        return
    parents = [choice.randrange(len(lone)) for _ in lone]
    many.state = state.expand(2).select([2 * p for p in parents])
    for one, parent in zip(lone, parents, strict=True):
        one.state = states[parent]


@dataclass
class _Member:
    """A stream of a pool: what it does alone, and the frames that wait."""

    alone: al.Stream
    waiting: list[torch.Tensor] = field(default_factory=list)


def _pool(fast: al.AdaptiveLSTM, frames: torch.Tensor, choice: random.Random, seen: Seen) -> None:
    """Streams that come, go and move, in a pool with room for one more than a batch has rows."""
    capacity = frames.shape[1] + 1
    pool = al.StreamPool(fast, capacity, backlog=BACKLOG, max_batch=choice.randint(1, capacity))
    members: dict[int, _Member] = {}
    for x in frames:
        for _ in range(3):
            way = choice.choice(("open", "push", "push", "push", "tick", "tick", "close", "move"))
            stream = choice.choice(list(members)) if members else None
            seen.covered.append(f"pool: {way}")
            if way == "open" or stream is None:
                _open(pool, fast, members, capacity)
            elif way == "push":
                _push(pool, stream, members[stream], x[choice.randrange(len(x))])
            elif way == "tick":
                _tick(pool, members)
            elif way == "close":
                pool.close(stream)
                del members[stream]
            elif Outcome(leaves(members[stream].alone.state)).finite:  # others are refused
                moved = pool.snapshot(stream)
                pool.close(stream)
                members[pool.restore(moved)] = members.pop(stream)
    while pool.waiting:
        _tick(pool, members)
    if any(member.waiting for member in members.values()):
        raise Fault("a pool: frames were lost")


def _open(pool: al.StreamPool, fast: al.AdaptiveLSTM, members: dict[int, _Member], capacity: int) -> None:
    try:
        members[pool.open()] = _Member(al.stream(fast))
    except OverloadError:
        if len(members) < capacity:
            raise Fault("a pool: full while rows were free") from None


def _push(pool: al.StreamPool, stream: int, member: _Member, frame: torch.Tensor) -> None:
    try:
        pool.push(stream, frame)
    except OverloadError:
        if len(member.waiting) < BACKLOG:
            raise Fault("a pool: a queue full before its time") from None
    else:
        member.waiting.append(frame)


def _tick(pool: al.StreamPool, members: dict[int, _Member]) -> None:
    for stream, y in pool.tick().items():
        member = members[stream]
        _must_equal("a stream of a pool", y[None], member.alone.step(member.waiting.pop(0)[None]))
        if pool.stream_stats(stream).done != bool(member.alone.exited[0]):
            raise Fault("a pool: done differs from exited")


def _must_equal(what: str, got: torch.Tensor, want: torch.Tensor) -> None:
    if not torch.equal(got.nan_to_num(7), want.nan_to_num(7)):
        raise Fault(f"{what}: not the bits of a stream of its own\n  off by {(got - want).abs().max():.3g}")
