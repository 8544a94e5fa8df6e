"""How many threads the native core may use; whether they pay is measured on real calls (`native/run/thread_race.h`)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ..codec import brief, is_whole
from ..errors import InputError

MOST_THREADS = 256

_set: int | None = None  # of the process; None: as many as torch


def set_num_threads(n: int | None) -> None:
    """Let the native core use up to ``n`` threads, the caller's own among them; None: as many as torch, the default.

    Large batches share out their rows, sequences that ``SplitTime`` splits their chunks, bidirectional layers their
    directions, and stacks their layers, one behind the other in time. Results have the same bits whatever the number.
    The first calls of a new batch size or length run on one thread and on several in turn, and the faster way stays, so
    a larger number never makes calls slower for long; ``last_run.threads`` says how many served. Torch's own threads
    are not touched (``torch.set_num_threads``).

    Args:
        n: 1 to 256.

    Raises:
        InputError: ``n`` is no such number.
    """
    global _set
    if n is not None and not (is_whole(n) and 1 <= n <= MOST_THREADS):
        raise InputError(f"n: got {brief(n)}, expected a number of threads, 1 to {MOST_THREADS}, or None for torch's")
    _set = None if n is None else int(n)


def get_num_threads() -> int:
    """How many threads the native core may use: what was set, or as many as torch; 1 where torch is not loaded."""
    if _set is not None:
        return _set
    torch = sys.modules.get("torch")
    return 1 if torch is None else min(torch.get_num_threads(), MOST_THREADS)


@contextmanager
def at_most(n: int) -> Iterator[None]:
    """Inside the block so many threads, for every call of the process, whatever is set or torch has."""
    global _set
    before, _set = _set, n
    try:
        yield
    finally:
        _set = before
