"""Runs of the native kernels on addresses, and an oracle that walks beside them.

The oracle starts every timestep from the h that the native run gave before. So roundings to integers and threshold
decisions come out the same, errors cannot build up, and tolerances can be tight. It sees all of a single layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from adaptive_lstm import _native
from adaptive_lstm.execution import reference
from adaptive_lstm.execution.native_stack import NativeStack, UseBitmask
from adaptive_lstm.execution.reference_weights import dequantized
from adaptive_lstm.execution.runner import Chunk
from adaptive_lstm.policies import Delta, Dense, Policy, parts
from adaptive_lstm.types import StackShape, StreamState
from adaptive_lstm.weights.matrices import CellMatrices, Matrix
from adaptive_lstm.weights.precision import Precision
from adaptive_lstm.weights.quantization import quantize_matrix

# int8_weight_only: float activations; int8: integer activations too; int8_per_column: every column of them with a
# scale of its own; int8_dynamic: every timestep and batch row, for raw features alone.
Format = Literal["fp32", "bf16", "int8_weight_only", "int8", "int8_per_column", "int8_dynamic"]
Activity = Literal["dense", "few", "many"]  # nothing is skipped; most columns are; some are
States = tuple[torch.Tensor, torch.Tensor]  # h [L * D, B, P], c [L * D, B, H]

ACTIVITIES: tuple[Activity, ...] = ("dense", "few", "many")
# Formats of w_ih and w_hh: each at least once. The two are independent.
FORMATS: tuple[tuple[Format, Format], ...] = (
    ("fp32", "fp32"),
    ("fp32", "int8"),
    ("bf16", "fp32"),
    ("int8_weight_only", "bf16"),
    ("int8", "int8_weight_only"),
    ("int8", "int8"),
    ("int8_per_column", "int8"),
)
DYNAMIC: tuple[Format, Format] = ("int8_dynamic", "int8")
# With what may be skipped: not columns of dynamic features.
USES: tuple[tuple[Format, Format, Activity], ...] = (
    *((x, h, activity) for x, h in FORMATS for activity in ACTIVITIES),
    (*DYNAMIC, "dense"),
)
TOLERANCE = {Dense: 2e-6, Delta: 2e-5}  # of h, in -1..1; a float estimate rounds at every update


@dataclass(frozen=True)
class Case:
    """Sizes of a run of one layer, and how its input lies in memory."""

    hidden: int
    width: int
    batch: int
    time: int
    directions: int = 1
    projection: int = 0
    given: float = 0.0  # scale of the states that it starts from
    layout: str = "time first"


def stack(
    matrices: Sequence[CellMatrices],
    shape: StackShape,
    policy: Policy,
    *,
    zeros: bool = True,
    bitmask: UseBitmask = "auto",
) -> NativeStack:
    """The native stack of a policy."""
    return NativeStack(matrices, shape, parts(policy), zeros=zeros, bitmask=bitmask)


def matrix(rows: int, columns: int, form: Format, levels: int, gain: float = 2.0) -> Matrix:
    """Random weights; ``gain`` is the deviation of a pre-activation for inputs of deviation 1."""
    precisions: dict[Format, Precision] = {"fp32": "fp32", "bf16": "bf16"}
    w = (torch.randn(rows, columns) * gain / columns**0.5).numpy()
    # Up to 2, so that a level stays as fine as the thresholds of policy_of() need it; 0.5 cuts much of a signal() off.
    scale = torch.empty(columns).uniform_(0.5, 2.0).numpy() if form == "int8_per_column" else None
    sent = levels if form in ("int8", "int8_per_column", "int8_dynamic") else 0
    return quantize_matrix(w, precisions.get(form, "int8"), sent, scale, dynamic=form == "int8_dynamic")


def weights(
    shape: StackShape, x: Format, h: Format, levels: tuple[int, int] = (127, 1016), gain: float = 2.0
) -> list[CellMatrices]:
    """Random weights of a stack; ``levels`` of x and h."""
    gates = 4 * shape.hidden_size
    return [
        CellMatrices(
            w_ih=matrix(
                gates,
                shape.input_width(cell),
                "int8" if x == "int8_dynamic" and cell >= shape.directions else x,
                levels[0],
                gain,
            ),
            w_hh=matrix(gates, shape.output_size, h, levels[1], gain),
            bias=torch.randn(gates).numpy(),
            w_hr=matrix(shape.proj_size, shape.hidden_size, "int8_weight_only" if h == "int8" else h, 0)
            if shape.proj_size
            else None,
        )
        for cell in range(shape.num_cells)
    ]


def policy_of(shape: StackShape, activity: Activity) -> Policy:
    """Thresholds of all x and h: such that a slow signal seldom passes ("few"), or tiny ones and zeros ("many")."""
    if activity == "dense":
        return Dense()

    def thresholds(width: int) -> tuple[float, ...]:
        t = torch.rand(width)
        t = 0.1 + 0.2 * t if activity == "few" else 1e-3 * t * (torch.rand(width) > 0.2)
        return tuple(t.tolist())

    return Delta(
        h=tuple(thresholds(shape.output_size) for _ in range(shape.num_cells)),
        x=tuple(thresholds(shape.input_width(cell)) for cell in range(shape.num_cells)),
    )


def part(policy: Policy, cells: slice) -> Policy:
    """What a policy of ``policy_of`` says of some of the layers."""
    if isinstance(policy, Dense):
        return policy
    assert isinstance(policy, Delta)
    assert isinstance(policy.h, tuple)
    assert isinstance(policy.x, tuple)
    return Delta(h=policy.h[cells], x=policy.x[cells])


def signal(time: int, batch: int, width: int, activity: Activity = "many") -> torch.Tensor:
    """White noise, or for "few" one that drifts slowly; some values lie beyond the -1..1 that integers reach."""
    if activity == "few":
        return 0.5 * torch.randn(batch, width) + 0.02 * torch.randn(time, batch, width).cumsum(0)
    return 0.7 * torch.randn(time, batch, width)


def states(shape: StackShape, batch: int, scale: float = 1.0) -> States:
    """Random states, or zeros for ``scale=0``."""
    h = torch.rand(shape.num_cells, batch, shape.output_size) * 2 - 1
    return scale * h, scale * torch.randn(shape.num_cells, batch, shape.hidden_size)


@dataclass(frozen=True)
class Result:
    """Of a native run. ``y`` in the layout of x.

    ``counts`` per cell: columns of x and of h sent, row steps that ran and that advanced.
    """

    y: torch.Tensor
    h: torch.Tensor
    c: torch.Tensor
    counts: list[tuple[int, int, int, int]]


def run(
    native: NativeStack,
    x: torch.Tensor,
    *,
    sizes: Sequence[int] | None = None,
    batch_first: bool = False,
    start: States | None = None,
    state: _native.State | None = None,
    check: bool = False,
    open_ended: bool = False,
) -> Result:
    """One native call: from zeros, from ``start``, or on from where ``state`` is.

    With ``check``, an input that is not finite is refused; NaN is left in y then.
    """
    shape, (time, row) = native.shape, (1, 0) if batch_first else (0, 1)
    batch = sizes[0] if sizes else x.shape[row]
    used = native.acquire() if state is None else state
    if state is None:
        used.reset(batch)
    if start is not None:
        native.write(used, StreamState.start(*start).map(torch.Tensor.numpy))
    y = torch.full((*x.shape[:-1], shape.directions * shape.output_size), float("nan"))
    if sizes is None:
        strides = (x.stride(time), x.stride(row), y.data_ptr(), y.stride(time), y.stride(row))
        done = used.run(x.data_ptr(), *strides, x.shape[time], check=check, open_ended=open_ended)
    else:
        alive = torch.tensor(sizes)
        strides = (0, x.shape[-1], y.data_ptr(), 0, y.shape[-1])
        done = used.run(x.data_ptr(), *strides, len(sizes), alive.data_ptr(), check=check, open_ended=open_ended)
    assert done is (not check or bool(x.isfinite().all()))
    end = native.read(used)
    result = Result(y, torch.from_numpy(end.h), torch.from_numpy(end.c), used.counters()[0])
    if state is None:
        native.release(used)
    return result


def follow(
    w: CellMatrices, policy: Policy, x: torch.Tensor, y: torch.Tensor, start: States, backward: bool
) -> tuple[torch.Tensor, tuple[int, int]]:
    """Asserts that a run of one layer in one direction gave the right y [T, B, P] for x [T, B, I].

    Args:
        w: weights of the layer.
        policy: for this layer.
        x: input.
        y: output of the native run.
        start: h [B, P] and c [B, H].
        backward: whether time ran backwards.

    Returns:
        c [B, H] at the end, and the columns of x and of h that were sent.
    """
    h, c = start
    # Integers and decisions come out the same only where they are computed in the same float type.
    exact = isinstance(policy, Dense) and not w.w_ih.levels and not w.w_hh.levels
    dtype = torch.float64 if exact else torch.float32
    tensors = dequantized(w, dtype, torch.device("cpu"))
    shape = StackShape(x.shape[-1], c.shape[-1], 1, h.shape[-1] if w.w_hr else 0)
    state = StreamState.start(h[None].to(dtype), c[None].to(dtype))
    wanted, sent_x, sent_h = torch.empty(y.shape, dtype=dtype), 0, 0
    for t in reversed(range(len(x))) if backward else range(len(x)):
        chunk = Chunk(x[t].to(dtype), [x.shape[1]], state)
        wanted[t], state, counts = reference.run([tensors], shape, parts(policy), chunk)
        state = replace(state, h=y[t][None].to(dtype))
        sent_x, sent_h = sent_x + counts.columns[0].x_sent, sent_h + counts.columns[0].h_sent
    torch.testing.assert_close(y.to(dtype), wanted, rtol=0, atol=TOLERANCE[type(policy)])
    return state.c[0].float(), (sent_x, sent_h)
