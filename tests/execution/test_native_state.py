"""What native states remember and forget, who may use them at once, and what the extension refuses."""

import threading
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.nn.utils.rnn import PackedSequence

import adaptive_lstm as al
from adaptive_lstm import _native
from adaptive_lstm.errors import InputError
from adaptive_lstm.policies import Dense
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
    assert other.counters() == [(0, 0, 0, 0)] * 2
    got = torch.cat([run(native, some, state=other).y for some in x[30:].split([10, 20])])
    torch.testing.assert_close(got, y[30:], rtol=0, atol=0 if form in ("int8", "int8_per_column") else 1e-5)


def test_a_state_knows_whether_it_has_started() -> None:
    shape = StackShape(5, 33, 2)
    native = stack(weights(shape, "int8", "fp32"), shape, policy_of(shape, "few"))
    state, x = native.new_state(3), signal(7, 3, 5)
    started = [state.started]
    run(native, x[:0], state=state)
    run(native, torch.full_like(x, float("nan")), state=state, check=True)
    started.append(state.started)
    assert native.read(state).sent_x == (None, None)
    run(native, x, state=state)
    started.append(state.started)
    value = native.read(state)
    assert all(sent is not None for sent in (*value.sent_x, *value.sent_h))
    state.reset(3)
    started.append(state.started)
    native.write(state, value)
    started.append(state.started)
    assert started == [False, False, True, False, True]


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


