"""A pool for ``asyncio`` on tensors: ``array_async_pool.AsyncStreamPool`` with tensors outside."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

import torch

from ..types import RunStats
from . import array_async_pool
from .array_pool import PoolOptions
from .lstm import AdaptiveLSTM
from .seats import StreamStats
from .stream_pool import open_pool


class AsyncStreamPool:
    """A ``StreamPool`` with a loop of its own, for the tasks of one event loop.

    ::

        async with al.AsyncStreamPool(fast.lstm, capacity=512, interval=0.005) as pool:
            caller = pool.open()
            y = await pool.push(caller, frame)  # frame: [I], y: [P]
            pool.close(caller)

    Frames are gathered for ``interval`` seconds, or until ``max_batch`` streams have one; then ticks follow each other
    in another thread for as long as frames wait, so that the event loop goes on. Where more streams have frames than a
    tick takes, they are served in turn. A stream whose frames come faster than they are run raises ``OverloadError`` at
    once: nothing is dropped silently.

    Args:
        lstm: as for ``StreamPool``.
        capacity: the same.
        interval: seconds for which frames are gathered; 0: not at all.
        backlog: as for ``StreamPool``.
        max_batch: the same.
        idle_timeout: the same.
        clock: the same.

    Raises:
        InputError, UnsupportedError: as for ``StreamPool``.
    """

    def __init__(
        self,
        lstm: AdaptiveLSTM,
        capacity: int = 512,
        *,
        interval: float = 0.005,
        backlog: int = 64,
        max_batch: int | None = None,
        idle_timeout: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        pool, self._tensors = open_pool(lstm, PoolOptions(capacity, backlog, max_batch, idle_timeout, clock))
        self._pool = array_async_pool.AsyncStreamPool(pool, interval=interval)

    async def __aenter__(self) -> AsyncStreamPool:
        await self._pool.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop; what still waits is answered with ``InputError``."""
        await self._pool.__aexit__(kind, error, trace)

    def open(self) -> int:
        """As ``StreamPool.open``."""
        return self._pool.open()

    async def push(self, stream: int, frames: torch.Tensor) -> torch.Tensor:
        """Give a stream its next frame or frames, and wait for their outputs.

        Pushes to one stream run in the order in which they were made. Cancelling one takes no frame back.

        Args:
            stream: from ``open`` or ``restore``.
            frames: [I], or [n, I].

        Returns:
            Outputs of the top layer, [P] or [n, P].

        Raises:
            InputError: as ``StreamPool.push``; or the stream was closed, or the pool left, before the frames had run.
            NonFiniteError, OverloadError: as ``StreamPool.push``.
        """
        return self._tensors.tensor(await self._pool.push(stream, self._tensors.array(frames)))

    def close(self, stream: int) -> None:
        """As ``StreamPool.close``; pushes whose frames have not run raise ``InputError``."""
        self._pool.close(stream)

    async def snapshot(self, stream: int) -> bytes:
        """As ``StreamPool.snapshot``, without blocking the event loop."""
        return await self._pool.snapshot(stream)

    async def restore(self, snapshot: bytes) -> int:
        """As ``StreamPool.restore``, without blocking the event loop. Frames that waited in it run, unanswered."""
        return await self._pool.restore(snapshot)

    def stream_stats(self, stream: int) -> StreamStats:
        """As ``StreamPool.stream_stats``."""
        return self._pool.stream_stats(stream)

    @property
    def stats(self) -> RunStats:
        """As ``StreamPool.stats``."""
        return self._pool.stats
