"""What a stream's state must look like before it is taken over. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..errors import StateError
from ..policies import Parts
from ..types import ExitState, HoldState, Site, StackShape, StreamState

Read = Callable[[str, Any, "type[np.generic] | None"], np.ndarray]
"""(name, value, kind) -> the array behind a value of a state, or ``StateError``: no array, or not of this kind of
numbers; None: of the kind in which states are computed."""

Expected = tuple[str, Any, "tuple[int, ...] | None"]
"""Name, value and shape of a part of the state; shape None: it must not be there."""

LONGEST_COUNT = 2**62
"""More timesteps than any stream lives, and few enough that counting on overflows nothing."""


def check_state(state: StreamState[Any], shape: StackShape, batch: int, policy: Parts, read: Read) -> None:
    """Raise ``StateError`` unless a state is of this stack, batch size and policy, and holds finite numbers."""
    if not isinstance(state, StreamState):
        raise StateError(f"got {type(state).__name__}, expected a StreamState (from another stream's .state)")
    _check_containers(state)
    if len(state.sent_x) != shape.num_cells or len(state.sent_h) != shape.num_cells:
        raise StateError(f"the state is of a stack of {len(state.sent_x)} layers, this one has {shape.num_cells}")
    if state.hold and (not policy.hold or len(state.hold) != shape.num_cells):
        raise StateError("the state is of a stream whose policy holds layers; this one's does not, or has other layers")
    if state.exit is not None and policy.time_exit is None:
        raise StateError("the state is of a stream with an exit in time; this one's policy has none")
    for name, value, want in _parts(state, shape, batch, policy):
        _check_part(name, value, want, read)
    for held in state.hold:
        _check_queue(held, read)
    if state.exit is not None and policy.time_exit is not None:
        _check_exit(state.exit, policy.time_exit.patience, read)


def _check_containers(state: StreamState[Any]) -> None:
    def check(name: str, value: object, kind: type) -> None:
        if not isinstance(value, kind):
            raise StateError(f"{name}: got {type(value).__name__}, expected {kind.__name__}")

    for name in ("sent_x", "sent_h", "hold"):
        check(name, getattr(state, name), tuple)
    for held in state.hold:
        check("hold", held, HoldState)
    if state.exit is not None:
        check("exit", state.exit, ExitState)


def _check_part(name: str, value: Any, want: tuple[int, ...] | None, read: Read) -> None:
    array = None if value is None else read(name, value, _WHOLE.get(name))
    got = None if array is None else array.shape
    if got != want:
        raise StateError(
            f"{name}: got shape {got}, expected {want}; the state is of another model, batch size or policy"
        )
    if array is None:
        return
    if name not in _WHOLE:
        missing = np.isnan(array)
        if name.startswith("sent"):  # NaN: nothing sent yet
            missing &= ~missing.all(axis=1, keepdims=True)
        if np.isinf(array).any() or (name != "past" and missing.any()):  # NaN: no check yet
            raise StateError(f"{name}: holds NaN or infinity, expected finite values")
    if name in _LEAST and ((array < _LEAST[name]) | (array > LONGEST_COUNT)).any():
        wrong = int(array.min()) if (array < _LEAST[name]).any() else int(array.max())
        raise StateError(f"{name}: got {wrong}, expected {_LEAST[name]} to 2**62")


def _check_queue(held: HoldState[Any], read: Read) -> None:
    if held.queue is None or held.queued is None or held.run is None:
        return
    queued, run = (read(name, getattr(held, name), np.int64) for name in ("queued", "run"))
    cap = held.queue.shape[1]
    if (queued > cap).any():
        raise StateError(f"queued: got {int(queued.max())}, expected at most the cap, {cap}")
    if (queued > np.maximum(run, 0)).any():
        raise StateError("queued: got more inputs than timesteps held (run), expected at most as many")


def _check_exit(state: ExitState[Any], patience: int, read: Read) -> None:
    streak, exited = read("streak", state.streak, np.int64), read("exited", state.exited, np.bool_)
    if (streak >= np.where(exited, LONGEST_COUNT, patience)).any():
        raise StateError(
            f"streak: got {int(streak.max())} checks passed in a row that has not exited, expected less than the "
            f"patience, {patience}"
        )


_WHOLE: dict[str, type[np.generic]] = {
    **dict.fromkeys(("run", "queued", "streak", "time"), np.int64),
    "exited": np.bool_,
}
_LEAST = {"run": -1, "queued": 0, "streak": 0, "time": 0}


def _parts(state: StreamState[Any], shape: StackShape, batch: int, policy: Parts) -> Iterator[Expected]:
    yield "h", state.h, (shape.num_cells, batch, shape.output_size)
    yield "c", state.c, (shape.num_cells, batch, shape.hidden_size)
    sent = [(Site(shape, p, "x"), state.sent_x[p]) for p in range(shape.num_cells)]
    sent += [(Site(shape, p, "h"), state.sent_h[p]) for p in range(shape.num_cells)]
    started = any(s is not None for _, s in sent)
    for site, value in sent:
        there = started and policy.columns.thresholded(site)
        yield f"sent {site}", value, (batch, site.width) if there else None
    for cell, held in enumerate(state.hold):
        decider = policy.decider(shape, cell // shape.directions)
        width = Site(shape, cell, "x").width
        queue = decider is not None and decider.action == "queue_input"
        yield "x_used", held.x_used, (batch, width) if decider else None
        yield "h_used", held.h_used, (batch, shape.output_size) if decider else None
        yield "run", held.run, (batch,)
        yield "gates", held.gates, (batch, 4 * shape.hidden_size)
        yield "queue", held.queue, (batch, decider.cap, width) if decider is not None and queue else None
        yield "queued", held.queued, (batch,) if queue else None
    if state.exit is not None and policy.time_exit is not None:
        exit_state = state.exit
        yield "time", exit_state.time, (batch,)
        yield "exited", exit_state.exited, (batch,)
        yield "translation", exit_state.translation, (batch, shape.output_size)
        yield "streak", exit_state.streak, (batch,)
        yield "past", exit_state.past, (batch, policy.time_exit.window, shape.output_size)
