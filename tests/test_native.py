"""The native kernels against the reference executor, in whichever instruction set serves; CI forces each in turn.

The oracle walks beside a native run: each of its timesteps starts from the h that the native run gave before, so that
roundings to integers and threshold decisions are the same and errors cannot build up. Only a single layer shows all its
states that way; a stack must equal its layers run one after the other, bit for bit.
"""

import ctypes
import gc
import itertools
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pytest
import torch

from adaptive_lstm import _native, reference
from adaptive_lstm.backend import NativeStack
from adaptive_lstm.executor import Executor
from adaptive_lstm.policies import Delta, Dense, Policy
from adaptive_lstm.quantize import Precision, Quantize, quantize_matrix
from adaptive_lstm.types import StackShape, StreamState
from adaptive_lstm.weights import Matrix, PairMatrices, PairTensors, tensors_of

Format = Literal["fp32", "bf16", "i8", "q8"]  # i8: weights only; q8: integer activations too
FORMATS: tuple[Format, ...] = ("fp32", "bf16", "i8", "q8")
PRECISION: dict[Format, Precision] = {"fp32": "fp32", "bf16": "bf16", "i8": "int8", "q8": "int8"}
CPU = torch.device("cpu")
TOLERANCE = {Dense: 2e-6, Delta: 1e-5}  # of h, in -1..1; a float estimate rounds at every update
PAIRS: list[tuple[Format, Format]] = [
    ("fp32", "fp32"), ("fp32", "q8"), ("bf16", "fp32"), ("i8", "bf16"), ("q8", "i8"), ("q8", "q8"),
]  # of w_ih and w_hh; the other ten differ in nothing that a kernel sees


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@dataclass(frozen=True)
class Layer:
    """Sizes of a run of one layer."""

    hidden: int
    input: int
    batch: int
    time: int
    directions: int = 1
    projection: int = 0
    given: bool = False  # start from given states
    layout: str = "time first"

    @property
    def shape(self) -> StackShape:
        return StackShape(self.input, self.hidden, 1, self.projection, self.directions == 2)


# A chunk holds 64 rows: batches of 1, 2 and 7 end inside one, a batch of 70 is more than one.
LAYERS = (
    Layer(1, 1, 1, 65, directions=2),
    Layer(33, 40, 1, 200, layout="wide rows"),
    Layer(7, 3, 2, 65, directions=2, given=True, layout="batch first"),
    Layer(130, 130, 1, 63, projection=33, layout="every second row"),
    Layer(33, 1, 7, 64, given=True, layout="wide rows"),
    Layer(300, 40, 2, 5, projection=7, given=True),
    Layer(130, 3, 70, 5, directions=2, layout="batch first"),
    Layer(7, 130, 70, 1, layout="every second row"),
    Layer(300, 3, 7, 1, directions=2),
    Layer(33, 40, 2, 64, layout="repeated row"),
)


def matrix(rows: int, columns: int, form: Format, levels: int, gain: float = 2.0) -> Matrix:
    w = (torch.randn(rows, columns) * gain / columns**0.5).numpy()
    return quantize_matrix(w, PRECISION[form], levels if form == "q8" else 0)


def weights(
    shape: StackShape, x: Format = "fp32", h: Format = "fp32", x_levels: int = 127, h_levels: int = 1016, gain: float = 2.0
) -> list[PairMatrices]:
    gates, p = 4 * shape.hidden_size, shape.output_size
    floats: Format = "i8" if h == "q8" else h
    return [
        PairMatrices(
            w_ih=matrix(gates, shape.input_width(pair), x, x_levels, gain),
            w_hh=matrix(gates, p, h, h_levels, gain),
            bias=torch.randn(gates).numpy(),
            w_hr=matrix(p, shape.hidden_size, floats, 0) if shape.proj_size else None,
        )
        for pair in range(shape.pairs)
    ]


def laid_out(x: torch.Tensor, layout: str) -> torch.Tensor:
    """The same values [T, B, I] with other strides; "batch first": [B, T, I]; "repeated row": all batch rows are one."""
    if layout == "batch first":
        return x.transpose(0, 1).contiguous()
    if layout == "wide rows":
        return torch.nn.functional.pad(x, (0, 3), value=float("nan"))[..., : x.shape[-1]]
    if layout == "every second row":
        return x.repeat_interleave(2, dim=1)[:, ::2]
    return x[:, :1].expand(x.shape) if layout == "repeated row" else x


