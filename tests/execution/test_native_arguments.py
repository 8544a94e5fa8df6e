"""The extension called by hand: what it refuses, before anything is built or changed."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from adaptive_lstm import _native

SCALE = np.ones(8, np.float32)


def floats(*shape: int) -> npt.NDArray[np.float32]:
    return np.zeros(shape, np.float32)


def bytes_of_ones(rows: int, columns: int) -> npt.NDArray[np.int8]:
    return np.ones((rows, columns), np.int8)


def ones(rows: int, columns: int) -> _native.Matrix:
    return _native.Matrix(np.ones((rows, columns), np.float32))


def int8(columns: int, *, rows: int = 8, scale: int = 8, levels: int = 127, gates: bool = True) -> _native.Matrix:
    return _native.Matrix(bytes_of_ones(rows, columns), SCALE[:scale], levels=levels, gates=gates)


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


def projection(rows: int, columns: int) -> _native.Matrix:
    return _native.Matrix(floats(rows, columns), gates=False)


def blocks(*, columns: bool, bitmask: Any = "never") -> _native.Matrix:
    """[128, 32] with one row of ones, so that most blocks are zeros."""
    values = floats(128, 32)
    values[0] = 1.0
    return _native.Matrix(values, columns=columns, bitmask=bitmask)


def with_columns(w_ih: _native.Matrix, thresholds: int | None) -> _native.State:
    """Of a layer with I = H = 32, with so many thresholds of x."""
    limits = _native.thresholds(None if thresholds is None else floats(thresholds), None)
    layer = _native.cell(w_ih, ones(128, 32), floats(128))
    return _native.State(plan([layer]), columns([[limits]]), 1)


def run(of: _native.State, steps: int = 1, sizes: list[int] | None = None) -> bool:
    """A run of one row with I = 3 and P = 2 that has room for two timesteps."""
    x, y, alive = floats(2, 3), floats(2, 2), np.array(sizes or [1], np.int64)
    address = alive.ctypes.data if sizes else 0
    steps = len(sizes) if sizes else steps
    return of.run(x.ctypes.data, 3, 3, y.ctypes.data, 2, 2, steps, address, check=True, open_ended=True)


def forward(of: _native.State, *, h_0: bool = False, c_0: bool = False, end: bool = True) -> bool:
    x, some = floats(1, 3), floats(2)
    there = some.ctypes.data
    given, last = (there if h_0 else 0, 2, 2, there if c_0 else 0, 2, 2), there if end else 0
    return of.forward(1, x.ctypes.data, 3, 3, there, 2, 2, 1, 0, True, last, last, *given)


def step_rows(of: _native.State, *rows: int, x: bool = True) -> bool:
    values, chosen = floats(9, 3), np.array(rows, np.int64)
    address = values.ctypes.data if x else 0
    return of.step_rows(chosen.ctypes.data, len(rows), address, floats(9, 2).ctypes.data)


def take_rows(of: _native.State, to: list[int], other: _native.State, rows: list[int]) -> None:
    of.take_rows(np.array(to, np.int64), other, np.array(rows, np.int64))


def taken(to: list[int], rows: list[int], *, from_itself: bool = False) -> None:
    shared, policy = plan([cell()]), columns([])
    of, other = (_native.State(shared, policy, 2) for _ in range(2))
    take_rows(of, to, of if from_itself else other, rows)


def with_rows_left() -> _native.State:
    of = _native.State(plan([cell()]), columns([]), 3)
    of.leave(np.array([1]), floats(1, 2))
    return of


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


def affine(rows: int, width: int) -> _native.Affine:
    return _native.affine(floats(rows, width), floats(rows))


def time_exit(
    every: int = 1,
    starts: list[int] | None = None,
    maps: list[_native.Affine] | None = None,
    *,
    patience: int = 1,
    window: int = 2,
) -> _native.TimeExit:
    starts = starts or [0]
    return _native.time_exit(every, patience, window, None, starts, [0.1] * len(starts), [0], maps or [], [])


def with_exit(time: _native.TimeExit) -> _native.State:
    return _native.State(plan([cell()]), _native.policy([], time_exit=time), 1)


def queue(cap: int) -> _native.Hold:
    return _native.hold(0.1, None, cap, "queue_input")


def state(x: int | None, h: int | None, w_ih: _native.Matrix | None = None) -> _native.State:
    """Of a layer with I = 3 and H = 2, with so many thresholds."""
    limits = _native.thresholds(None if x is None else floats(x), None if h is None else floats(h))
    layer = _native.cell(w_ih or ones(8, 3), ones(8, 2), SCALE)
    return _native.State(plan([layer]), columns([[limits]]), 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ones(7, 3), "multiple of 4 rows"),
        (lambda: ones(0, 3), "rows and columns"),
        (lambda: _native.Matrix(floats(8, 0), gates=False), "rows and columns"),
        (lambda: _native.cell(_native.Matrix(floats(8, 3), gates=False), ones(8, 2), SCALE), "packed with gates=True"),
        (lambda: cell(output=4, w_hr=ones(4, 2)), "w_hr with gates=False"),
        (lambda: with_columns(blocks(columns=True), None), "needs thresholds where it is stored in blocks"),
        (lambda: with_columns(blocks(columns=False), 32), "must be packed with columns=True"),
        (lambda: with_columns(blocks(columns=False, bitmask="always"), 32), "must be packed with columns=True"),
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
        (lambda: plan([cell()] * 3), "one or two directions"),
        (lambda: plan([cell()], [cell(2), cell(2)]), "same number of directions"),
        (lambda: plan([cell()], [cell(3)]), "not what the layer below gives"),
        (lambda: plan([cell(), cell(4)]), "not what the layer below gives"),
        (lambda: plan([cell(), cell(hidden=3, output=3)]), "both directions of a layer need the same width"),
        (lambda: plan([cell(output=1)]), "without projection the output is as wide"),
        (lambda: plan([_native.cell(ones(8, 3), ones(12, 2), SCALE)]), r"needs 4 \* hidden rows"),
        (lambda: plan([half_pruned(w_hh=False, bias=True)]), "must leave out the same units"),
        (lambda: plan([half_pruned(w_hh=True, bias=False)]), "the bias needs one value per packed row"),
        (lambda: plan([cell(output=1, w_hr=projection(4, 2))]), r"must be \[output, hidden\]"),
        (lambda: plan([cell(output=8, w_hr=int8(2, gates=False))]), "projection takes float activations"),
        (lambda: _native.State(plan([cell()]), columns([]), -1), "batch size must be 0 to"),
        (lambda: _native.State(plan([cell()]), columns([]), 2**31 - 1), "batch size must be 0 to"),
        (lambda: state(3, 2).reset(2**31 - 1), "batch size must be 0 to"),
        (lambda: state(3, 2).reset(-1), "batch size must be 0 to"),
        (lambda: state(3, 2).step(0, 0), "null address"),
        (lambda: step_rows(state(3, 2), 1), "ascend within the batch"),
        (lambda: step_rows(state(3, 2), 0, 0), "ascend within the batch"),
        (lambda: step_rows(state(3, 2), -1), "ascend within the batch"),
        (lambda: step_rows(state(3, 2), 0, x=False), "null address"),
        (lambda: step_rows(with_rows_left(), 0), "rows have left"),
        (lambda: taken([0], [2]), "lie within the batch"),
        (lambda: taken([-1], [0]), "lie within the batch"),
        (lambda: taken([0, 1], [0]), "of one length"),
        (lambda: taken([0], [1], from_itself=True), "another state"),
        (lambda: take_rows(state(3, 2), [0], state(3, 2), [0]), "of the same plan"),
        (lambda: state(3, 2).run(0, 3, 3, 0, 2, 2, 1, check=True, open_ended=True), "null address"),
        (lambda: run(state(3, 2), steps=-1), "must not be negative"),
        (lambda: run(state(3, 2), sizes=[2]), "never grow"),
        (lambda: run(state(3, 2), sizes=[0, 1]), "never grow"),
        (lambda: run(state(3, 2), sizes=[-1]), "sizes must be 0"),
        (lambda: run(state(3, 2), sizes=[2**40]), "sizes must be 0"),
        (lambda: forward(state(3, 2), h_0=True), "h_0 and c_0 are null together"),
        (lambda: forward(state(3, 2), c_0=True), "h_0 and c_0 are null together"),
        (lambda: forward(state(3, 2), end=False), "h_n or c_n is a null address"),
        (lambda: _native.State(plan([cell()]), columns([[], []]), 1), "one entry per layer"),
        (lambda: _native.State(plan([cell()]), columns([[]]), 1), "one entry per direction"),
        (lambda: state(4, 2), "x thresholds need one value per input column"),
        (lambda: state(3, 3), "h thresholds need one value per recurrent column"),
        (lambda: state(3, None, int8(3)), "must be packed with columns=True"),
        (lambda: _native.hold(0.1, None, 0, "hold_state"), r"cap must be 1 to 2\^30"),
        (lambda: _native.hold(0.1, None, 2**62, "hold_state"), r"cap must be 1 to 2\^30"),
        (lambda: _native.hold(0.1, None, 4097, "queue_input"), "of a queue 1 to 4096"),
        (lambda: _native.policy([], [None, queue(2), queue(50)]), "wait for another layer that decides"),
        (lambda: _native.policy([], [queue(2), queue(2)]), "wait for another layer that decides"),
        (
            lambda: _native.policy([], [_native.hold(0.1, None, 3, "hold_state"), queue(2)]),
            "another layer that decides",
        ),
        (lambda: _native.hold(0.1, None, 1, "nothing"), "action must be hold_gates, hold_state or queue_input"),
        (lambda: _native.head(True, "luck"), "unknown measure"),
        (lambda: _native.affine(floats(2, 3), floats(3)), "one bias per row"),
        (lambda: _native.affine(floats(2, 0), floats(2)), "rows and columns"),
        (lambda: _native.affine(floats(0, 3), floats(0)), "rows and columns"),
        (lambda: _native.affine(floats(0, 0), floats(0)), "rows and columns"),
        (lambda: time_exit(every=0), r"every and patience must be 1 to 2\^30"),
        (lambda: time_exit(every=2**31 - 1), r"every and patience must be 1 to 2\^30"),
        (lambda: time_exit(patience=2**31 - 1), r"every and patience must be 1 to 2\^30"),
        (lambda: time_exit(window=2**31 - 1), "window must be 1 to 4096"),
        (lambda: time_exit(window=-1), "window must be 1 to 4096"),
        (lambda: time_exit(starts=[1]), "time buckets start at 0"),
        (lambda: time_exit(starts=[0, 5, 3]), "time buckets start at 0 and ascend"),
        (lambda: time_exit(maps=[affine(2, 2)] * 2), "one map per time bucket"),
        (lambda: with_exit(time_exit(maps=[affine(2, 3)])), "does not fit the stack"),
        (lambda: _native.depth_exit(False, None, [True], [0.1], [affine(2, 2)], [affine(2, 2)], []), "nothing to comp"),
        (lambda: _native.depth_exit(False, None, [False], [], [], [], []), "one entry per layer but the top"),
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
        lambda: _native.Matrix(floats(8, 3).astype(np.float64)),  # type: ignore[arg-type]
        lambda: _native.Plan([cell()]),  # type: ignore[list-item]
        lambda: state(3, 2).step(-1, -1),
        lambda: state(3, 2).reset(2**31),
    ],
)
def test_wrong_types_are_refused(call: Callable[[], object]) -> None:
    with pytest.raises(TypeError):
        call()


# --------------------------------------------------------------------------- arrays of whole states


H, SENT = floats(1, 1, 2), [None]
Arguments = Any  # of State.read and State.write


def of_state(
    h: Any = H, c: Any = H, sent_x: Any = SENT, sent_h: Any = SENT, hold: Any = (), exit_: Any = None
) -> Arguments:
    return h, c, list(sent_x), list(sent_h), list(hold), exit_


def held(decides: bool = True, **changed: Any) -> Arguments:
    """Of a cell that queues up to two inputs."""
    parts: dict[str, Any] = (
        {"x_used": floats(1, 3), "h_used": floats(1, 2)} if decides else {"x_used": None, "h_used": None}
    )
    parts |= {"run": np.ones(1, np.int64), "gates": floats(1, 8)}
    parts |= {"queue": floats(1, 2, 3), "queued": np.ones(1, np.int64)} if decides else {"queue": None, "queued": None}
    return tuple((parts | changed).values())


def exits(**changed: Any) -> Arguments:
    parts: dict[str, Any] = {"time": one(0), "exited": np.zeros(1, np.bool_), "translation": floats(1, 2)}
    return tuple((parts | {"streak": one(0), "past": floats(1, 2, 2)} | changed).values())


def one(value: int) -> npt.NDArray[np.int64]:
    return np.full(1, value, np.int64)


def with_queue() -> _native.State:
    return _native.State(plan([cell()]), _native.policy([], [queue(2)]), 1)


WRONG_STATES: list[tuple[Callable[[], Any], Arguments, str]] = [
    (
        lambda: state(None, None),
        of_state(h=floats(1, 2, 2)),
        r"c: got shape \[1, 1, 2\], expected shape \[1, 2, 2\]|h: got",
    ),
    (lambda: state(None, None), of_state(h=None), "h: expected 3 dimensions|h: got None"),
    (lambda: state(None, None), of_state(c=floats(1, 1, 3)), "c: got shape"),
    (lambda: state(None, None), of_state(sent_x=[floats(1, 3)]), "sent x: got an array, expected None"),
    (lambda: state(3, 2), of_state(sent_h=[floats(1, 3)]), "sent h: got shape"),
    (lambda: state(3, 2), of_state(sent_h=[None, None]), "one per layer and direction"),
    (lambda: state(3, 2), of_state(hold=[held()]), "this policy holds nothing"),
    (with_queue, of_state(hold=[held(), held()]), "one per layer and direction"),
    (with_queue, of_state(hold=[held(False)]), "x_used: got None"),
    (with_queue, of_state(hold=[held(queue=floats(1, 3, 3))]), "queue: got shape"),
    (with_queue, of_state(hold=[held(run=None)]), "run: got None"),
    (with_queue, of_state(exit_=exits()), "no exit in time"),
    (lambda: with_exit(time_exit()), of_state(exit_=exits(past=floats(1, 3, 2))), "past: got shape"),
    (lambda: with_exit(time_exit()), of_state(exit_=exits(streak=None)), "streak: got None"),
]
WRONG_COUNTS: list[tuple[Callable[[], Any], Arguments, str]] = [
    (with_queue, of_state(hold=[held(run=one(-2))]), "run: got -2, expected -1 to"),
    (with_queue, of_state(hold=[held(run=one(2**63 - 1))]), "run: got 9223372036854775807"),
    (with_queue, of_state(hold=[held(queued=one(3))]), "queued: got 3, expected 0 to 2"),
    (with_queue, of_state(hold=[held(queued=one(2))]), "queued .* got 2, expected 0 to 1"),
    (with_queue, of_state(hold=[held(queued=one(-1))]), "queued: got -1"),
    (lambda: with_exit(time_exit()), of_state(exit_=exits(time=one(-1))), "time: got -1"),
    (lambda: with_exit(time_exit()), of_state(exit_=exits(time=one(2**63 - 1))), "time: got 9223372036854775807"),
    (lambda: with_exit(time_exit()), of_state(exit_=exits(streak=one(2**63 - 1))), "streak: got 9"),
]


@pytest.mark.parametrize(("make", "arguments", "message"), WRONG_STATES)
def test_arrays_of_wrong_shapes_are_refused(make: Callable[[], Any], arguments: Arguments, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make().write(*arguments)
    with pytest.raises(ValueError, match=message):
        make().read(*arguments)


@pytest.mark.parametrize(("make", "arguments", "message"), WRONG_COUNTS)
def test_impossible_counts_are_refused(make: Callable[[], Any], arguments: Arguments, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make().write(*arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        of_state(h=H.astype(np.float64)),  # a copy would be filled, and the caller's array left as it is
        of_state(h=np.asfortranarray(floats(1, 2, 2))[:, :1]),
        of_state(h=floats(1, 1, 4)[..., ::2]),
        of_state(h=[[[0.0, 0.0]]]),
        of_state(sent_h=[floats(1, 2).astype(np.float16)]),
        of_state(hold=[held(run=np.ones(1, np.int32))]),
        of_state(exit_=exits(exited=floats(1))),
    ],
    ids=["float64", "other order", "columns apart", "list", "float16", "int32", "float"],
)
def test_nothing_is_read_into_copies(arguments: Arguments) -> None:
    makers: list[Callable[[], Any]] = [lambda: state(3, 2), with_queue, lambda: with_exit(time_exit())]
    for make in makers:
        with pytest.raises((TypeError, ValueError)):
            make().read(*arguments)
    frozen = H.copy()
    frozen.flags.writeable = False
    with pytest.raises(TypeError):
        state(None, None).read(*of_state(h=frozen))


def test_a_plan_that_is_initialized_again_stays_as_it_is() -> None:
    made = plan([cell()])
    used = _native.State(made, columns([]), 1)
    with pytest.raises((TypeError, RuntimeError)):
        made.__init__(7)  # type: ignore[misc]
    assert run(used)
