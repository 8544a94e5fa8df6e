"""What a stream remembers between two steps, and operations on its rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Generic

from ..codec import brief, is_whole, short_repr
from ..errors import InputError, StateError
from .rows import Rows, row_numbers

MOST_ROWS = 2**26
"""Rows of a batch that the native core counts."""

if TYPE_CHECKING:
    import torch
    from typing_extensions import TypeVar

    Array = TypeVar("Array", default=torch.Tensor)
else:
    from typing import TypeVar

    Array = TypeVar("Array")  # what a state consists of: tensors, or the native core's numpy arrays


@short_repr
@dataclass(frozen=True)
class HoldState(Generic[Array]):
    """What one cell remembers for a policy that holds it.

    ``x_used`` [B, width]: the input of the last timestep that ran; None where the layer does not decide.
    ``h_used`` [B, P]: the hidden state before that timestep; None where the layer does not decide.
    ``run`` [B] int64: timesteps held since, -1 before the first that ran.
    ``gates`` [B, 4H]: the kept pre-activations in torch order.
    ``queue`` [B, cap, width]: inputs to be replayed, oldest first; None where the layer queues none.
    ``queued`` [B] int64: how many of them wait; None where the layer queues none.
    """

    x_used: Array | None = None
    h_used: Array | None = None
    run: Array | None = None
    gates: Array | None = None
    queue: Array | None = None
    queued: Array | None = None


@short_repr
@dataclass(frozen=True)
class ExitState(Generic[Array]):
    """What an exit in time remembers.

    ``time`` [B] int64: timesteps so far.
    ``exited`` [B] bool: rows that have exited.
    ``translation`` [B, P]: the predicted final state that they exited with.
    ``streak`` [B] int64: consecutive checks that passed.
    ``past`` [B, window, P]: translations of earlier checks, oldest first; NaN before the first.
    """

    time: Array
    exited: Array
    translation: Array
    streak: Array
    past: Array


@short_repr
@dataclass(frozen=True)
class StreamState(Generic[Array]):
    """Everything that a stream remembers between two steps.

    In float32, whatever the LSTM's dtype; in float64 where a float64 LSTM is not narrowed (``AdaptiveLSTM``).

    ``h`` [L * D, B, P] and ``c`` [L * D, B, H]: the states, as ``nn.LSTM`` gives them.
    ``sent_x``: per cell [B, width], the values last sent where a policy thresholds that operand, else None; NaN in rows
    that have sent nothing yet.
    ``sent_h``: per cell [B, P], likewise.
    ``hold``: one entry per cell for policies that hold layers, else empty.
    ``exit``: for an exit in time, else None.
    """

    h: Array
    c: Array
    sent_x: tuple[Array | None, ...]
    sent_h: tuple[Array | None, ...]
    hold: tuple[HoldState[Array], ...] = ()
    exit: ExitState[Array] | None = None

    @staticmethod
    def start(h: torch.Tensor, c: torch.Tensor) -> StreamState:
        """The state of a new sequence from ``h`` [L * D, B, P] and ``c`` [L * D, B, H]: nothing sent yet."""
        nothing = (None,) * len(h)
        return StreamState(h, c, nothing, nothing)

    def map(self, change: Callable[[Array], Any]) -> StreamState[Any]:
        """The same state with every array changed."""
        return _joined([self], lambda arrays, axis, fresh: change(arrays[0]))

    @property
    def batch_size(self: StreamState) -> int:
        """B: how many rows it is of."""
        return self.h.shape[1]

    def select(self: StreamState, rows: Rows) -> StreamState:
        """Copies of some rows, in the order given; a row may be chosen more than once.

        The rows of a beam search after a step: ``stream.state = stream.state.select(parents)``.

        Args:
            rows: numbers [n], or a bool mask [B].

        Raises:
            InputError: not numbers of rows.
        """
        import torch

        index = torch.from_numpy(row_numbers(rows, self.batch_size)).to(self.h.device)
        return _joined([self], lambda arrays, axis, fresh: arrays[0].index_select(axis, index))

    def expand(self: StreamState, n: int) -> StreamState:
        """Every row ``n`` times, copies next to each other: as many paths to sample from each.

        Raises:
            InputError: ``n`` is below 1, or more rows than a stream can have would come out.
        """
        most = MOST_ROWS // max(self.batch_size, 1)
        if not (is_whole(n) and 1 <= n <= most):
            raise InputError(f"n: got {brief(n)}, expected a whole number, 1 to {most:,}")
        return _joined([self], lambda arrays, axis, fresh: arrays[0].repeat_interleave(int(n), axis))

    @staticmethod
    def merge(*states: StreamState) -> StreamState:
        """The rows of some states of one model and policy, in this order, as one state.

        Raises:
            StateError: no state, or states of different models or policies.
        """
        if not states or not all(isinstance(state, StreamState) for state in states):
            raise StateError(f"got {[type(state).__name__ for state in states]}, expected one StreamState or more")
        import torch

        counts = [state.batch_size for state in states]

        def concatenated(arrays: list[Any], axis: int, fresh: float) -> torch.Tensor:
            like = next(a for a in arrays if a is not None)
            if any(a is not None and a.dtype != like.dtype for a in arrays):
                raise ValueError(f"got {', '.join(str(a.dtype) for a in arrays if a is not None)}")
            made = (like.new_full((n, *like.shape[1:]), fresh) for n in counts)
            return torch.cat([new if a is None else a for a, new in zip(arrays, made, strict=True)], axis)

        try:
            return _joined(states, concatenated)
        except (RuntimeError, ValueError) as error:
            raise StateError(f"the states are of different models or policies: {error!s:.300}") from None


def check_batch_size(rows: object) -> None:
    """Raise ``InputError`` unless a stream can have so many rows."""
    if not (is_whole(rows) and 1 <= rows <= MOST_ROWS):
        raise InputError(f"batch_size: got {brief(rows)}, expected a whole number of rows, 1 to {MOST_ROWS:,}")


def with_rows(state: StreamState, rows: torch.Tensor, part: StreamState) -> StreamState:
    """The state with its rows ``rows`` [n] replaced by those of ``part``."""
    import torch

    index = torch.arange(state.batch_size)
    index[rows] = state.batch_size + torch.arange(len(rows))
    return StreamState.merge(state, part).select(index)


_Join = Callable[[list[Any], int, float], Any]
"""Arrays of several states, None where one has not started, the axis of their rows, and the value in fresh rows."""

_FRESH = {"run": -1.0, "past": math.nan}  # of the other fields of holds and exits: 0


def _joined(states: Sequence[StreamState[Any]], join: _Join) -> StreamState[Any]:
    """One state whose every array is joined from those of several; None stays None where none has any."""

    def one(arrays: list[Any], axis: int, fresh: float) -> Any:
        return None if all(array is None for array in arrays) else join(arrays, axis, fresh)

    def part(kind: Any, owners: Sequence[Any]) -> Any:
        names = [f.name for f in fields(kind)]
        return kind(**{n: one([getattr(o, n, None) for o in owners], 0, _FRESH.get(n, 0.0)) for n in names})

    def sent(operand: str) -> tuple[Any, ...]:
        return tuple(one(list(each), 0, math.nan) for each in zip(*(getattr(s, operand) for s in states), strict=True))

    cells = max(len(s.hold) for s in states)
    holds = [s.hold or (HoldState(),) * cells for s in states]
    return StreamState(
        one([s.h for s in states], 1, 0.0),
        one([s.c for s in states], 1, 0.0),
        sent("sent_x"),
        sent("sent_h"),
        tuple(part(HoldState, of_cell) for of_cell in zip(*holds, strict=True)),
        part(ExitState, [s.exit for s in states]) if any(s.exit is not None for s in states) else None,
    )