@dataclass
class Result:
    y: torch.Tensor  # [T, B, D * P] or packed
    h: torch.Tensor
    c: torch.Tensor
    counts: list[tuple[int, int, int]]


def run(
    native: NativeStack,
    x: torch.Tensor,
    *,
    sizes: list[int] | None = None,
    batch_first: bool = False,
    start: tuple[torch.Tensor, torch.Tensor] | None = None,
    state: _native.State | None = None,
    refuse: bool = False,
) -> Result:
    """One native call. With ``state``, it goes on from there; with ``refuse``, inputs that are not finite are refused."""
    shape, (time, row) = native.shape, (1, 0) if batch_first else (0, 1)
    batch = sizes[0] if sizes else x.shape[row]
    pooled = native.acquire(batch) if state is None else state
    if start is not None:
        pooled.load(start[0].numpy(), start[1].numpy())
    y = torch.full((*x.shape[:-1], shape.directions * shape.output_size), float("nan"))
    if sizes is None:
        strides = (x.stride(time), x.stride(row), y.data_ptr(), y.stride(time), y.stride(row))
        done = pooled.run(x.data_ptr(), *strides, x.shape[time], 0, refuse)
    else:
        alive = torch.tensor(sizes)
        strides = (0, shape.input_size, y.data_ptr(), 0, y.shape[-1])
        done = pooled.run(x.data_ptr(), *strides, len(sizes), alive.data_ptr(), refuse)
    assert done is not refuse or bool(torch.isfinite(x).all())
    h, c = torch.empty(shape.pairs, batch, shape.output_size), torch.empty(shape.pairs, batch, shape.hidden_size)
    pooled.store(h.numpy(), c.numpy())
    result = Result(y.transpose(0, 1) if batch_first else y, h, c, pooled.counters())
    if state is None:
        native.release(pooled)
    return result


@dataclass
class Walk:
    error: float  # largest of h and y
    c: torch.Tensor  # [B, H] at the end
    x_sent: int = 0
    h_sent: int = 0


def walk(
    w: PairMatrices, policy: Policy, x: torch.Tensor, y: torch.Tensor, h: torch.Tensor, c: torch.Tensor, backward: bool
) -> Walk:
    """Walks beside a native run of one layer in one direction. x [T, B, I], y [T, B, P], h [B, P], c [B, H]."""
    # Integers and decisions come out the same only where they are computed in the same float type.
    dtype = torch.float64 if isinstance(policy, Dense) and not w.w_ih.levels and not w.w_hh.levels else torch.float32
    tensors = w.tensors(dtype, CPU)
    shape = StackShape(x.shape[-1], c.shape[-1], 1, h.shape[-1] if w.w_hr else 0)
    state = reference.start(shape, h[None].to(dtype), c[None].to(dtype))
    done = Walk(0.0, c)
    for t in reversed(range(len(x))) if backward else range(len(x)):
        out, state, (count,) = reference.run([tensors], shape, policy, x[t].to(dtype), [x.shape[1]], state)
        error = (out - y[t]).abs().max().item()
        assert error == error, f"NaN at timestep {t}"
        done.error = max(done.error, error)
        done.x_sent, done.h_sent = done.x_sent + count.x_sent, done.h_sent + count.h_sent
        state = replace(state, h=y[t][None].to(dtype))
    done.c = state.c[0].float()
    return done


Activity = Literal["dense", "few", "many"]


def policy_of(shape: StackShape, activity: Activity) -> Policy:
    """"few": thresholds that a slow signal seldom passes; "many": tiny ones, some of them 0."""
    if activity == "dense":
        return Dense()

    def thresholds(width: int) -> tuple[float, ...]:
        t = torch.rand(width) * 0.2 + 0.1 if activity == "few" else torch.rand(width) * 1e-3 * (torch.rand(width) > 0.2)
        return tuple(t.tolist())

    pairs = range(shape.pairs)
    return Delta(
        h=tuple(thresholds(shape.output_size) for _ in pairs), x=tuple(thresholds(shape.input_width(p)) for p in pairs)
    )


def signal(time: int, batch: int, width: int, activity: Activity = "many") -> torch.Tensor:
    """White noise, or for "few" one that drifts slowly; some values lie beyond the -1..1 that integers reach."""
    if activity == "few":
        return 0.5 * torch.randn(batch, width) + 0.02 * torch.randn(time, batch, width).cumsum(0)
    return 0.7 * torch.randn(time, batch, width)


