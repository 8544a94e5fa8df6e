"""The native kernels against the reference executor, in whichever instruction set serves; CI forces each in turn."""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from adaptive_lstm.execution import reference
from adaptive_lstm.execution.batch import Batch
from adaptive_lstm.execution.executor import Executor
from adaptive_lstm.execution.reference_weights import dequantized
from adaptive_lstm.execution.runner import Chunk
from adaptive_lstm.policies import Delta, Dense, parts
from adaptive_lstm.types import Route, StackShape, StreamState
from adaptive_lstm.weights.layout import CellTensors, tensors_of
from adaptive_lstm.weights.matrices import CellMatrices, Matrix
from adaptive_lstm.weights.precision import Quantize

from ..support.native_oracle import (
    ACTIVITIES,
    DYNAMIC,
    FORMATS,
    USES,
    Activity,
    Case,
    Format,
    Result,
    follow,
    part,
    policy_of,
    run,
    signal,
    stack,
    states,
    weights,
)

# A chunk holds 64 rows: batches of 1, 2 and 7 end inside one, a batch of 70 is more than one.
CASES = (
    Case(1, 1, 1, 65, directions=2),
    Case(33, 40, 1, 150, layout="wide rows"),
    Case(7, 3, 2, 65, directions=2, given=1.0, layout="batch first"),
    Case(130, 130, 1, 63, projection=33, layout="every second row"),
    Case(33, 1, 7, 64, given=1.0, layout="wide rows"),
    Case(300, 40, 2, 5, projection=7, given=1.0),
    Case(130, 3, 70, 5, directions=2, layout="batch first"),
    Case(7, 130, 70, 1, layout="every second row"),
    Case(300, 3, 7, 1, directions=2),
    Case(33, 40, 2, 40, layout="repeated row"),
    Case(128, 64, 37, 3),  # columns that fill the tiles of those instruction sets that have them
    Case(410, 330, 2, 9),  # so large that single columns are packed as wide tiles in every format
)


def laid_out(x: torch.Tensor, layout: str) -> torch.Tensor:
    """x [T, B, I] with other strides. "batch first": [B, T, I]; "repeated row": every batch row is the first one."""
    if layout == "batch first":
        return x.transpose(0, 1).contiguous()
    if layout == "wide rows":
        return torch.nn.functional.pad(x, (0, 3), value=float("nan"))[..., : x.shape[-1]]
    if layout == "every second row":
        return x.repeat_interleave(2, dim=1)[:, ::2]
    return x[:, :1].expand(x.shape) if layout == "repeated row" else x


@pytest.mark.parametrize(("x_form", "h_form", "activity"), USES)
def test_layer_follows_the_reference(x_form: Format, h_form: Format, activity: Activity) -> None:
    for case in CASES:
        shape = StackShape(case.width, case.hidden, 1, case.projection, case.directions == 2)
        matrices, policy, start = (
            weights(shape, x_form, h_form),
            policy_of(shape, activity),
            states(shape, case.batch, case.given),
        )
        x = laid_out(signal(case.time, case.batch, case.width, activity), case.layout)
        batch_first = case.layout == "batch first"
        got = run(stack(matrices, shape, policy), x, batch_first=batch_first, start=start if case.given else None)
        x, y = (x.transpose(0, 1), got.y.transpose(0, 1)) if batch_first else (x, got.y)
        for d, w in enumerate(matrices):
            own = y[..., d * shape.output_size : (d + 1) * shape.output_size]
            c, sent = follow(w, part(policy, slice(d, d + 1)), x, own, (start[0][d], start[1][d]), d == 1)
            assert torch.equal(got.h[d], own[0 if d else -1])
            torch.testing.assert_close(got.c[d], c, rtol=1e-5, atol=5e-5)
            assert got.counts[d] == (*sent, case.time * case.batch, case.time * case.batch)
            if activity != "dense" and case.time > 60 and case.width > 1:  # both ways of sending were taken
                share = sent[0] / (case.time * case.batch * case.width)
                assert share < 0.2 if activity == "few" else share > 0.5


