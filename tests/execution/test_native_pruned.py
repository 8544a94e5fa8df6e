"""Pruned weights on the native kernels against the reference executor, in whichever instruction set serves."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from adaptive_lstm.execution import reference
from adaptive_lstm.execution.native_stack import NativeStack, Packed
from adaptive_lstm.execution.reference_weights import dequantized
from adaptive_lstm.execution.runner import Chunk
from adaptive_lstm.policies import Delta, Dense, Policy, parts
from adaptive_lstm.types import FloatArray, StackShape, StreamState
from adaptive_lstm.weights.matrices import CellMatrices, Matrix

from ..support.heap import growth
from ..support.helpers import expands
from ..support.native_oracle import (
    ACTIVITIES,
    DYNAMIC,
    FORMATS,
    USES,
    Activity,
    Case,
    Format,
    follow,
    part,
    policy_of,
    run,
    signal,
    states,
    weights,
)
from ..support.native_oracle import stack as plain_stack
from ..support.policy_cases import FAMILIES
from .test_native_policies import ATOL, assert_same_counts, native_run, on_reference, zeros
from .test_native_policies import follow as follow_steps
from .test_native_policies import signal as jumps

Pattern = str  # of "units", "columns", "blocks", "anywhere": the last is held in the bitmask form
MIXED: tuple[Pattern, ...] = ("units columns blocks", "units columns anywhere")
PATTERNS: tuple[Pattern, ...] = ("units", "columns", "blocks", "anywhere", *MIXED)


def stack(matrices: Sequence[CellMatrices], shape: StackShape, policy: Policy, pattern: Pattern) -> NativeStack:
    return plain_stack(matrices, shape, policy, bitmask="always" if "anywhere" in pattern else "never")


def masked(matrix: Matrix, keep: np.ndarray) -> Matrix:
    return replace(matrix, values=(matrix.values * keep).astype(matrix.values.dtype))


def some(n: int, share: float) -> np.ndarray:
    """Bool [n], true for about the share of all, and never for all."""
    out = (torch.rand(n) < share).numpy()
    out[int(torch.randint(n, ()))] = False
    return out


def gates_of(live: np.ndarray, columns: int) -> np.ndarray:
    """Bool [4H, columns], false for half of the kernel's blocks: four strips of 16 live units of one gate, 1 column.

    Which strips form a block is left to chance.
    """
    blocks = -(-max(int(live.sum()), 1) // 16)  # as many as strips of one gate
    strip = np.maximum(np.cumsum(live) - 1, 0) // 16 + np.arange(4)[:, None] * blocks
    block = torch.randperm(4 * blocks).numpy() // 4
    kept = (torch.rand(blocks, columns) < 0.5).numpy()
    out: np.ndarray = kept[block[strip.ravel()]]
    return out


def pruned_units(hidden: int, share: float) -> tuple[np.ndarray, FloatArray]:
    """Which units live [H], and the constants of the others [H]."""
    constant: FloatArray = (torch.rand(hidden) - 0.5).numpy()
    return ~some(hidden, share), constant


def pruned(
    whole: Sequence[CellMatrices], shape: StackShape, pattern: Pattern, share: float = 0.4
) -> list[CellMatrices]:
    """The same weights with zeros where they are pruned; columns that read pruned units are zero."""
    H, out, below = shape.hidden_size, [], np.ones(shape.input_size, np.bool_)
    lives_above: list[np.ndarray] = []
    for cell, w in enumerate(whole):
        units, constant = pruned_units(H, share) if "units" in pattern else (None, None)
        live = np.ones(H, np.bool_) if units is None else units
        recurrent = np.ones(shape.output_size, np.bool_) if shape.proj_size else live
        keep_x, keep_h = (np.outer(np.tile(live, 4), columns) for columns in (below, recurrent))
        if "columns" in pattern:
            keep_x, keep_h = keep_x & ~some(keep_x.shape[1], share), keep_h & ~some(keep_h.shape[1], share)
        if "blocks" in pattern:
            keep_x = keep_x & gates_of(live, keep_x.shape[1])
            keep_h = keep_h & gates_of(live, keep_h.shape[1])
        if "anywhere" in pattern:
            keep_x, keep_h = (keep & (torch.rand(keep.shape) < 0.5).numpy() for keep in (keep_x, keep_h))
        out.append(
            CellMatrices(
                masked(w.w_ih, keep_x),
                masked(w.w_hh, keep_h),
                w.bias * np.tile(live, 4).astype(np.float32),
                masked(w.w_hr, live) if w.w_hr else None,
                units,
                constant,
            )
        )
        lives_above.append(recurrent)
        if cell % shape.directions == shape.directions - 1:
            below, lives_above = np.concatenate(lives_above), []
    return out


CASES = (
    Case(1, 1, 1, 20, directions=2),
    Case(7, 3, 2, 20, directions=2),
    Case(33, 40, 1, 70),
    Case(130, 70, 3, 12, directions=2),
    Case(130, 130, 1, 12, projection=33),
    Case(300, 40, 2, 8, projection=7),
    Case(300, 330, 1, 8),
    Case(128, 64, 20, 8),
)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize(("x_form", "h_form", "activity"), USES)
def test_layer_follows_the_reference(x_form: Format, h_form: Format, activity: Activity, pattern: Pattern) -> None:
    for case in CASES:
        shape = StackShape(case.width, case.hidden, 1, case.projection, case.directions == 2)
        matrices = pruned(weights(shape, x_form, h_form), shape, pattern)
        policy, start = policy_of(shape, activity), states(shape, case.batch)
        x = signal(case.time, case.batch, case.width, activity)
        native = stack(matrices, shape, policy, pattern)
        got = run(native, x, start=start)
        for d, w in enumerate(matrices):
            own = got.y[..., d * shape.output_size : (d + 1) * shape.output_size]
            c, sent = follow(w, part(policy, slice(d, d + 1)), x, own, (start[0][d], start[1][d]), d == 1)
            assert torch.equal(got.h[d], own[0 if d else -1])
            torch.testing.assert_close(got.c[d], c, rtol=1e-5, atol=5e-5)
            assert got.counts[d] == (*sent, case.time * case.batch, case.time * case.batch)
            if w.live is not None and w.constant is not None:
                constant, gone = torch.from_numpy(w.constant), torch.from_numpy(~w.live)
                assert not got.c[d][:, gone].any()
                if not case.projection:
                    assert torch.equal(own[..., gone], constant[gone].expand_as(own[..., gone]))
        if case.directions == 1:  # the same in pieces
            state = native.new_state(case.batch)
            native.write(state, StreamState.start(*start).map(torch.Tensor.numpy))
            ys = [run(native, piece, state=state).y for piece in x.split([1, 1, 3, case.time - 5])]
            torch.testing.assert_close(torch.cat(ys), got.y, rtol=0, atol=0 if activity == "dense" else 2e-2)


@pytest.mark.parametrize("given", [1.0, 3.0])
def test_columns_that_fill_a_quad_have_no_blocks(given: float) -> None:
    """Under the sanitizers: a state taken over, and a row beyond 1, send all columns of blocks, those that fill too."""
    shape = StackShape(33, 33, 2)
    matrices = pruned(weights(shape, "int8", "int8"), shape, "blocks")
    native = stack(matrices, shape, policy_of(shape, "many"), "blocks")
    assert {form for cell in native.packed for form in (cell[0].form, cell[1].form)} == {"blocks"}
    x, start = signal(6, 3, 33), states(shape, 3, given)
    whole, half = native.new_state(3), native.new_state(3)
    for state in (whole, half):
        native.write(state, StreamState.start(*start).map(torch.Tensor.numpy))
    want = run(native, x, state=whole).y
    first = run(native, x[:3], state=half).y
    native.write(half, native.read(half))
    assert torch.equal(torch.cat([first, run(native, x[3:], state=half).y]), want)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("forms", [*FORMATS, DYNAMIC])
def test_zeros_left_out_give_the_same_numbers(forms: tuple[Format, Format], pattern: Pattern) -> None:
    """A whole stack beside the same weights as if they were not pruned."""
    shape = StackShape(20, 70, 3)
    pruned_stack = pruned(weights(shape, *forms), shape, pattern)
    zeros = [replace(w, live=None, constant=None) for w in pruned_stack]
    x = signal(40, 2, 20)
    dense, whole = stack(pruned_stack, shape, Dense(), pattern), plain_stack(zeros, shape, Dense(), zeros=False)
    assert dense.nbytes < 0.9 * whole.nbytes
    if "units" in pattern:  # pruned units of zeros stay at zero
        pruned_stack = [replace(w, constant=None if w.constant is None else 0 * w.constant) for w in pruned_stack]
        dense = stack(pruned_stack, shape, Dense(), pattern)
    got, want = run(dense, x), run(whole, x)
    # Where floats and integers meet, an activation between two levels may fall to either side.
    # Compressed weights meet in the order of whole ones.
    exact = forms == ("int8", "int8") or pattern == "anywhere"
    atol = 0 if exact else 2e-2 if {"int8", "int8_per_column", "int8_dynamic"} & set(forms) else 1e-4
    torch.testing.assert_close(got.y, want.y, rtol=0, atol=atol)
    if forms != ("int8", "int8"):
        return
    tiny = run(stack(pruned_stack, shape, Delta(h=1e-9, x=(1e-9,) * 3), pattern), x)
    assert torch.equal(tiny.y, got.y)


@pytest.mark.parametrize("pattern", MIXED)
@pytest.mark.parametrize(("x_form", "h_form", "activity"), USES)
def test_packed_rows_are_those_of_each_row_alone(
    x_form: Format, h_form: Format, activity: Activity, pattern: Pattern
) -> None:
    shape, lengths = StackShape(40, 33, 2, bidirectional=True), (30, 26, 26, 3, 1)
    matrices = pruned(weights(shape, x_form, h_form), shape, pattern)
    native, start = stack(matrices, shape, policy_of(shape, activity), pattern), states(shape, len(lengths))
    x = signal(lengths[0], len(lengths), 40, activity)
    sizes = [sum(n > t for n in lengths) for t in range(lengths[0])]
    got = run(native, torch.cat([x[t, :n] for t, n in enumerate(sizes)]), sizes=sizes, start=start)
    for b, n in enumerate(lengths):
        alone = run(native, x[:n, b : b + 1], start=(start[0][:, b : b + 1], start[1][:, b : b + 1]))
        y = got.y[[sum(sizes[:t]) + b for t in range(n)]]
        if activity == "dense":
            assert torch.equal(y, alone.y[:, 0])
        else:  # estimates in float32 round otherwise, and what lies at a threshold may be sent by one only
            assert (y - alone.y[:, 0]).abs().mean() < 1e-3


@pytest.mark.parametrize(
    "matrices",
    [
        lambda w: replace(w, live=np.zeros(9, np.bool_), constant=np.full(9, 0.25, np.float32), bias=0 * w.bias),
        lambda w: replace(w, w_ih=masked(w.w_ih, np.zeros(5)), w_hh=masked(w.w_hh, np.zeros(9))),
    ],
    ids=["units", "columns"],
)
@pytest.mark.parametrize("form", ["fp32", "int8", "int8_dynamic"])
@pytest.mark.parametrize("pattern", MIXED)
def test_everything_may_be_pruned(matrices: Any, form: Format, pattern: Pattern) -> None:
    shape = StackShape(5, 9, 1)
    (w,) = weights(shape, form, "int8" if form == "int8_dynamic" else form)
    w = matrices(w)
    if w.live is not None:
        w = replace(w, w_ih=masked(w.w_ih, np.zeros(5)), w_hh=masked(w.w_hh, np.zeros(9)))
    for policy in (Dense(), Delta(h=0.01, x=None if form == "int8_dynamic" else (0.01,))):
        x = signal(20, 2, 5)
        got = run(stack([w], shape, policy, pattern), x)
        tensors = dequantized(w, torch.float32, torch.device("cpu"))
        chunk = Chunk(x.reshape(-1, 5), [2] * 20, StreamState.start(*states(shape, 2, 0.0)))
        want, _, counts = reference.run([tensors], shape, parts(policy), chunk)
        torch.testing.assert_close(got.y.reshape(want.shape), want, rtol=0, atol=1e-6)
        assert got.counts[0][:2] == (counts.columns[0].x_sent, counts.columns[0].h_sent) == (0, 0)


def test_no_constant_makes_a_unit_live() -> None:
    shape = StackShape(5, 33, 1)
    (w,) = pruned(weights(shape, "fp32", "fp32"), shape, "units")
    assert w.live is not None
    x, live = signal(20, 2, 5), torch.from_numpy(w.live)
    got = run(stack([replace(w, constant=np.full(33, np.nan, np.float32))], shape, Dense(), "units"), x).y
    want = run(stack([w], shape, Dense(), "units"), x).y
    assert torch.equal(got[..., live], want[..., live])
    assert got[..., ~live].isnan().all()


@pytest.mark.parametrize("pattern", MIXED)
@pytest.mark.parametrize(("shape", "policy", "streams"), FAMILIES[::3])
def test_policies_follow_the_reference(shape: StackShape, policy: Policy, streams: bool, pattern: Pattern) -> None:
    matrices = pruned(weights(shape, "fp32", "fp32", gain=1.0), shape, pattern, 0.3)
    native, x, sizes = stack(matrices, shape, policy, pattern), jumps(20, 3, shape.input_size), [3] * 20
    if streams:
        follow_steps(native, matrices, policy, x, random.Random(0), ATOL)
    rows = x.reshape(-1, shape.input_size)
    y, end, counts = native_run(native, x, None, zeros(shape, 3), open_ended=False)
    want, want_end, want_counts = on_reference(matrices, shape, policy, rows, sizes, zeros(shape, 3), open_ended=False)
    torch.testing.assert_close(y.reshape(want.shape), want, rtol=0, atol=ATOL)
    torch.testing.assert_close(end.h, want_end.h, rtol=0, atol=ATOL)
    torch.testing.assert_close(end.c, want_end.c, rtol=1e-4, atol=5 * ATOL)
    assert_same_counts(counts, want_counts)


@pytest.mark.parametrize("pattern", MIXED)
@pytest.mark.parametrize("activity", ACTIVITIES)
def test_a_step_allocates_nothing(activity: Activity, pattern: Pattern) -> None:
    shape = StackShape(3, 33, 3)
    matrices = pruned(weights(shape, "fp32", "int8"), shape, pattern)
    native = stack(matrices, shape, policy_of(shape, activity), pattern)
    assert growth(native.new_state(2), signal(100, 2, 3, activity), torch.empty(2, 33), rounds=100) < 4096


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("form", ["fp32", "int8"])
def test_any_number_of_rows_gives_the_bits_of_each_alone(form: Format, pattern: Pattern) -> None:
    shape = StackShape(37, 50, 2)
    native = stack(pruned(weights(shape, form, form, (1016, 1016)), shape, pattern), shape, Dense(), pattern)
    x = signal(3, 70, 37)
    y = torch.cat([run(native, x[:, b : b + 1]).y for b in range(70)], 1)
    for rows in range(2, 71):
        assert torch.equal(run(native, x[:, :rows]).y, y[:, :rows])


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("levels", [127, 1016])
@pytest.mark.parametrize("policy", [Dense(), Delta(h=1e-9, x=(1e-9,))], ids=["all columns", "listed columns"])
def test_bitmask_integers_are_summed_exactly(policy: Policy, levels: int, sparsity: float) -> None:
    """Against a plain integer product, which a second stack takes as its bias."""
    for width, hidden, batch in ((1, 7, 1), (7, 33, 2), (33, 130, 9), (130, 1, 3), (300, 300, 1)):
        shape = StackShape(width, hidden, 1)
        (w,) = weights(shape, "int8", "int8", (levels, levels))
        keep = (torch.rand(w.w_ih.values.shape) >= sparsity).numpy()
        keep[:, 0] = False
        w = replace(w, w_ih=masked(w.w_ih, keep), bias=0 * w.bias)
        x = signal(1, batch, width)
        native = plain_stack([w], shape, policy, bitmask="always")
        assert native.packed[0][0] == Packed("bitmask", int(w.w_ih.values.any(0).sum()))
        got = run(native, x).y
        assert w.w_ih.scale is not None
        z = np.rint(np.clip(x[0].numpy() * np.float32(levels), -levels, levels)).astype(np.int64)
        sums = (z @ w.w_ih.values.T.astype(np.int64)).astype(np.float32)
        for row, pre in enumerate(sums * (w.w_ih.scale * (np.float32(1) / np.float32(levels)))):
            alone = run(plain_stack([replace(w, w_ih=masked(w.w_ih, 0 * keep), bias=pre)], shape, Dense()), x[:, :1])
            assert torch.equal(got[0, row], alone.y[0, 0])


def test_the_form_is_chosen_where_it_pays() -> None:
    """Weights that come from far away, enough zeros, and an instruction set that puts them back fast."""
    shape = StackShape(512, 512, 1)
    (whole,) = weights(shape, "fp32", "int8_weight_only")
    half, few = (pruned_anywhere(whole, share) for share in (0.5, 0.1))
    held = plain_stack([half], shape, Dense()).packed[0]
    assert [m.form for m in held] == ["bitmask" if expands() else "dense", "dense"]
    assert [m.form for m in plain_stack([few], shape, Dense()).packed[0]] == ["dense", "dense"]
    small = StackShape(64, 64, 1)
    tiny = pruned_anywhere(weights(small, "fp32", "int8")[0], 0.5)
    assert [m.form for m in plain_stack([tiny], small, Dense()).packed[0]] == ["dense", "dense"]
    with pytest.raises(ValueError, match=r"bitmask: got 'maybe', expected 'auto', 'always' or 'never'"):
        plain_stack([tiny], small, Dense(), bitmask="maybe")  # type: ignore[arg-type]


def pruned_anywhere(w: CellMatrices, share: float) -> CellMatrices:
    def thinned(matrix: Matrix) -> Matrix:
        return masked(matrix, (torch.rand(matrix.values.shape) >= share).numpy())

    return replace(w, w_ih=thinned(w.w_ih), w_hh=thinned(w.w_hh))
