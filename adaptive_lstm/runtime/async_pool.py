"""A pool of streams for ``asyncio``: pushing returns the outputs once a tick in another thread has computed them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

import torch

from ..codec import brief, is_number
from ..errors import InputError
from ..types import RunStats
from .lstm import AdaptiveLSTM
from .seats import StreamStats
from .stream_pool import StreamPool

LONGEST = 86_400
"""Seconds for which frames may be gathered: event loops refuse to wait for years."""


class _Push:
    """Frames that were pushed together, and the outputs of those that have run."""

    def __init__(self, frames: int, single: bool, answer: asyncio.Future[torch.Tensor]):
        self.frames, self.single, self.answer = frames, single, answer
        self.outputs: list[torch.Tensor] = []

    def add(self, y: torch.Tensor) -> bool:
        """Take the output of the next frame; returns whether it was the last."""
        self.outputs.append(y)
        if len(self.outputs) < self.frames:
            return False
        if not self.answer.done():  # its task may have been cancelled
            self.answer.set_result(y if self.single else torch.stack(self.outputs))
        return True


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
        if not (is_number(interval) and 0 <= interval <= LONGEST):
            raise InputError(f"interval: got {brief(interval)}, expected seconds, 0 to {LONGEST:,}")
        self._pool = StreamPool(
            lstm, capacity, backlog=backlog, max_batch=max_batch, idle_timeout=idle_timeout, clock=clock
        )
        self._interval, self._full, self._width = interval, max_batch or capacity, lstm.stack_shape.output_size
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
        self._require_running()
        self._pool.push(stream, frames)
        if not frames.numel() and frames.dim() == 2:
            return frames.new_empty(0, self._width)
        single = frames.dim() == 1
        return await self._expect(stream, 1 if single else len(frames), single)

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
            self._expect(stream, frames, single=False)
        return stream

    def stream_stats(self, stream: int) -> StreamStats:
        """As ``StreamPool.stream_stats``."""
        return self._pool.stream_stats(stream)

    @property
    def stats(self) -> RunStats:
        """As ``StreamPool.stats``."""
        return self._pool.stats

    # ------------------------------------------------------------------------------------------------------- the loop

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._gathered()
            while self._pool.waiting:
                try:
                    outputs = await loop.run_in_executor(self._thread, self._pool.tick)
                except Exception as error:
                    self._refuse_all(error)
                    raise
                self._answer(outputs)

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

    def _expect(self, stream: int, frames: int, single: bool) -> asyncio.Future[torch.Tensor]:
        """The outputs of frames that were just put into the queue of a stream."""
        answer: asyncio.Future[torch.Tensor] = asyncio.get_running_loop().create_future()
        self._pushes.setdefault(stream, deque()).append(_Push(frames, single, answer))
        self._frames.set()
        if len(self._pushes) >= self._full:
            self._enough.set()
        return answer

    def _answer(self, outputs: dict[int, torch.Tensor]) -> None:
        for stream, y in outputs.items():
            pushes = self._pushes.get(stream)
            if pushes and pushes[0].add(y):
                pushes.popleft()
            if not pushes:
                self._pushes.pop(stream, None)

    def _refuse(self, stream: int, error: BaseException) -> None:
        for push in self._pushes.pop(stream, ()):
            if not push.answer.done():
                push.answer.set_exception(error)

    def _refuse_all(self, error: BaseException) -> None:
        for stream in list(self._pushes):
            self._refuse(stream, error)