@pytest.mark.parametrize(("x_form", "h_form", "activity"), USES)
def test_packed_rows_are_those_of_each_row_alone(x_form: Format, h_form: Format, activity: Activity) -> None:
    shape, lengths = StackShape(40, 33, 1, bidirectional=True), (70, 66, 66, 20, 3, 1, 1)
    matrices, policy, start = weights(shape, x_form, h_form), policy_of(shape, activity), states(shape, len(lengths))
    x = signal(lengths[0], len(lengths), 40, activity)
    sizes = [sum(n > t for n in lengths) for t in range(lengths[0])]
    got = run(
        stack(matrices, shape, policy),
        torch.cat([x[t, :n] for t, n in enumerate(sizes)]),
        sizes=sizes,
        start=start,
    )
    total = torch.zeros(2, 4, dtype=torch.int64)
    for b, n in enumerate(lengths):
        y = got.y[[sum(sizes[:t]) + b for t in range(n)]][:, None]
        for d, w in enumerate(matrices):
            own = y[..., d * 33 : (d + 1) * 33]
            alone = (start[0][d, b : b + 1], start[1][d, b : b + 1])
            c, sent = follow(w, part(policy, slice(d, d + 1)), x[:n, b : b + 1], own, alone, d == 1)
            assert torch.equal(got.h[d, b], own[0 if d else -1, 0])
            torch.testing.assert_close(got.c[d, b], c[0], rtol=1e-5, atol=5e-5)
            total[d] += torch.tensor([*sent, n, n])
    assert got.counts == [tuple(row) for row in total.tolist()]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("activity", ACTIVITIES)
@pytest.mark.parametrize(("directions", "projection", "batch"), [(1, 0, 1), (2, 0, 3), (1, 9, 70), (2, 9, 2)])
def test_stack_is_its_layers_bit_for_bit(
    directions: int, projection: int, batch: int, activity: Activity, packed: bool
) -> None:
    shape, choice = StackShape(3, 33, 3, projection, directions == 2), random.Random(0)
    widths = [shape.input_width(cell) for cell in range(shape.num_cells)]
    matrices = [weights(StackShape(width, 33, 1, projection), *choice.choice(FORMATS))[0] for width in widths]
    policy, start, x = policy_of(shape, activity), states(shape, batch), signal(80, batch, 3, activity)
    sizes = [batch] * 40 + [max(1, batch // 2)] * 40 if packed else None
    if sizes:
        x = torch.cat([x[t, :n] for t, n in enumerate(sizes)])
    got = run(stack(matrices, shape, policy), x, sizes=sizes, start=start)
    for layer in range(3):
        own = slice(layer * directions, (layer + 1) * directions)
        native = stack(matrices[own], replace(shape, input_size=widths[own.start], num_layers=1), part(policy, own))
        alone = run(native, x, sizes=sizes, start=(start[0][own], start[1][own]))
        assert torch.equal(alone.h, got.h[own])
        assert torch.equal(alone.c, got.c[own])
        assert alone.counts == got.counts[own]
        x = alone.y
    assert torch.equal(x, got.y)


@pytest.mark.parametrize(
    ("quantize", "tolerance"),
    [
        (Quantize(), 2e-6),
        (Quantize("bf16"), 2e-6),
        (Quantize("int8"), 2e-3),  # float64 rounds some activations to the next integer
        (Quantize("int8", raw="int8", raw_scale=(1.5,) * 20 + (4.0,) * 20), 2e-3),
        (Quantize("int8", raw="int8", raw_range="dynamic"), 2e-3),
        (Quantize("bf16", matrices={"weight_hh_l0": "fp32", "weight_ih_l1": "int8", "weight_hh_l1": "int8"}), 2e-3),
    ],
)
@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "batch_first": True}, {"proj_size": 5, "bias": False}])
@torch.no_grad()
def test_executor_follows_float64(quantize: Quantize, tolerance: float, options: dict[str, Any]) -> None:
    lstm = torch.nn.LSTM(40, 33, 2, **options)
    shape, first = StackShape(40, 33, 2, lstm.proj_size, lstm.bidirectional), lstm.batch_first
    native = Executor(tensors_of(lstm), shape, quantize, Dense())
    double = Executor([in_float64(t) for t in native.tensors], shape, Quantize(), Dense())
    assert (native.route, double.route) == (Route("native"), Route("reference", "dtype float64"))
    x, start = torch.randn(5, 100, 40), states(shape, 5 if first else 100)
    got = native.runner.run(Batch.of(x, start, shape, first))
    want = double.runner.run(Batch.of(x.double(), (start[0].double(), start[1].double()), shape, first))
    for a, b in zip(got[:3], want[:3], strict=True):
        torch.testing.assert_close(a.double(), b, rtol=tolerance, atol=tolerance)
        assert (a - b).abs().mean() < tolerance / 10