def test_threads_share_one_stack() -> None:
    shape = StackShape(6, 65, 2)
    native = stack(weights(shape, "fp32", "int8"), shape, policy_of(shape, "many"))
    inputs = [signal(150, batch, 6) for batch in (1, 2, 3, 1)]
    want = [run(native, x).y for x in inputs]
    right: list[bool] = []

    def work(x: torch.Tensor, y: torch.Tensor) -> None:
        right.extend(torch.equal(run(native, x).y, y) for _ in range(10))

    threads = [threading.Thread(target=work, args=cell) for cell in zip(inputs, want, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 40


def test_two_threads_on_one_state_are_told() -> None:
    shape = StackShape(6, 130, 2)
    native = stack(weights(shape, "fp32", "fp32"), shape, Dense())
    state, x = native.new_state(1), signal(5000, 1, 6)
    errors: list[str] = []

    def advance(some: torch.Tensor) -> None:
        try:
            run(native, some, state=state)
        except RuntimeError as error:
            errors.append(str(error))

    thread = threading.Thread(target=advance, args=(x,))
    thread.start()
    while thread.is_alive() and not errors:
        advance(x[:1])
    thread.join()
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


# ------------------------------------------------------------------------------------------------- wrong arguments

SCALE = np.ones(8, np.float32)


def floats(*shape: int) -> npt.NDArray[np.float32]:
    return np.zeros(shape, np.float32)


def bytes_of_ones(rows: int, columns: int) -> npt.NDArray[np.int8]:
    return np.ones((rows, columns), np.int8)


def ones(rows: int, columns: int) -> _native.Matrix:
    return _native.Matrix(np.ones((rows, columns), np.float32))


def int8(columns: int, *, rows: int = 8, scale: int = 8, levels: int = 127) -> _native.Matrix:
    return _native.Matrix(bytes_of_ones(rows, columns), SCALE[:scale], levels=levels)


def ranged(scale: npt.NDArray[np.float32] | None, *, columns: bool, dynamic: bool = False) -> _native.Matrix:
    ones = bytes_of_ones(8, 2)
    return _native.Matrix(ones, SCALE, levels=9, column_scale=scale, dynamic=dynamic, columns=columns)


def live(units: int) -> npt.NDArray[np.bool_]:
    return np.ones(units, np.bool_)


def cell(
    width: int = 3,
    hidden: int = 2,
    output: int = 2,
    w_hr: _native.Matrix | None = None,
    live: npt.NDArray[np.bool_] | None = None,
    constant: npt.NDArray[np.float32] | None = None,
) -> _native.Cell:
    w_ih, w_hh = ones(4 * hidden, width), ones(4 * hidden, output)
    return _native.cell(w_ih, w_hh, floats(4 * hidden), w_hr, live=live, constant=constant)


def half_pruned(*, w_hh: bool, bias: bool) -> _native.Cell:
    """H = 32 with half of the units left out of w_ih and, where asked, of the rest."""
    half, constant = np.arange(32) < 16, floats(32)
    pruned, whole = (_native.Matrix(floats(128, 32), live=mask) for mask in (half, None))
    return _native.cell(
        pruned,
        pruned if w_hh else whole,
        floats(128),
        live=half if bias else None,
        constant=constant if bias else None,
    )


def plan(*layers: list[_native.Cell]) -> _native.Plan:
    return _native.Plan(list(layers))


def columns(thresholds: list[list[_native.Thresholds]]) -> _native.Policy:
    return _native.policy(thresholds)


NONE, LONG = np.zeros(1, np.uint8), np.zeros(1, np.int64)


def affine(rows: int, width: int) -> _native.Affine:
    return _native.affine(floats(rows, width), floats(rows))


def time_exit(
    every: int = 1, starts: list[int] | None = None, maps: list[_native.Affine] | None = None
) -> _native.TimeExit:
    return _native.time_exit(every, 1, 2, None, starts or [0], [0.1], [0], maps or [], [])


def with_exit(time: _native.TimeExit) -> _native.State:
    return _native.State(plan([cell()]), _native.policy([], time_exit=time), 1)


def with_queue() -> _native.State:
    """Of up to two inputs."""
    policy = _native.policy([], [_native.hold(0.1, None, 2, "queue_input")])
    return _native.State(plan([cell()]), policy, 1)


def state(x: int | None, h: int | None, w_ih: _native.Matrix | None = None) -> _native.State:
    """Of a layer with I = 3 and H = 2, with so many thresholds."""
    limits = _native.thresholds(None if x is None else floats(x), None if h is None else floats(h))
    layer = _native.cell(w_ih or ones(8, 3), ones(8, 2), SCALE)
    return _native.State(plan([layer]), columns([[limits]]), 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ones(7, 3), "multiple of 4 rows"),
        (lambda: int8(2, scale=7, levels=0), "scale needs one value"),
        (lambda: int8(2, scale=7), "scale needs one value per row"),
        (lambda: ranged(SCALE, columns=True), "value per column"),
        (lambda: ranged(None, columns=True, dynamic=True), "a range of their own leave no columns apart"),
        (lambda: ranged(SCALE[:2], columns=False, dynamic=True), "have no scale per column"),
        (lambda: _native.Matrix(floats(8, 3), live=live(3)), "live needs one value per unit"),
        (lambda: _native.Matrix(floats(8, 3), live=live(2), gates=False), "live needs one value per unit"),
        (lambda: _native.Matrix(bytes_of_ones(8, 2)), "int8 weights need a scale"),
        (lambda: _native.Matrix(floats(8, 2), SCALE), "float weights have neither a scale nor levels"),
        (lambda: _native.Matrix(floats(8, 2), levels=127), "float weights have neither a scale nor levels"),
        (lambda: _native.Matrix(bytes_of_ones(8, 2), SCALE, dynamic=True), "only int8 weights with levels"),
        (lambda: _native.Matrix(floats(8, 2), bitmask="often"), "bitmask: got 'often'"),  # type: ignore[arg-type]
        (lambda: int8(2, levels=-1), "levels must lie in 1..8191"),
        (lambda: int8(2, levels=8192), "levels must lie in 1..8191"),
        (lambda: int8(1029, levels=8191), "levels times columns is too large for 32-bit sums"),
        (lambda: _native.cell(ones(8, 3), ones(8, 2), SCALE[:7]), r"bias needs 4 \* hidden values"),
        (lambda: cell(live=live(3), constant=floats(2)), "live needs one value per unit"),
        (lambda: cell(live=live(2), constant=floats(3)), "constant needs one value per unit"),
        (lambda: cell(live=live(2)), "live and constant come together"),
        (lambda: cell(constant=floats(2)), "live and constant come together"),
        (lambda: plan(), "at least one layer"),
        (lambda: plan([]), "at least one layer"),
        (lambda: plan([cell()], [cell(2), cell(2)]), "same number of directions"),
        (lambda: plan([cell()], [cell(3)]), "not what the layer below gives"),
        (lambda: plan([cell(), cell(4)]), "not what the layer below gives"),
        (lambda: plan([cell(), cell(hidden=3, output=3)]), "both directions of a layer need the same width"),
        (lambda: plan([cell(output=1)]), "without projection the output is as wide"),
        (lambda: plan([_native.cell(ones(8, 3), ones(12, 2), SCALE)]), r"needs 4 \* hidden rows"),
        (lambda: plan([half_pruned(w_hh=False, bias=True)]), "must leave out the same units"),
        (lambda: plan([half_pruned(w_hh=True, bias=False)]), "the bias needs one value per packed row"),
        (lambda: plan([cell(output=1, w_hr=ones(4, 2))]), r"must be \[output, hidden\]"),
        (lambda: plan([cell(output=8, w_hr=int8(2))]), "projection takes float activations"),
        (lambda: _native.State(plan([cell()]), columns([]), -1), "must not be negative"),
        (lambda: _native.State(plan([cell()]), columns([[], []]), 1), "one entry per layer"),
        (lambda: _native.State(plan([cell()]), columns([[]]), 1), "one entry per direction"),
        (lambda: state(4, 2), "x thresholds need one value per input column"),
        (lambda: state(3, 3), "h thresholds need one value per recurrent column"),
        (lambda: state(3, None, int8(3)), "must be packed with columns=True"),
        (lambda: state(None, 2).store_sent(0, "x", floats(1, 3)), "no thresholds"),
        (lambda: state(3, 2).store_sent(1, "x", floats(1, 3)), "no such cell"),
        (lambda: state(3, 2).load_sent(-1, "h", floats(1, 3)), "no such cell"),
        (lambda: state(3, 2).load_sent(0, "h", floats(1, 3)), "wrong number of values"),
        (lambda: state(3, 2).load(floats(1, 1, 2), floats(1, 2, 2)), "wrong number of values"),
        (lambda: _native.hold(0.1, None, 0, "hold_state"), "cap must be at least 1"),
        (lambda: _native.hold(0.1, None, 1, "nothing"), "action must be hold_gates, hold_state or queue_input"),
        (lambda: _native.head(True, "luck"), "unknown measure"),
        (lambda: _native.affine(floats(2, 3), floats(3)), "one bias per row"),
        (lambda: time_exit(every=0), "must be at least 1"),
        (lambda: time_exit(starts=[1]), "time buckets start at 0"),
        (lambda: time_exit(maps=[affine(2, 2)] * 2), "one map per time bucket"),
        (lambda: with_exit(time_exit(maps=[affine(2, 3)])), "does not fit the stack"),
        (lambda: with_exit(time_exit()).store_exit(NONE, floats(2), LONG, floats(2)), "wrong number of values"),
        (lambda: _native.depth_exit(False, None, [True], [0.1], [affine(2, 2)], [affine(2, 2)], []), "nothing to comp"),
        (lambda: _native.depth_exit(False, None, [False], [], [], [], []), "one entry per layer but the top"),
        (lambda: state(3, 2).store_hold(0, LONG, floats(8), None, None, None, None), "holds nothing"),
        (lambda: with_queue().store_hold(0, LONG, floats(8), None, None, None, None), "wrong number of values"),
        (lambda: with_queue().load_hold(0, LONG, floats(8), floats(3), floats(2), floats(6), LONG + 3), "0 to cap"),
        (lambda: state(3, 2).store(floats(1, 2, 2), floats(1, 1, 2)), "wrong number of values"),
    ],
)
def test_wrong_arguments_are_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda: _native.Matrix(),  # type: ignore[call-arg]
        lambda: _native.Matrix(floats(8)),
        lambda: _native.Matrix(np.ones((8, 2))),  # type: ignore[arg-type]
        lambda: _native.Matrix(floats(8, 3), live=floats(2)),  # type: ignore[arg-type]
        lambda: _native.cell(None, ones(8, 2), SCALE),  # type: ignore[arg-type]
        lambda: cell(live=floats(2), constant=floats(2)),  # type: ignore[arg-type]
        lambda: _native.Plan(cell()),  # type: ignore[arg-type]
        lambda: _native.State(None, columns([]), 1),  # type: ignore[arg-type]
        lambda: state(3, 2).load(floats(2), floats(2)),
    ],
)
def test_wrong_types_are_refused(call: Callable[[], object]) -> None:
    with pytest.raises(TypeError):
        call()
