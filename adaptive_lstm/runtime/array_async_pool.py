"""A pool of arrays for ``asyncio``: pushing returns the outputs once a tick in another thread has computed them.

Needs no torch.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from ..codec import brief, is_number
from ..errors import InputError
from ..types import RunStats
from .array_pool import StreamPool
from .seats import StreamStats

Outputs = npt.NDArray[Any]

LONGEST = 86_400
"""Seconds for which frames may be gathered: event loops refuse to wait for years."""


class _Push:
    """Frames that were pushed together, and the outputs of those that have run; ``answer``: who waits for them."""

    def __init__(self, frames: int, answer: asyncio.Future[Outputs] | None):
        self.frames, self.answer = frames, answer
        self.outputs: list[Outputs] = []

    def add(self, y: Outputs) -> bool:
        """Take the output of the next frame; returns whether it was the last."""
        self.outputs.append(y)
        if len(self.outputs) < self.frames:
            return False
        if self.answer is not None and not self.answer.done():  # its task may have been cancelled
            self.answer.set_result(np.stack(self.outputs))
        return True

    def refuse(self, error: BaseException) -> None:
        """Raise an error where the outputs are waited for."""
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(error)


class AsyncStreamPool:
    """A ``StreamPool`` with a loop of its own, for the tasks of one event loop.

    ::

        async with deploy.AsyncStreamPool(lstm.stream_pool(capacity=512), interval=0.005) as pool:
            caller = pool.open()
            y = await pool.push(caller, frame)  # frame: [I], y: [P]
            pool.close(caller)

    Frames are gathered for ``interval`` seconds, or until as many streams have one as a tick takes; then ticks follow
    each other in another thread for as long as frames wait, so that the event loop goes on. Where more streams have
    frames than a tick takes, they are served in turn. A stream whose frames come faster than they are run raises
    ``OverloadError`` at once: nothing is dropped silently.

    Args:
        pool: is served by this one alone from now on.
        interval: seconds for which frames are gathered; 0: not at all.
        on_tick: is told after each tick, in the event loop, how many streams it advanced and how many seconds it took.

    Raises:
        InputError: an interval out of range.
    """

    def __init__(
        self, pool: StreamPool, *, interval: float = 0.005, on_tick: Callable[[int, float], None] | None = None
    ):
        if not (is_number(interval) and 0 <= interval <= LONGEST):
            raise InputError(f"interval: got {brief(interval)}, expected seconds, 0 to {LONGEST:,}")
        self._pool, self._interval, self._on_tick = pool, interval, on_tick
        self._thread = ThreadPoolExecutor(1, "adaptive_lstm.pool")  # starts its thread when it is first used
        self._pushes: dict[int, deque[_Push]] = {}
        self._frames, self._enough = asyncio.Event(), asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> AsyncStreamPool:
        if self._task is not None:
            raise InputError("got a pool that was entered before, expected a new one; make one for each async with")
        self._task = asyncio.create_task(self._serve())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop; what still waits is answered with ``InputError``."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):  # a failed tick has been told to all who wait
                await self._task
        self._thread.shutdown()
        self._refuse_all(InputError("the pool was left before these frames had run"))

    def open(self) -> int:
        """As ``StreamPool.open``."""
        return self._pool.open()

    async def push(self, stream: int, frames: Any) -> Outputs:
        """Give a stream its next frame or frames, and wait for their outputs.

        Pushes to one stream run in the order in which they were made. Cancelling one takes no frame back.

        Args:
            stream: from ``open`` or ``restore``.
            frames: [I], or [n, I], float32; other real numbers are converted.

        Returns:
            Outputs of the top layer, [P] or [n, P].

        Raises:
            InputError: as ``StreamPool.push``; or the stream was closed, or the pool left, before the frames had run.
            NonFiniteError, OverloadError: as ``StreamPool.push``.
        """
        self._require_running()
        count = self._pool.push(stream, frames)
        if not count:
            return np.empty((0, self._pool.shape.output_size), self._pool.dtype)
        answer: asyncio.Future[Outputs] = asyncio.get_running_loop().create_future()
        self._expect(stream, _Push(count, answer))
        y = await answer
        return y[0] if np.ndim(frames) == 1 else y

    def close(self, stream: int) -> None:
        """As ``StreamPool.close``; pushes whose frames have not run raise ``InputError``."""
        self._pool.close(stream)
        self._refuse(stream, InputError(f"stream {stream} was closed before these frames had run"))

    async def snapshot(self, stream: int) -> bytes:
        """As ``StreamPool.snapshot``, without blocking the event loop."""
        self._require_running()
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._pool.snapshot, stream)

    async def restore(self, snapshot: bytes) -> int:
        """As ``StreamPool.restore``, without blocking the event loop. Frames that waited in it run, unanswered."""

        def restored() -> tuple[int, int]:  # in the thread of the ticks: none runs in between
            stream = self._pool.restore(snapshot)
            return stream, self._pool.stream_stats(stream).waiting

        self._require_running()
        stream, frames = await asyncio.get_running_loop().run_in_executor(self._thread, restored)
        if frames:
            self._expect(stream, _Push(frames, None))
        return stream

    def stream_stats(self, stream: int) -> StreamStats:
        """As ``StreamPool.stream_stats``."""
        return self._pool.stream_stats(stream)

    @property
    def stats(self) -> RunStats:
        """As ``StreamPool.stats``."""
        return self._pool.stats

    @property
    def running(self) -> bool:
        """Whether it was entered, and neither left nor stopped by a tick that failed."""
        return self._task is not None and not self._task.done()

    # ------------------------------------------------------------------------------------------------------- the loop

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._gathered()
            while self._pool.waiting:
                try:
                    outputs, seconds = await loop.run_in_executor(self._thread, self._timed_tick)
                except Exception as error:
                    self._refuse_all(error)
                    raise
                self._answer(outputs)
                if self._on_tick is not None:
                    self._on_tick(len(outputs), seconds)

    def _timed_tick(self) -> tuple[dict[int, Outputs], float]:
        start = time.perf_counter()
        return self._pool.tick(), time.perf_counter() - start

    async def _gathered(self) -> None:
        """Wait until there are frames, and then for more."""
        await self._frames.wait()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._enough.wait(), self._interval)
        self._frames.clear()
        self._enough.clear()

    def _require_running(self) -> None:
        task = self._task
        if task is None or task.cancelled():
            raise InputError("the pool does not run; use it inside `async with` it")
        if task.done():
            raise InputError(f"the pool has stopped because a tick failed: {task.exception()!r}; make a new one")

    def _expect(self, stream: int, push: _Push) -> None:
        """The outputs of frames that were just put into the queue of a stream."""
        self._pushes.setdefault(stream, deque()).append(push)
        self._frames.set()
        if len(self._pushes) >= self._pool.options.most:
            self._enough.set()

    def _answer(self, outputs: dict[int, Outputs]) -> None:
        for stream, y in outputs.items():
            pushes = self._pushes.get(stream)
            if pushes and pushes[0].add(y):
                pushes.popleft()
            if not pushes:
                self._pushes.pop(stream, None)

    def _refuse(self, stream: int, error: BaseException) -> None:
        for push in self._pushes.pop(stream, ()):
            push.refuse(error)

    def _refuse_all(self, error: BaseException) -> None:
        for stream in list(self._pushes):
            self._refuse(stream, error)