def in_float64(t: CellTensors) -> CellTensors:
    w_hr = None if t.w_hr is None else t.w_hr.double()
    return replace(t, w_ih=t.w_ih.double(), w_hh=t.w_hh.double(), bias=t.bias.double(), w_hr=w_hr)


@pytest.mark.parametrize("levels", [1, 64, 65, 127, 128, 1016, 8191])
@pytest.mark.parametrize("batch", [1, 2, 7, 70])
@pytest.mark.parametrize("x_form", ["int8", "int8_per_column"])
def test_int8_is_exact_however_it_is_computed(x_form: Format, batch: int, levels: int) -> None:
    """All columns, those that moved at all, step by step, in chunks: the same bits."""
    shape = StackShape(40, 65, 2)
    matrices = weights(shape, x_form, "int8", (levels, levels), gain=6.0)
    dense = stack(matrices, shape, Dense())
    tiny = stack(matrices, shape, Delta(h=1e-9, x=(1e-9, 1e-9)))
    x = 2.4 * torch.rand(70, batch, 40) - 1.2
    x[10:40] = x[10]  # few columns move, then many
    want, got = run(dense, x), run(tiny, x)
    assert torch.equal(got.y, want.y)
    assert torch.equal(got.c, want.c)
    for native in (dense, tiny):
        state = native.new_state(batch)
        assert torch.equal(torch.cat([run(native, some, state=state).y for some in x.split([1, 1, 38, 1, 29])]), want.y)
    # h is recurrent, and its jumps do not always fit a byte.
    assert levels <= 127 or want.y.diff(dim=0).abs().max() * levels > 128


@pytest.mark.parametrize(
    ("x_form", "h_form", "activity"),
    [*((*form, "dense") for form in [*FORMATS, DYNAMIC]), ("int8", "int8", "few"), ("int8_per_column", "int8", "many")],
)
def test_any_number_of_rows_gives_the_bits_of_each_alone(x_form: Format, h_form: Format, activity: Activity) -> None:
    """Kernels take rows together in groups that the number of rows decides; both orders of columns, ragged ends."""
    shape = StackShape(37, 30, 2)
    native = stack(weights(shape, x_form, h_form, (1016, 1016)), shape, policy_of(shape, activity))
    x = signal(3, 70, 37)
    alone = [run(native, x[:, b : b + 1]) for b in range(70)]
    y, c = torch.cat([one.y for one in alone], 1), torch.cat([one.c for one in alone], 1)
    for rows in range(2, 71):
        got = run(native, x[:, :rows])
        assert torch.equal(got.y, y[:, :rows])
        assert torch.equal(got.c, c[:, :rows])


@pytest.mark.parametrize(("x_form", "h_form"), [*FORMATS, DYNAMIC])
@pytest.mark.parametrize("batch", [1, 2, 7])
def test_steps_and_sequences_give_the_same_bits(batch: int, x_form: Format, h_form: Format) -> None:
    shape = StackShape(130, 65, 2)
    native = stack(weights(shape, x_form, h_form), shape, Dense())
    x = signal(30, batch, 130)
    state, want = native.new_state(batch), run(native, x)
    assert torch.equal(torch.cat([run(native, some, state=state).y for some in x.split([1, 1, 5, 1, 22])]), want.y)
    for b in range(batch):
        assert torch.equal(run(native, x[:, b : b + 1]).y, want.y[:, b : b + 1])


@pytest.mark.parametrize("scale", [None, (1.0, 1.0, 8.0, 0.5, 2.0**20, 2.0**-20)])
def test_integers_are_clamped_and_rounded_to_even(scale: tuple[float, ...] | None) -> None:
    columns = None if scale is None else np.array(scale, np.float32)
    ones, zeros = (
        Matrix(np.ones((4, 6), np.int8), np.ones(4, np.float32), 4, columns),
        Matrix(np.zeros((4, 1), np.float32)),
    )
    w = CellMatrices(ones, zeros, np.zeros(4, np.float32), None)
    native = stack([w], StackShape(6, 1, 1), Delta(h=None, x=(1e-9,)))
    state = native.new_state(1)
    unit = torch.tensor(scale or (1.0,) * 6)
    run(native, (unit * torch.tensor([0.125, 0.375, -0.3, 7.0, -7.0, 3e32])).reshape(1, 1, 6), state=state)
    sent = native.read(state).sent_x[0]
    assert sent is not None
    assert (torch.from_numpy(sent) / unit).tolist() == [[0.0, 0.5, -0.25, 1.0, -1.0, 1.0]]


