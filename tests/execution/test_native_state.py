"""What native states remember and forget, and who may use them at once."""

import pickle
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import PackedSequence

import adaptive_lstm as al
from adaptive_lstm.errors import BusyError, InputError, StateError
from adaptive_lstm.policies import Delta, Dense, ExitInTime, HoldLayers, Policy
from adaptive_lstm.types import StackShape, StreamState

from ..support.heap import growth
from ..support.native_oracle import ACTIVITIES, USES, Activity, Format, policy_of, run, signal, stack, states, weights


def tensors(state: StreamState[np.ndarray]) -> list[list[float]]:
    return [t.flatten().tolist() for t in (state.h, state.c, *state.sent_x, *state.sent_h) if t is not None]


@pytest.mark.parametrize(("x_form", "h_form", "activity"), USES)
def test_a_pooled_run_leaves_nothing_behind(x_form: Format, h_form: Format, activity: Activity) -> None:
    shape = StackShape(6, 33, 2, bidirectional=True)
    matrices, policy = weights(shape, x_form, h_form), policy_of(shape, activity)
    pool = stack(matrices, shape, policy)
    big, small = signal(9, 70, 6, activity), signal(80, 1, 6, activity)
    for x in (big, small, big[:3, :7], big, small):
        got, want = run(pool, x), run(stack(matrices, shape, policy), x)
        assert torch.equal(got.y, want.y)
        assert torch.equal(got.c, want.c)
        assert got.counts == want.counts


@pytest.mark.parametrize("form", ["fp32", "bf16", "int8_weight_only", "int8", "int8_per_column"])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_state_that_is_read_and_written_goes_on(form: Format, batch: int) -> None:
    shape = StackShape(5, 33, 2)
    matrices = weights(
        shape,
        form,
        "int8" if form == "int8_per_column" else form,
        levels=(8191 if form == "int8_per_column" else 127, 1016),
    )
    native = stack(matrices, shape, policy_of(shape, "few"))
    x = signal(60, batch, 5, "few")
    whole, half, other = (native.new_state(batch) for _ in range(3))
    y = torch.cat([run(native, some, state=whole).y for some in x.split([30, 10, 20])])
    run(native, x[:30], state=half)
    value = native.read(half)
    run(native, signal(9, batch, 5), state=other)  # must leave no trace
    native.write(other, value)
    assert tensors(native.read(other)) == tensors(value)
    assert other.counters()[0] == [(0, 0, 0, 0)] * 2
    got = torch.cat([run(native, some, state=other).y for some in x[30:].split([10, 20])])
    torch.testing.assert_close(got, y[30:], rtol=0, atol=0 if form in ("int8", "int8_per_column") else 1e-5)


def test_a_state_knows_whether_it_has_started() -> None:
    shape = StackShape(5, 33, 2)
    native = stack(weights(shape, "int8", "fp32"), shape, policy_of(shape, "few"))
    state, x = native.new_state(3), signal(7, 3, 5)

    def started() -> bool:
        value = native.read(state)
        sent = [part is not None for part in (*value.sent_x, *value.sent_h)]
        assert all(sent) == any(sent)
        return all(sent)

    before = [started()]
    run(native, x[:0], state=state)
    run(native, torch.full_like(x, float("nan")), state=state, check=True)
    before.append(started())
    run(native, x, state=state)
    before.append(started())
    value = native.read(state)
    state.reset(3)
    before.append(started())
    native.write(state, value)
    before.append(started())
    assert before == [False, False, True, False, True]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("layout", ["time first", "batch first", "wide rows", "packed"])