def states(shape: StackShape, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(shape.pairs, batch, shape.output_size) * 2 - 1, torch.randn(shape.pairs, batch, shape.hidden_size)


def zeros(shape: StackShape, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(shape.pairs, batch, shape.output_size), torch.zeros(shape.pairs, batch, shape.hidden_size)


def compare(
    matrices: list[PairMatrices], shape: StackShape, policy: Policy, x: torch.Tensor, start: tuple[torch.Tensor, torch.Tensor], got: Result
) -> list[Walk]:
    """Asserts that a run of one layer did what the reference does; x and got.y are [T, B, ...]."""
    p, walks = shape.output_size, []
    for d, w in enumerate(matrices):
        site = Delta(h=(policy.h[d],), x=(policy.x[d],)) if isinstance(policy, Delta) else policy  # type: ignore[index]
        y = got.y[..., d * p : (d + 1) * p]
        done = walk(w, site, x, y, start[0][d], start[1][d], backward=d == 1)
        assert done.error <= TOLERANCE[type(policy)]
        torch.testing.assert_close(got.h[d], y[0 if d else -1], rtol=0, atol=0)
        torch.testing.assert_close(got.c[d], done.c, rtol=1e-5, atol=1e-5)
        assert got.counts[d] == (done.x_sent, done.h_sent, x.shape[0] * x.shape[1])
        walks.append(done)
    return walks


@pytest.mark.parametrize("activity", ["dense", "few", "many"])
@pytest.mark.parametrize(("x_form", "h_form"), PAIRS)
def test_layer_follows_the_reference(x_form: Format, h_form: Format, activity: Activity) -> None:
    for layer in LAYERS:
        shape = layer.shape
        matrices, policy = weights(shape, x_form, h_form), policy_of(shape, activity)
        x = laid_out(signal(layer.time, layer.batch, layer.input, activity), layer.layout)
        batch_first = layer.layout == "batch first"
        start = (states if layer.given else zeros)(shape, layer.batch)
        got = run(NativeStack(matrices, shape, policy), x, batch_first=batch_first, start=start if layer.given else None)
        walks = compare(matrices, shape, policy, x.transpose(0, 1) if batch_first else x, start, got)
        if activity != "dense" and layer.time > 60 and layer.input > 1:  # both ways to send were taken
            shares = [w.x_sent / (layer.time * layer.batch * layer.input) for w in walks]
            assert all(share < 0.2 if activity == "few" else share > 0.5 for share in shares)


@pytest.mark.parametrize("activity", ["dense", "few", "many"])
@pytest.mark.parametrize(("x_form", "h_form"), [("fp32", "q8"), ("q8", "fp32"), ("q8", "q8"), ("bf16", "i8")])
def test_packed_rows_are_those_of_each_row_alone(x_form: Format, h_form: Format, activity: Activity) -> None:
    shape = StackShape(40, 33, 1, bidirectional=True)
    matrices, policy = weights(shape, x_form, h_form), policy_of(shape, activity)
    lengths = [70, 66, 66, 20, 3, 1, 1]
    x, start = signal(lengths[0], len(lengths), 40, activity), states(shape, len(lengths))
    sizes = [sum(n > t for n in lengths) for t in range(lengths[0])]
    rows = torch.cat([x[t, :n] for t, n in enumerate(sizes)])
    got = run(NativeStack(matrices, shape, policy), rows, sizes=sizes, start=start)
    first = [sum(sizes[:t]) for t in range(len(sizes))]
    total = [(0, 0, 0)] * 2
    for b, n in enumerate(lengths):
        y = got.y[[first[t] + b for t in range(n)]][:, None]
        for d in range(2):
            site = Delta(h=(policy.h[d],), x=(policy.x[d],)) if isinstance(policy, Delta) else policy  # type: ignore[index]
            part = y[..., d * 33 : (d + 1) * 33]
            done = walk(matrices[d], site, x[:n, b : b + 1], part, start[0][d, b : b + 1], start[1][d, b : b + 1], d == 1)
            assert done.error <= TOLERANCE[type(policy)]
            assert torch.equal(got.h[d, b], part[0 if d else -1, 0])
            torch.testing.assert_close(got.c[d, b], done.c[0], rtol=1e-5, atol=1e-5)
            total[d] = (total[d][0] + done.x_sent, total[d][1] + done.h_sent, total[d][2] + n)
    assert got.counts == total


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("activity", ["dense", "few", "many"])
@pytest.mark.parametrize(("directions", "projection", "batch"), [(1, 0, 1), (2, 0, 3), (1, 9, 70), (2, 9, 2)])
def test_stack_is_its_layers_bit_for_bit(directions: int, projection: int, batch: int, activity: Activity, packed: bool) -> None:
    shape = StackShape(3, 33, 3, projection, directions == 2)
    choice = random.Random(0)
    matrices = [
        weights(replace(shape, input_size=shape.input_width(pair), num_layers=1), *choice.sample(FORMATS, 2))[0]
        for pair in range(shape.pairs)
    ]
    policy, start = policy_of(shape, activity), states(shape, batch)
    x = signal(80, batch, 3, activity)
    sizes = [batch] * 40 + [max(1, batch // 2)] * 40 if packed else None
    if sizes:
        x = torch.cat([x[t, :n] for t, n in enumerate(sizes)])
    got = run(NativeStack(matrices, shape, policy), x, sizes=sizes, start=start)
    for layer in range(3):
        own = slice(layer * directions, (layer + 1) * directions)
        one = replace(shape, input_size=shape.input_width(own.start), num_layers=1)
        part = Delta(h=policy.h[own], x=policy.x[own]) if isinstance(policy, Delta) else policy  # type: ignore[index]
        alone = run(NativeStack(matrices[own], one, part), x, sizes=sizes, start=(start[0][own], start[1][own]))
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
        (Quantize("int8"), 2e-3),  # values that float64 rounds to another integer
        (Quantize("fp32", raw="int8"), 2e-6),
        (Quantize("bf16", matrices={"weight_hh_l0": "fp32", "weight_ih_l1": "int8", "weight_hh_l1": "int8"}), 2e-3),
    ],
)
@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "batch_first": True}, {"proj_size": 5, "bias": False}])
def test_executor_follows_itself_in_float64(quantize: Quantize, tolerance: float, options: dict[str, bool]) -> None:
    lstm = torch.nn.LSTM(40, 33, 2, **options)
    with torch.no_grad():
        tensors = [replace(t, bias=2 * t.bias) for t in tensors_of(lstm)]
    shape = StackShape(40, 33, 2, lstm.proj_size, lstm.bidirectional)
    native = Executor(tensors, shape, quantize, Dense())
    double = Executor([_double(t) for t in native.tensors], shape, Quantize(), Dense())
    assert native.native is not None
    assert double.native is None
    x, start = torch.randn(5, 100, 40), states(shape, 5 if lstm.batch_first else 100)
    got = native.run(x, None, lstm.batch_first, start)
    want = double.run(x.double(), None, lstm.batch_first, (start[0].double(), start[1].double()))
    for a, b, factor in zip(got[:3], want[:3], (1, 1, 10), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=0, atol=factor * tolerance)
        assert (a - b).abs().mean() < tolerance / 10