def error_of_step(w: CellMatrices, x: torch.Tensor, before: Result, after: Result) -> float:
    """How far the h of a step is from the one that float64 gives for its x [1, 1, I] and the state before it."""
    shape = StackShape(x.shape[-1], before.h.shape[-1], 1)
    chunk = Chunk(x[0].double(), [1], StreamState.start(before.h.double(), before.c.double()))
    _, end, _ = reference.run([dequantized(w, torch.float64, torch.device("cpu"))], shape, parts(Dense()), chunk)
    return (end.h - after.h).abs().mean().item()


@pytest.mark.parametrize("form", ["fp32", "bf16", "int8_weight_only"])
@pytest.mark.parametrize("spike", [0.0, 1e6, 3e38])
def test_rounding_of_float_estimates_does_not_stay(form: Format, spike: float) -> None:
    """Neither that of thousands of updates, nor that of one huge value."""
    shape, x = StackShape(8, 33, 1), torch.randn(4000, 1, 1, 8)
    x[..., 0] = 4096.0  # makes the estimate large beside its changes
    x[1000, ..., 5] += spike
    (w,) = weights(shape, form, form)
    w = replace(w, bias=w.bias - 4096.0 * w.w_ih.dequantized()[:, 0])
    native = stack([w], shape, Delta(h=1e-9, x=(1e-9,)))
    state = native.new_state(1)
    steps = [run(native, step, state=state) for step in x]
    early, after, late = (
        sum(error_of_step(w, x[t], steps[t - 1], steps[t]) for t in range(first, first + 50))
        for first in (200, 1003, 3950)
    )
    assert after < 2 * early
    assert late < 2 * early


SWEEP = torch.cat([torch.linspace(-100, 100, 20001), *(sign * 10 ** torch.linspace(-40, 2, 500) for sign in (-1, 1))])


@pytest.mark.parametrize(
    ("column", "others", "c_0", "function"),
    [
        (0, {2: 100.0}, 0.0, torch.sigmoid),
        (1, {}, 1.0, torch.sigmoid),
        (2, {0: 100.0}, 0.0, torch.tanh),
        (3, {1: 100.0}, 100.0, torch.sigmoid),
        (None, {1: 100.0, 3: 100.0}, None, torch.tanh),
    ],
    ids=["i", "f", "g", "o", "tanh of c"],
)
def test_activations(
    column: int | None, others: dict[int, float], c_0: float | None, function: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    """One unit with its four pre-activations as inputs: the others are set so that c or h shows a single function."""
    eye, zeros = Matrix(np.eye(4, dtype=np.float32)), Matrix(np.zeros((4, 1), np.float32))
    native = stack([CellMatrices(eye, zeros, np.zeros(4, np.float32), None)], StackShape(4, 1, 1), Dense())
    n = len(SWEEP)
    x, c = torch.zeros(1, n, 4), SWEEP.reshape(1, n, 1).clone() if c_0 is None else torch.full((1, n, 1), c_0)
    for other, value in others.items():
        x[..., other] = value
    if column is not None:
        x[..., column] = SWEEP
    got = run(native, x, start=(torch.zeros(1, n, 1), c))
    shown = got.h if column in (3, None) else got.c
    assert (shown.flatten().double() - function(SWEEP.double())).abs().max() <= 5e-7


# Integers cannot carry NaN: what runs on them is refused before it gets here.
@pytest.mark.parametrize(("x_form", "h_form"), [forms for forms in FORMATS if "int8" not in forms])
@pytest.mark.parametrize("batch", [1, 7])
def test_nan_and_infinity_propagate_where_nothing_is_skipped(batch: int, x_form: Format, h_form: Format) -> None:
    shape, x = StackShape(5, 33, 1), torch.randn(9, batch, 5)
    x[2, 0, 1] = float("inf")
    x[4, 0, 1], x[4, 0, 2] = -float("inf"), float("inf")
    x[6, 0, 3] = float("nan")
    matrices = weights(shape, x_form, h_form)
    got = run(stack(matrices, shape, Dense()), x)
    tensors = [dequantized(w, torch.float32, torch.device("cpu")) for w in matrices]
    chunk = Chunk(x.reshape(-1, 5), [batch] * 9, StreamState.start(*states(shape, batch, 0.0)))
    want, end, _ = reference.run(tensors, shape, parts(Dense()), chunk)
    assert want[-batch].isnan().all()
    torch.testing.assert_close(got.y.reshape(want.shape), want, rtol=0, atol=1e-5, equal_nan=True)
    torch.testing.assert_close(got.c, end.c, rtol=1e-5, atol=1e-5, equal_nan=True)
