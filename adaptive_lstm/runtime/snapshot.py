"""A stream of a pool as bytes: arrays and a small header, nothing that is ever executed. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import codec, tensorfile
from ..errors import InputError, ModelFileError, StateError
from ..policies import Policy
from ..types import ExitState, HoldState, StreamState
from ..weights.precision import Quantize

_KIND, _VERSION = "stream snapshot", 1
MOST_CELLS = 4096  # of a snapshot that is believed
_NAMES = {kind: [f.name for f in fields(kind)] for kind in (HoldState, ExitState)}


@dataclass(frozen=True)
class Snapshot:
    """A stream that was packed.

    ``state``: of one row.
    ``frames`` [n, I]: those that wait.
    ``pushed``, ``steps``: as in ``StreamStats``.
    """

    state: StreamState[np.ndarray]
    frames: npt.NDArray[Any]
    pushed: int
    steps: int


def identity(weights: str, quantize: Quantize, policy: Policy, dtype: npt.DTypeLike) -> str:
    """A digest of what a stream computes.

    Args:
        weights: digest of those that are executed, before rounding.
        quantize: their precision.
        policy: counts as far as it is no Python code.
        dtype: that states are computed in.
    """
    return codec.digest([weights, quantize, np.dtype(dtype).name, _policy_digest(policy)])


def _policy_digest(policy: Policy) -> str:
    try:
        return codec.digest(policy)
    except InputError:  # a head in Python, which may be the same function in another process
        return type(policy).__name__


def pack(snapshot: Snapshot, owner: str) -> bytes:
    """A snapshot as bytes that name their model (``identity``)."""
    state = snapshot.state
    arrays = {"h": state.h, "c": state.c, "frames": snapshot.frames}
    for name in ("sent_x", "sent_h"):
        arrays |= {f"{name}.{k}": sent for k, sent in enumerate(getattr(state, name)) if sent is not None}
    parts = [(f"hold.{k}", held) for k, held in enumerate(state.hold)]
    parts += [("exit", state.exit)] if state.exit is not None else []  # type: ignore[list-item]
    for at, part in parts:
        arrays |= {f"{at}.{name}": array for name, array in vars(part).items() if array is not None}
    header = {"model": owner, "cells": len(state.h), "holds": len(state.hold), "exits": state.exit is not None}
    return tensorfile.dumps(
        _KIND, _VERSION, {**header, "pushed": snapshot.pushed, "steps": snapshot.steps}, arrays, "a snapshot"
    )


def unpack(data: bytes, owner: str) -> Snapshot:
    """What ``pack`` made; its state is not checked yet.

    Raises:
        StateError: no snapshot, damaged, or of another model.
    """
    if not isinstance(data, bytes | bytearray | memoryview):
        raise StateError(f"got {type(data).__name__}, expected the bytes that StreamPool.snapshot returned")
    try:
        header, arrays = tensorfile.loads(bytes(data), _KIND, _VERSION, "the snapshot")
        found = codec.mapping(header, "the snapshot", ("model", "cells", "holds", "exits", "pushed", "steps"))
    except ModelFileError as error:
        raise StateError(str(error)) from error
    if found["model"] != owner:
        raise StateError(
            "the snapshot is of another model, precision or policy than this pool's; restore it in a pool of the same"
        )
    counts = [found[name] for name in ("cells", "holds", "pushed", "steps")]
    if any(type(n) is not int or n < 0 or n > 2**62 for n in counts) or max(counts[:2]) > MOST_CELLS:
        raise StateError("the snapshot is damaged: its header counts what is not there")
    cells, holds, pushed, steps = counts

    def get(name: str) -> Any:
        return arrays[name].copy() if name in arrays else None

    sent_x, sent_h = (tuple(get(f"{name}.{k}") for k in range(cells)) for name in ("sent_x", "sent_h"))
    hold = tuple(HoldState(*(get(f"hold.{k}.{name}") for name in _NAMES[HoldState])) for k in range(holds))
    exit_ = ExitState(*(get(f"exit.{name}") for name in _NAMES[ExitState])) if found["exits"] else None
    frames = arrays.get("frames", np.zeros(0, np.float32))
    return Snapshot(StreamState(get("h"), get("c"), sent_x, sent_h, hold, exit_), frames, pushed, steps)