def _double(t: PairTensors) -> PairTensors:
    w_hr = None if t.w_hr is None else t.w_hr.double()
    return replace(t, w_ih=t.w_ih.double(), w_hh=t.w_hh.double(), bias=t.bias.double(), w_hr=w_hr)


# ------------------------------------------------------------------------------------------------- exact integers


@pytest.mark.parametrize("levels", [1, 127, 128, 1016, 8191])
@pytest.mark.parametrize("batch", [1, 2, 7, 70])
def test_int8_is_exact_however_it_is_computed(batch: int, levels: int) -> None:
    """Dense, with columns that moved at all, step by step and in chunks: the same bits."""
    shape = StackShape(40, 130, 2)
    matrices = weights(shape, "q8", "q8", levels, levels, gain=6.0)
    tiny = NativeStack(matrices, shape, Delta(h=1e-9, x=(1e-9, 1e-9)))
    dense = NativeStack(matrices, shape, Dense())
    x = torch.rand(100, batch, 40) * 2.4 - 1.2
    x[20:60] = x[20]  # a quiet stretch: few columns move, then many
    want = run(dense, x)
    got = run(tiny, x)
    assert torch.equal(got.y, want.y)
    assert torch.equal(got.c, want.c)
    for native in (dense, tiny):
        state = native.new_state(batch)
        for part in (x[:1], x[1:2], x[2:50], x[50:51], x[51:]):
            part_got = run(native, part, state=state)
            assert torch.equal(part_got.y, want.y[len(want.y) - len(x) :][: len(part)])
            want = replace(want, y=want.y[len(part) :])
            x = x[len(part) :]
        x, want = _again(dense, shape, batch)
