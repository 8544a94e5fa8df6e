"""Threads that share plans, states, streams and idle states; .ci/run repeats these tests under ThreadSanitizer."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

import adaptive_lstm as al
from adaptive_lstm.errors import BusyError
from adaptive_lstm.types import StackShape

from ..support.helpers import adapted, always_native, infer
from ..support.native_oracle import ACTIVITIES, Activity, policy_of, run, signal, stack, weights
from ..support.policy_cases import FAMILIES
from ..support.whole_batches import forward, stack_of

SHAPE = StackShape(6, 33, 2)


def together(*works: Callable[[], object], rounds: int = 1) -> None:
    """Runs each of these in a thread of its own, all at once; the first exception of any comes out."""
    start = threading.Barrier(len(works))

    def repeat(work: Callable[[], object]) -> None:
        start.wait()
        for _ in range(rounds):
            work()

    with ThreadPoolExecutor(len(works)) as pool:
        for done in [pool.submit(repeat, work) for work in works]:
            done.result()


@pytest.mark.parametrize("activity", ACTIVITIES)
def test_threads_share_a_plan_and_its_pool(activity: Activity) -> None:
    native = stack(weights(SHAPE, "fp32", "int8"), SHAPE, policy_of(SHAPE, activity))
    inputs = [signal(40, batch, 6, activity) for batch in (1, 2, 3, 1)]
    want = [run(native, x).y for x in inputs]

    def check(x: torch.Tensor, y: torch.Tensor) -> None:
        assert torch.equal(run(native, x).y, y)

    together(*(lambda x=x, y=y: check(x, y) for x, y in zip(inputs, want, strict=True)), rounds=10)


@pytest.mark.parametrize(("shape", "policy", "streams"), [p for p in FAMILIES if p.values[2]][::12])
def test_a_state_is_used_in_every_way_at_once(shape: StackShape, policy: al.Policy, streams: bool) -> None:
    """Each call is done whole, waits for its turn, or is refused; nothing is torn, and the state goes on."""
    native = stack(weights(shape, "int8", "int8"), shape, policy)
    state, x = native.new_state(2), signal(30, 2, shape.input_size)
    value, refused = native.read(state), [0]

    def quietly(work: Callable[[], object]) -> Callable[[], None]:
        def tried() -> None:
            try:
                work()
            except BusyError:
                refused[0] += 1

        return tried

    together(
        quietly(lambda: run(native, x, state=state, open_ended=True)),
        quietly(lambda: run(native, x[:1], state=state, open_ended=True)),
        quietly(lambda: native.write(state, value)),
        quietly(lambda: state.reset(2)),
        quietly(state.clear_counters),
        lambda: native.read(state),
        lambda: native.counted(state, 60)(),
        lambda: native.exited(state),
        rounds=12,
    )
    native.write(state, value)
    assert run(native, x, state=state, open_ended=True).y.isfinite().all()


@torch.no_grad()
def test_a_stream_is_watched_while_it_runs() -> None:
    fast = adapted(6, 33, 2, policy=al.Delta.uniform(0.05), quantize="int8")
    x = signal(300, 1, 6)
    with al.stream(fast) as alone:
        want = alone.run(x)
    with al.stream(fast) as stream:
        got, seen, over = list[torch.Tensor](), list[float](), threading.Event()

        def advance() -> None:
            got.extend(stream.step(frame) for frame in x)
            over.set()

        def watch() -> None:
            while not over.is_set():
                seen.append(stream.stats.activity)
                assert stream.state.h.isfinite().all()
                assert not stream.exited.any()

        together(advance, watch, watch)
        assert torch.equal(torch.cat(got), want[:, 0])
        assert all(0 <= activity <= 1 for activity in seen)


@torch.no_grad()
def test_threads_share_a_module() -> None:
    fast = adapted(6, 33, 2, quantize="int8")
    inputs = [signal(20, batch, 6) for batch in (1, 2, 3)]
    with always_native():
        want = [fast(x)[0] for x in inputs]

        def check(x: torch.Tensor, y: torch.Tensor) -> None:
            assert torch.equal(infer(fast, x)[0], y)

        together(*(lambda x=x, y=y: check(x, y) for x, y in zip(inputs, want, strict=True)), rounds=15)


@pytest.mark.parametrize(
    ("shape", "rows"),
    [(SHAPE, 1), (SHAPE, 20), (StackShape(6, 33, 3, bidirectional=True), 1), (StackShape(6, 520, 1), 1)],
)
def test_calls_have_helpers_while_others_do_without(shape: StackShape, rows: int) -> None:
    native, x = stack_of(shape, al.Dense(), "int8"), signal(90, rows, 6).transpose(0, 1)
    zeros = torch.zeros(shape.num_cells, rows, shape.hidden_size)
    given = zeros, zeros
    want = forward(native, x, None, given, 128)

    def check() -> None:
        got = forward(native, x, None, given, 128, 3)
        assert torch.equal(got.y, want.y)
        assert torch.equal(got.h, want.h)
        assert (got.counts == want.counts).all()

    together(check, check, check, rounds=10)


def test_states_of_one_plan_are_made_and_freed_in_threads() -> None:
    native = stack(weights(SHAPE, "int8", "int8"), SHAPE, policy_of(SHAPE, "few"))
    x = signal(5, 2, 6)
    want = run(native, x).y

    def once() -> None:
        state = native.new_state(2)
        assert torch.equal(run(native, x, state=state).y, want)
        value = native.read(state)
        native.write(state, replace(value, h=np.zeros_like(value.h)))

    together(once, once, once, rounds=10)
