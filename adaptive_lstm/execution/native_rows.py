"""Some rows of a native state: copied natively to and from a state of their own, exactly, the others left alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from ..types import StreamState
from .native_stack import NativeStack

if TYPE_CHECKING:
    from .. import _native


def read_rows(stack: NativeStack, state: _native.State, rows: np.ndarray) -> StreamState[np.ndarray]:
    """A copy of everything that a state remembers of rows [n]. Raises ``BusyError`` while a thread advances it."""
    with new_rows(stack, len(rows)) as part:
        part.take_rows(np.arange(len(rows)), state, rows)
        return stack.read(part)


def write_rows(
    stack: NativeStack, state: _native.State, rows: np.ndarray, value: StreamState[np.ndarray] | None
) -> None:
    """Set rows [n] of a state to those of ``value``; None: to new sequences. Counters go on.

    Raises:
        StateError: as ``NativeStack.write``.
        BusyError: another thread is advancing the state.
    """
    with new_rows(stack, 1 if value is None else len(rows)) as part:
        if value is not None:
            stack.write(part, value)
        state.take_rows(rows, part, np.zeros_like(rows) if value is None else np.arange(len(rows)))


@contextmanager
def new_rows(stack: NativeStack, batch: int) -> Iterator[_native.State]:
    """A state of ``batch`` new sequences of the same stack and policy, for the block."""
    state = stack.acquire()
    try:
        state.reset(batch)
        yield state
    finally:
        stack.release(state)
