"""Who may use a state at a time: one thread advances it, the others look at it before or after."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from ..errors import BusyError


class Turn:
    """The turns of threads with one state. The thread that advances it may look at it on the way."""

    def __init__(self) -> None:
        self._advancing, self._using = threading.Lock(), threading.RLock()

    @contextmanager
    def to_advance(self) -> Iterator[None]:
        """Raise ``BusyError`` if another thread advances the state, and wait while others look at it."""
        if not self._advancing.acquire(blocking=False):
            raise BusyError("this stream is being advanced by another thread; give every thread its own stream")
        try:
            with self._using:
                yield
        finally:
            self._advancing.release()

    def to_look(self) -> AbstractContextManager[object]:
        """Wait while another thread advances the state."""
        return self._using