def test_refused_input_changes_nothing(bad: float, layout: str) -> None:
    shape = StackShape(5, 33, 2)
    native = stack(weights(shape, "int8", "fp32"), shape, policy_of(shape, "few"))
    state, x = native.new_state(3), signal(7, 3, 5)
    run(native, x, state=state)
    before, counts = tensors(native.read(state)), state.counters()
    for t, b, i in [(0, 0, 0), (6, 2, 4), (3, 1, 2)]:
        worse = x.clone()
        worse[t, b, i] = bad
        if layout == "packed":
            got = run(native, worse.reshape(-1, 5), sizes=[3] * 7, state=state, check=True)
        elif layout == "batch first":
            got = run(native, worse.transpose(0, 1).contiguous(), batch_first=True, state=state, check=True)
        else:
            wide = torch.nn.functional.pad(worse, (0, 3 if layout == "wide rows" else 0))
            got = run(native, wide[..., :5], state=state, check=True)
        assert got.y.isnan().all()
        assert tensors(native.read(state)) == before
        assert state.counters() == counts
    beside = torch.nn.functional.pad(x, (0, 3), value=bad)[
        ..., :5
    ]  # what lies between the rows is none of its business
    assert run(native, beside, state=state, check=True).y.isfinite().all()


EXIT = ExitInTime(None, threshold=1e-3, check_every=1)
HELD = HoldLayers(x_share=(0.2,), mode="queue_input", cap=3)
Damage = Callable[[StreamState[np.ndarray]], StreamState[np.ndarray]]


def of_exit(**changed: Any) -> Damage:
    return lambda value: replace(value, exit=value.exit and replace(value.exit, **changed))


def of_hold(**changed: Any) -> Damage:
    return lambda value: replace(value, hold=(value.hold[0], replace(value.hold[1], **changed)))


@pytest.mark.parametrize(
    ("policy", "damage"),
    [
        *((EXIT, of_exit(time=np.array([3, time, 3]))) for time in (-1, 2**63 - 2, 2**63 - 1, -(2**63))),
        (EXIT, of_exit(time=np.zeros(2, np.int64))),
        (EXIT, of_exit(streak=np.full(3, 2**63 - 1))),
        (EXIT, of_exit(streak=np.full(3, -1))),
        (EXIT, of_exit(exited=np.zeros(2, np.bool_))),
        (EXIT, of_exit(past=np.zeros((3, 1, 33), np.float32))),
        (HELD, of_hold(run=np.full(3, 2**63 - 1))),
        (HELD, of_hold(run=np.full(3, -(2**63)))),
        (HELD, of_hold(queued=np.full(3, 2**63 - 1))),
        (HELD, of_hold(queued=np.full(3, 4))),
        (HELD, of_hold(queue=None)),
        (HELD, lambda value: replace(value, hold=value.hold[:1])),
        (Delta.uniform(0.1), lambda value: replace(value, sent_h=(value.sent_h[0], np.zeros((3, 5), np.float32)))),
        (Delta.uniform(0.1), lambda value: replace(value, c=value.c[..., :5])),
    ],
)
def test_a_state_that_is_damaged_is_refused_whole(policy: Policy, damage: Damage) -> None:
    shape = StackShape(5, 33, 2)
    native = stack(weights(shape, "fp32", "fp32"), shape, policy)
    state = native.new_state(3)
    run(native, signal(7, 3, 5), state=state, open_ended=True)
    before, counts = pickle.dumps(native.read(state)), state.counters()
    value = damage(pickle.loads(before))
    value.h[:] += 0.5
    with pytest.raises(StateError):
        native.write(state, value)
    assert pickle.dumps(native.read(state)) == before
    assert state.counters() == counts
    run(native, signal(4, 3, 5), state=state, open_ended=True)


def test_the_largest_counts_go_on() -> None:
    shape, most = StackShape(5, 33, 2), 2**62
    for policy, damage in (
        (EXIT, of_exit(time=np.full(3, most), streak=np.zeros(3, np.int64))),
        (HELD, of_hold(run=np.full(3, most), queued=np.zeros(3, np.int64))),
    ):
        native = stack(weights(shape, "fp32", "fp32"), shape, policy)
        state = native.new_state(3)
        run(native, signal(7, 3, 5), state=state, open_ended=True)
        native.write(state, damage(native.read(state)))
        assert run(native, signal(9, 3, 5), state=state, open_ended=True).y.isfinite().all()
        end = native.read(state)
        assert end.exit is None or (end.exit.time == most + 9).all()


