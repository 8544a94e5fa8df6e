"""HoldPolicy and leaving on the native kernels against the reference executor, in whichever instruction set serves."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_lstm import _native
from adaptive_lstm.execution import torch_state
from adaptive_lstm.execution.early_exit import ExitLoop
from adaptive_lstm.execution.native_stack import NativeStack
from adaptive_lstm.execution.reference_runner import ReferenceRunner
from adaptive_lstm.execution.reference_weights import dequantized
from adaptive_lstm.policies import (
    Combined,
    Delta,
    Dense,
    ExitInDepth,
    ExitInTime,
    HoldLayers,
    Policy,
    SkipTimesteps,
    parts,
)
from adaptive_lstm.types import Counts, ExitState, HoldState, StackShape, StreamState
from adaptive_lstm.weights.matrices import CellMatrices

from ..support.heap import growth
from ..support.native_oracle import Format, run, stack, states, weights
from ..support.policy_cases import FAMILIES, SHAPES, STACK, depth_translators, head, random_policy, time_translators

ATOL = 2e-5
PRECISIONS: dict[str, tuple[Format, Format, float]] = {
    "fp32": ("fp32", "fp32", ATOL),
    "int8": ("int8", "int8", 4e-3),
    "dynamic": ("int8_dynamic", "int8", 4e-3),
}


# ------------------------------------------------------------------------------------------------------ the oracle


def on_reference(
    matrices: Sequence[CellMatrices],
    shape: StackShape,
    policy: Policy,
    x: torch.Tensor,
    sizes: Sequence[int],
    state: StreamState,
    *,
    open_ended: bool,
) -> tuple[torch.Tensor, StreamState, Counts]:
    """Packed rows x [sum(sizes), I] on the reference executor, in float32."""
    tensors = [dequantized(w, torch.float32, torch.device("cpu")) for w in matrices]
    p = parts(policy)
    reference = ReferenceRunner(tensors, shape, p)
    run = (reference if p.time_exit is None else ExitLoop(p.time_exit, reference)).open(state)
    y = run.advance(x, sizes, open_ended=open_ended)
    return y, run.state(), run.counted(len(x))()


def read(native: NativeStack, state: _native.State) -> StreamState:
    """A native state in tensors."""
    return torch_state.tensors(native.read(state))


def leaves(state: StreamState | HoldState | ExitState) -> dict[str, Any]:
    """Everything in a state by name, None left out."""
    out: dict[str, Any] = {}
    for name, value in vars(state).items():
        many = value if isinstance(value, tuple) else (value,)
        for i, item in enumerate(many):
            if isinstance(item, HoldState | ExitState):
                out |= {f"{name}[{i}].{inner}": v for inner, v in leaves(item).items()}
            elif item is not None:
                out[f"{name}[{i}]"] = item
    return out


def assert_same_state(got: StreamState, want: StreamState, atol: float) -> None:
    a, b = leaves(got), leaves(want)
    assert a.keys() == b.keys()
    for name, value in a.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            assert torch.allclose(value, b[name], rtol=atol, atol=atol, equal_nan=True), name
        else:
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(b[name])), name


def assert_same_counts(got: Counts, want: Counts) -> None:
    assert got.columns == want.columns
    assert (got.exit_checks, got.exits) == (want.exit_checks, want.exits)
    nothing = (0,) * len(got.depth_checks)  # the reference has no numbers where nothing ran at all
    assert got.depth_checks == (want.depth_checks or nothing)
    assert got.depth_exits == (want.depth_exits or nothing)


def native_run(
    native: NativeStack, x: torch.Tensor, sizes: Sequence[int] | None, start: StreamState, *, open_ended: bool
) -> tuple[torch.Tensor, StreamState, Counts]:
    """x [T, B, I], or packed rows with ``sizes``; the output in the same layout."""
    state = native.acquire()
    native.write(state, torch_state.arrays(start))
    y = run(native, x, sizes=sizes, state=state, open_ended=open_ended).y
    total = sum(sizes) if sizes else x.shape[0] * x.shape[1]
    out = (y, read(native, state), native.counted(state, total)())
    native.release(state)
    return out


def signal(time: int, batch: int, width: int) -> torch.Tensor:
    """Rows that change at some timesteps and hardly move in between."""
    jumps = torch.randn(time, batch, width) * (torch.rand(time, batch, 1) < 0.3)
    jumps[0] = torch.randn(batch, width)
    return 0.4 * jumps.cumsum(0) + 0.01 * torch.randn(time, batch, width)


def zeros(shape: StackShape, batch: int) -> StreamState:
    return StreamState.start(*states(shape, batch, 0.0))


# ----------------------------------------------------------------------------------------------- against the oracle


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("shape", "policy", "streams"), [p for p in FAMILIES if p.values[2]])
def test_every_step_follows_the_reference(shape: StackShape, policy: Policy, streams: bool, precision: str) -> None:
    """Each chunk from the state that the native run reached before, so that errors cannot build up."""
    parts(policy)
    policy.check(shape)
    x_form, h_form, atol = PRECISIONS[precision]
    for batch in (1, 3):
        matrices = weights(shape, x_form, h_form)
        native = stack(matrices, shape, policy)
        follow(native, matrices, policy, signal(24, batch, shape.input_size), random.Random(batch), atol)


def follow(
    native: NativeStack,
    matrices: Sequence[CellMatrices],
    policy: Policy,
    x: torch.Tensor,
    choice: random.Random,
    atol: float,
) -> None:
    shape, batch = native.shape, x.shape[1]
    state, t = native.new_state(batch), 0
    while t < len(x):
        some = x[t : t + choice.choice((1, 1, 1, 2, 5))]
        before = read(native, state)
        state.clear_counters()
        y = run(native, some, state=state, open_ended=True).y
        sizes = [batch] * len(some)
        want, end, counts = on_reference(
            matrices, shape, policy, some.reshape(-1, shape.input_size), sizes, before, open_ended=True
        )
        torch.testing.assert_close(y.reshape(want.shape), want, rtol=atol, atol=atol)
        assert_same_state(read(native, state), end, 5 * atol)
        assert_same_counts(native.counted(state, len(want))(), counts)
        if end.exit is not None:
            assert np.array_equal(native.exited(state), end.exit.exited)
        t += len(some)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("shape", "policy", "streams"), FAMILIES)
def test_whole_sequences_follow_the_reference(shape: StackShape, policy: Policy, streams: bool, packed: bool) -> None:
    policy.check(shape)
    batch, time = (5, 17) if packed else (2, 30)
    matrices = weights(shape, "fp32", "fp32", gain=1.0)
    native = stack(matrices, shape, policy)
    x, start = signal(time, batch, shape.input_size), zeros(shape, batch)
    lengths = (17, 17, 12, 6, 1) if packed else (time,) * batch
    sizes = [sum(n > t for n in lengths) for t in range(time)]
    rows = torch.cat([x[t, :n] for t, n in enumerate(sizes)])
    y, end, counts = native_run(native, rows if packed else x, sizes if packed else None, start, open_ended=False)
    want, want_end, want_counts = on_reference(matrices, shape, policy, rows, sizes, start, open_ended=False)
    torch.testing.assert_close(y.reshape(want.shape), want, rtol=0, atol=ATOL)
    torch.testing.assert_close(end.h, want_end.h, rtol=0, atol=ATOL)
    torch.testing.assert_close(end.c, want_end.c, rtol=1e-4, atol=5 * ATOL)
    assert_same_counts(counts, want_counts)
    if end.exit is not None and want_end.exit is not None:
        assert torch.equal(end.exit.exited, want_end.exit.exited)


# ------------------------------------------------------------------------------------------------------- exact laws

# A float estimate rounds at every update.
EXACT = [p for p in FAMILIES if p.values[2] and "delta" not in str(p.id)]


@pytest.mark.parametrize(("shape", "policy", "streams"), EXACT)
@pytest.mark.parametrize("batch", [1, 4])
def test_chunks_equal_whole_sequences_bit_for_bit(shape: StackShape, policy: Policy, streams: bool, batch: int) -> None:
    native = stack(weights(shape, "int8", "fp32"), shape, policy)
    x = signal(40, batch, shape.input_size)
    want, want_end, want_counts = native_run(native, x, None, zeros(shape, batch), open_ended=True)
    state, ys = native.new_state(batch), []
    for i, some in enumerate(x.split([1, 1, 7, 1, 20, 10])):
        ys.append(run(native, some, state=state, open_ended=True).y)
        if i == 2:  # to another state and back
            value, counted = read(native, state), native.counted(state, 0)()
            native.write(state, torch_state.arrays(value))
            assert_same_state(read(native, state), value, 0)
            assert_same_counts(counted + native.counted(state, 0)(), counted)
            early = native.counted(state, 9 * batch)(), counted
    assert torch.equal(torch.cat(ys), want)
    assert_same_state(read(native, state), want_end, 0)
    total = early[1] + native.counted(state, 0)()
    for a, b in zip(total.columns, want_counts.columns, strict=True):
        assert (a.x_sent, a.h_sent, a.ran, a.advanced) == (b.x_sent, b.h_sent, b.ran, b.advanced)
    assert (total.exit_checks, total.exits) == (want_counts.exit_checks, want_counts.exits)


@pytest.mark.parametrize(("shape", "policy", "streams"), EXACT)
def test_rows_do_not_see_each_other(shape: StackShape, policy: Policy, streams: bool) -> None:
    native = stack(weights(shape, "fp32", "int8"), shape, policy)
    x = signal(30, 5, shape.input_size)
    y, end, _ = native_run(native, x, None, zeros(shape, 5), open_ended=False)
    for b in range(5):
        alone, own, _ = native_run(native, x[:, b : b + 1], None, zeros(shape, 1), open_ended=False)
        assert torch.equal(alone[:, 0], y[:, b])
        assert torch.equal(own.h[:, 0], end.h[:, b])
        assert torch.equal(own.c[:, 0], end.c[:, b])


def null_settings(shape: StackShape) -> list[Policy]:
    width, top = shape.directions * shape.output_size, shape.output_size
    out: list[Policy] = [
        SkipTimesteps(x_share=0.0),
        SkipTimesteps(x_share=None, h=0.0, mode="hold_state"),
        HoldLayers(x_share=0.0),
        HoldLayers(x_share=0.5, h=0.0),
        ExitInDepth(translators=depth_translators(shape), head=head(width)),
        ExitInDepth(translators=depth_translators(shape), head=head(width), threshold=1.0, measure="max", level="step"),
        ExitInDepth(translators=depth_translators(shape), level="step"),
        Combined(
            Delta.uniform(0.0),
            SkipTimesteps(x_share=0.0),
            ExitInDepth(translators=depth_translators(shape), level="step"),
        ),
    ]
    if not shape.bidirectional:
        out += [
            HoldLayers(x_share=(0.0, None), mode="queue_input"),
            ExitInTime(head(top)),
            ExitInTime(translators=time_translators(shape), check_every=1),
            ExitInTime(head(top), threshold=1.0, translators=time_translators(shape), check_every=3),
        ]
    return out


@pytest.mark.parametrize("forms", [("fp32", "fp32"), ("int8", "int8"), ("bf16", "int8_weight_only")])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_at_their_null_settings_policies_are_dense_bit_for_bit(shape: StackShape, forms: tuple[Format, Format]) -> None:
    matrices, batch = weights(shape, *forms), 3
    x, sizes = signal(70, batch, shape.input_size), [3] * 20 + [2] * 49 + [1]
    rows, start = torch.cat([x[t, :n] for t, n in enumerate(sizes)]), zeros(shape, batch)
    for layout, alive in ((x, None), (rows, sizes)):
        want, want_end, dense = native_run(stack(matrices, shape, Dense()), layout, alive, start, open_ended=False)
        for policy in null_settings(shape):
            policy.check(shape)
            y, end, counts = native_run(stack(matrices, shape, policy), layout, alive, start, open_ended=False)
            assert torch.equal(y, want), policy
            assert torch.equal(end.h, want_end.h)
            assert torch.equal(end.c, want_end.c)
            assert counts.columns == dense.columns
            assert (counts.exits, sum(counts.depth_exits)) == (0, 0)


def test_catching_up_keeps_states_exact() -> None:
    shape, x = STACK, signal(60, 3, 5)
    matrices = weights(shape, "int8", "fp32")
    native = stack(matrices, shape, HoldLayers(x_share=(0.3, None), mode="queue_input"))
    x[-1] += 3.0  # the last timestep runs, and so all that waited
    y, end, counts = native_run(native, x, None, zeros(shape, 3), open_ended=False)
    want, dense, _ = native_run(stack(matrices, shape, Dense()), x, None, zeros(shape, 3), open_ended=False)
    assert not torch.equal(y, want)
    assert torch.equal(y[-1], want[-1])
    assert torch.equal(end.h, dense.h)
    assert torch.equal(end.c, dense.c)
    assert [c.ran for c in counts.columns] == [180] * 3


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("shape", [STACK, StackShape(5, 33, 2, proj_size=7)], ids=str)
def test_gates_that_are_kept_give_the_bits_of_those_computed_anew(precision: str, shape: StackShape) -> None:
    w_ih, w_hh, _ = PRECISIONS[precision]
    native, x = stack(weights(shape, w_ih, w_hh), shape, SkipTimesteps(x_share=0.3)), signal(60, 3, 5)
    whole, end, counts = native_run(native, x, None, zeros(shape, 3), open_ended=True)  # gates are kept in a run
    steps, state = [], zeros(shape, 3)
    for step in x.split(1):  # and computed anew in each of these
        y, state, _ = native_run(native, step, None, state, open_ended=True)
        steps.append(y)
    assert counts.columns[0].ran < 120
    assert torch.equal(torch.cat(steps), whole)
    assert_same_state(state, end, 0.0)


def test_nothing_runs_once_all_rows_have_left() -> None:
    shape = STACK
    native = stack(weights(shape, "fp32", "fp32"), shape, ExitInTime(head(9, gain=30.0), threshold=0.0, check_every=2))
    state, x = native.new_state(3), signal(10, 3, 5)
    first = run(native, x[:2], state=state, open_ended=True)
    assert native.exited(state).all()
    counts = native.counted(state, 30)()
    rest = run(native, x[2:], state=state, open_ended=True)
    assert native.counted(state, 30)() == counts
    assert torch.equal(rest.y, first.y[1].expand(8, 3, 9))


@pytest.mark.parametrize(
    "policy",
    [
        Combined(
            ExitInTime(head(9), threshold=0.95, check_every=2), SkipTimesteps(x_share=0.3, h=0.1), Delta.uniform(0.02)
        ),
        Combined(
            ExitInDepth(translators=depth_translators(STACK), head=head(9), threshold=0.5, level="step"),
            HoldLayers(x_share=0.2),
        ),
        HoldLayers(x_share=(None, 0.3), mode="queue_input"),
    ],
    ids=["time", "depth", "catch up"],
)
def test_a_step_allocates_nothing(policy: Policy) -> None:
    native = stack(weights(STACK, "fp32", "int8"), STACK, policy)
    assert growth(native.new_state(3), signal(100, 3, 5), torch.empty(3, 9), rounds=50) < 4096


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**31 - 1))
def test_random_combinations_follow_the_reference(seed: int) -> None:
    choice = random.Random(seed)
    torch.manual_seed(seed)
    both = choice.random() < 0.2
    projection = choice.choice((0, 0, 3))
    shape = StackShape(choice.randint(1, 7), choice.randint(4, 20), choice.randint(1, 4), projection, both)
    policy = random_policy(shape, choice)
    batch, time = choice.randint(1, 5), choice.randint(1, 25)
    x = signal(time, batch, shape.input_size)
    if choice.random() < 0.3:
        x[choice.randrange(time) :] = 0.0  # silence
    matrices = weights(shape, "fp32", "fp32", gain=choice.choice((0.5, 1.0, 2.0)))
    native = stack(matrices, shape, policy)
    depth = parts(policy).depth_exit
    if not both and (depth is None or depth.level == "step"):
        follow(native, matrices, policy, x, choice, ATOL)
    lengths = sorted((choice.randint(1, time) for _ in range(batch)), reverse=True)
    sizes = [n for t in range(time) if (n := sum(length > t for length in lengths))]
    rows, start = torch.cat([x[t, :n] for t, n in enumerate(sizes)]), zeros(shape, batch)
    y, end, counts = native_run(native, rows, sizes, start, open_ended=False)
    want, want_end, want_counts = on_reference(matrices, shape, policy, rows, sizes, start, open_ended=False)
    torch.testing.assert_close(y, want, rtol=0, atol=1e-4)
    torch.testing.assert_close(end.h, want_end.h, rtol=0, atol=1e-4)
    torch.testing.assert_close(end.c, want_end.c, rtol=1e-3, atol=1e-3)
    assert_same_counts(counts, want_counts)
