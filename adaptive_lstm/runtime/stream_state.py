"""What a stream's state must look like before it is taken over."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..errors import StateError
from ..execution.plain import is_dense, is_plain, not_dense
from ..policies import Parts
from ..types import ExitState, HoldState, Site, StackShape, StreamState

Expected = tuple[str, torch.Tensor | None, tuple[int, ...] | None]
"""Name, value and shape of a part of the state; shape None: it must not be there."""

LONGEST_COUNT = 2**62
"""More timesteps than any stream lives, and few enough that counting on overflows nothing."""


def check_state(
    state: StreamState, shape: StackShape, batch: int, policy: Parts, dtype: torch.dtype, device: torch.device
) -> None:
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
    for name, tensor, want in _parts(state, shape, batch, policy):
        _check_part(name, tensor, want, _WHOLE.get(name, dtype), device)
    for held in state.hold:
        _check_queue(held)
    if state.exit is not None and policy.time_exit is not None:
        _check_exit(state.exit, policy.time_exit.patience)


def _check_containers(state: StreamState) -> None:
    def check(name: str, value: object, kind: type) -> None:
        if not isinstance(value, kind):
            raise StateError(f"{name}: got {type(value).__name__}, expected {kind.__name__}")

    for name in ("sent_x", "sent_h", "hold"):
        check(name, getattr(state, name), tuple)
    for held in state.hold:
        check("hold", held, HoldState)
    if state.exit is not None:
        check("exit", state.exit, ExitState)


def _check_part(
    name: str, tensor: torch.Tensor | None, want: tuple[int, ...] | None, dtype: torch.dtype, device: torch.device
) -> None:
    if tensor is not None and not isinstance(tensor, torch.Tensor):
        raise StateError(f"{name}: got {type(tensor).__name__}, expected a tensor or None")
    if tensor is not None and not is_dense(tensor):
        raise StateError(f"{name}: got {not_dense(tensor)}")
    got = None if tensor is None else tuple(tensor.shape)
    if got != want:
        raise StateError(
            f"{name}: got shape {got}, expected {want}; the state is of another model, batch size or policy"
        )
    if tensor is None:
        return
    if tensor.dtype != dtype or tensor.device != device:
        raise StateError(f"{name}: got {tensor.dtype} on {tensor.device}, expected {dtype} on {device}")
    if not is_plain(tensor):
        raise StateError(f"{name}: got a tensor that is traced or transformed, expected plain memory")
    missing = torch.isnan(tensor)
    if name.startswith("sent"):  # NaN: nothing sent yet
        missing = missing & ~missing.all(dim=1, keepdim=True)
    if bool(torch.isinf(tensor).any()) or (name != "past" and bool(missing.any())):  # NaN: no check yet
        raise StateError(f"{name}: holds NaN or infinity, expected finite values")
    if name in _LEAST and bool(((tensor < _LEAST[name]) | (tensor > LONGEST_COUNT)).any()):
        wrong = int(tensor.min()) if bool((tensor < _LEAST[name]).any()) else int(tensor.max())
        raise StateError(f"{name}: got {wrong}, expected {_LEAST[name]} to 2**62")


def _check_queue(held: HoldState) -> None:
    if held.queue is None or held.queued is None or held.run is None:
        return
    if bool((held.queued > held.queue.shape[1]).any()):
        raise StateError(f"queued: got {int(held.queued.max())}, expected at most the cap, {held.queue.shape[1]}")
    if bool((held.queued > held.run.clamp_min(0)).any()):
        raise StateError("queued: got more inputs than timesteps held (run), expected at most as many")


def _check_exit(state: ExitState, patience: int) -> None:
    if bool((state.streak >= torch.where(state.exited, LONGEST_COUNT, patience)).any()):
        raise StateError(
            f"streak: got {int(state.streak.max())} checks passed in a row that has not exited, expected less than the "
            f"patience, {patience}"
        )


_COUNTS = dict.fromkeys(("run", "queued", "streak", "time"), torch.int64)
_WHOLE = {**_COUNTS, "exited": torch.bool}
_LEAST = {"run": -1, "queued": 0, "streak": 0, "time": 0}


def _parts(state: StreamState, shape: StackShape, batch: int, policy: Parts) -> Iterator[Expected]:
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