@pytest.mark.parametrize("activity", ["dense", "few"])
def test_empty_runs(activity: Activity) -> None:
    shape = StackShape(6, 33, 2)
    native = stack(weights(shape, "fp32", "int8"), shape, policy_of(shape, activity))
    start = states(shape, 3)
    got = run(native, torch.empty(0, 3, 6), start=start)
    assert (got.y.shape, got.counts) == ((0, 3, 33), [(0, 0, 0, 0)] * 2)
    assert torch.equal(got.h, start[0])
    assert torch.equal(got.c, start[1])
    assert run(native, torch.empty(5, 0, 6)).y.shape == (5, 0, 33)


@pytest.mark.parametrize(
    ("rows", "sizes"),
    [
        (3, torch.tensor([1, 2])),  # grows
        (3, torch.tensor([2, 2])),  # more than there are rows
        (3, torch.tensor([2])),  # fewer
        (3, torch.tensor([4, -1])),
        (3, torch.tensor([2, 1], dtype=torch.int32)),
    ],
)
def test_packed_rows_that_do_not_fit_their_sizes_are_refused(rows: int, sizes: torch.Tensor) -> None:
    lstm = al.AdaptiveLSTM(5, 33).eval()
    with torch.no_grad(), pytest.raises(InputError):
        lstm(PackedSequence(torch.randn(rows, 5), sizes))


# --------------------------------------------------------------------------------------------- threads and memory


@pytest.mark.parametrize("activity", ["few", "many"])
def test_a_state_is_read_while_another_thread_advances_it(activity: Activity) -> None:
    """What is read is of one moment: every state that is seen is one that single steps give, with its counts."""
    shape = StackShape(6, 65, 2)
    native = stack(weights(shape, "int8", "int8"), shape, policy_of(shape, activity))
    x = signal(400, 1, 6, activity)
    alone, reached = native.new_state(1), dict[bytes, int]()
    for t in range(len(x)):
        reached[pickle.dumps(native.read(alone))] = t
        run(native, x[t : t + 1], state=alone)
    state, seen = native.new_state(1), list[int]()
    ran: list[int] = []

    def watch() -> None:
        while thread.is_alive():
            ran.append(state.counters()[0][1][2])
            seen.append(reached.get(pickle.dumps(native.read(state)), -1))

    y = torch.empty(1, 65)
    thread = threading.Thread(target=lambda: [state.step(row.data_ptr(), y.data_ptr()) for row in x[:-1]])
    watcher = threading.Thread(target=watch)
    thread.start()
    watcher.start()
    thread.join()
    watcher.join()
    assert -1 not in seen
    assert seen == sorted(seen)
    assert ran == sorted(ran)
    assert state.counters()[0][1][2] == len(x) - 1


def test_two_threads_on_one_state_are_told() -> None:
    shape = StackShape(6, 130, 2)
    native = stack(weights(shape, "fp32", "fp32"), shape, Dense())
    state, x = native.new_state(1), signal(20_000, 1, 6)
    errors: list[str] = []

    def advance(some: torch.Tensor) -> None:
        try:
            run(native, some, state=state)
        except BusyError as error:
            errors.append(str(error))

    for _ in range(50):  # on a busy machine the two may miss each other
        thread = threading.Thread(target=advance, args=(x,))
        thread.start()
        while thread.is_alive() and not errors:
            advance(x[:1])
        thread.join()
        if errors:
            break
    assert errors
    assert "another thread" in errors[0]
    assert run(native, x[:5], state=state).y.isfinite().all()  # and afterwards it is free again


@pytest.mark.parametrize(
    ("x_form", "h_form", "projection", "activity"),
    [
        *((*forms, activity) for forms in (("fp32", "int8", 0), ("int8", "bf16", 5)) for activity in ACTIVITIES),
        ("int8_dynamic", "int8", 0, "dense"),
    ],
)
def test_a_step_allocates_nothing(x_form: Format, h_form: Format, projection: int, activity: Activity) -> None:
    shape = StackShape(3, 7, 3, projection)
    native = stack(weights(shape, x_form, h_form), shape, policy_of(shape, activity))
    state, x, y = native.new_state(2), signal(100, 2, 3, activity), torch.empty(2, shape.output_size)
    assert growth(state, x, y, rounds=200) < 4096  # a byte per step would be five times as much
