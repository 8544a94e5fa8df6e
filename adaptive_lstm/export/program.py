"""A stack as the exported engine runs it: its layers, their exits, and where the state keeps what they remember."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..artifact.stacks import Stack
from ..codec import short_repr
from ..policies import Policy, kind_of, parts
from ..policies.native_form import NativeColumns, NativeDepthExit, NativeHold, NativeTimeExit
from ..types import FloatArray, StackShape
from ..weights.matrices import CellMatrices
from .operand import Operand, operand, unit_rows

NONE = 2**32 - 1  # no place


@dataclass
class Pools:
    """The arrays of a state: how many floats, 32-bit and 16-bit integers have been given a place."""

    floats: int = 0
    ints: int = 0
    shorts: int = 0

    def take(self, pool: str, count: int) -> int:
        """A place for so many numbers behind all others."""
        at = int(getattr(self, pool))
        setattr(self, pool, at + count)
        return at


@dataclass
class Places:
    """Where the state keeps what a layer remembers; ``NONE``: it does not."""

    h: int
    c: int
    sent: dict[str, int] = field(default_factory=dict)
    sums: dict[str, int] = field(default_factory=dict)
    gates: int = NONE
    x_used: int = NONE
    h_used: int = NONE


@short_repr
@dataclass(frozen=True, eq=False)
class Layer:
    """One layer.

    ``x``, ``h``: its matrices.
    ``bias`` [4 * units]: in unit order.
    ``live`` [units]: which outputs the units are.
    ``constant`` [H]: outputs of the units that are not computed, or None: all are.
    ``hold``: what it is held by, if it decides.
    """

    x: Operand
    h: Operand
    bias: FloatArray
    live: npt.NDArray[np.int64]
    constant: FloatArray | None
    hold: NativeHold | None
    places: Places

    @property
    def operands(self) -> dict[str, Operand]:
        """Both, by name."""
        return {"x": self.x, "h": self.h}

    @property
    def nbytes(self) -> int:
        """Bytes of its constants."""
        scattered = 0 if self.constant is None else self.constant.nbytes + 2 * len(self.live)
        return int(self.x.nbytes + self.h.nbytes + self.bias.nbytes + scattered)


@short_repr
@dataclass(frozen=True, eq=False)
class Program:
    """A stack.

    ``pools``: sizes of the arrays of a state.
    ``translated``, ``past``: where the state keeps what an exit in time needs, or ``NONE``.
    ``quads``: how the rows of a unit lie, see ``operand``.
    """

    shape: StackShape
    layers: tuple[Layer, ...]
    time_exit: NativeTimeExit | None
    depth_exit: NativeDepthExit | None
    pools: Pools
    translated: int
    past: int
    quads: bool

    @property
    def holds(self) -> bool:
        """Whether any layer may be held."""
        return any(layer.hold for layer in self.layers)

    @property
    def holds_gates(self) -> bool:
        """Whether one may be held with the gates of an earlier step."""
        return any(layer.hold and layer.hold.action == "hold_gates" for layer in self.layers)

    @property
    def maps(self) -> tuple[tuple[FloatArray, FloatArray], ...]:
        """Weight and bias of every affine map of its exits."""
        time, depth = self.time_exit, self.depth_exit
        found = [*(time.maps + time.logits if time else ()), *(depth.steps + depth.logits if depth else ())]
        return tuple((m.weight, m.bias) for m in found)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all constants."""
        return sum(layer.nbytes for layer in self.layers) + sum(w.nbytes + b.nbytes for w, b in self.maps)


def program(stack: Stack, *, quads: bool) -> Program:
    """A stack that ``check_exportable`` takes, as the engine runs it; ``quads``: see ``operand``."""
    shape, policy = stack.shape, parts(stack.settings.policy)
    columns: NativeColumns = _numbers(policy.columns, shape)
    holds = [_numbers(one, shape) for one in policy.hold]
    deciders = [next((one[k] for one in holds if one[k] is not None), None) for k in range(shape.num_layers)]
    depth: NativeDepthExit | None = None if policy.depth_exit is None else _numbers(policy.depth_exit, shape)
    time: NativeTimeExit | None = None if policy.time_exit is None else _numbers(policy.time_exit, shape)
    pools = Pools()
    h_places = [pools.take("floats", shape.output_size) for _ in range(shape.num_layers)]  # exits read them as one
    gates = any(one is not None and one.action == "hold_gates" for one in deciders)
    layers = tuple(
        _layer(stack, k, cell, columns.thresholds[k], deciders[k], pools, h_places[k], gates, quads)
        for k, cell in enumerate(stack.cells)
    )
    width = shape.output_size
    return Program(
        shape=shape,
        layers=layers,
        time_exit=time,
        depth_exit=depth if depth is not None and any(depth.checks) else None,
        pools=pools,
        translated=NONE if time is None else pools.take("floats", width),
        quads=quads,
        past=NONE if time is None else pools.take("floats", max(time.window * width, 1)),
    )


def _numbers(policy: Policy, shape: StackShape) -> Any:
    """The settings of a policy as the numbers of ``native_form``, which depend on the decision that it makes."""
    native = kind_of(policy).native
    assert native is not None  # check_exportable
    return native(policy, shape)


def _layer(
    stack: Stack,
    k: int,
    cell: CellMatrices,
    thresholds: Sequence[FloatArray | None],
    hold: NativeHold | None,
    pools: Pools,
    h_place: int,
    keeps_gates: bool,
    quads: bool,
) -> Layer:
    shape = stack.shape
    live = np.arange(shape.hidden_size) if cell.live is None else np.flatnonzero(cell.live)
    operands = {
        name: operand(matrix, live, limits, leave_out_zeros=not stack.exact, quads=quads)
        for name, matrix, limits in zip("xh", (cell.w_ih, cell.w_hh), thresholds, strict=True)
    }
    rows, places = 4 * len(live), Places(h_place, pools.take("floats", len(live)))
    for name, one in operands.items():
        if one.thresholds is not None:
            places.sent[name] = pools.take("shorts" if one.integers else "floats", one.columns)
            places.sums[name] = pools.take("ints" if one.integers else "floats", rows)
    if keeps_gates:
        places.gates = pools.take("floats", rows)
    if hold is not None:
        places.x_used = pools.take("floats", shape.input_width(k))
        places.h_used = pools.take("floats", shape.output_size)
    return Layer(
        x=operands["x"],
        h=operands["h"],
        bias=cell.bias[unit_rows(live, shape.hidden_size)],
        live=live,
        constant=cell.constant if cell.live is not None else None,
        hold=hold,
        places=places,
    )
