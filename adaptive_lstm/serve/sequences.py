"""The streams that clients have open: who may open one, and frames that go in one after the other."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..runtime.array_async_pool import AsyncStreamPool
from .options import ServeOptions
from .refusals import Refusal

Frames = npt.NDArray[np.float32]


class Key(NamedTuple):
    """Whose sequence it is, and the name that its client gave it."""

    client: str
    name: str


class End(NamedTuple):
    """Why a sequence ended: a status of WebSocket, and a reason in words."""

    code: int
    reason: str


class Sequence:
    """A stream of the pool as its client sees it.

    ``frames``: that were pushed so far, in other replicas too.
    ``waiting``: those of them whose outputs have not been handed over yet.
    ``heard``: when frames last came or outputs last went.
    ``held``: a connection has it for itself.
    ``saved``: frames that its snapshot in the store has seen; ``saved_at``: when.
    ``keeping``: is held by whoever changes what the store has of it, from before a snapshot is taken.
    ``end``: why it ended, or None.
    """

    def __init__(self, pool: AsyncStreamPool, stream: int, key: Key, backlog: int, clock: Callable[[], float]):
        self.key, self.stream, self._pool, self._backlog, self._clock = key, stream, pool, backlog, clock
        self.frames = self.saved = pool.stream_stats(stream).pushed
        self.waiting, self.held, self.end = 0, False, None
        self.heard = self.saved_at = clock()
        self._turn, self._went = asyncio.Lock(), asyncio.Event()
        self.ended, self.keeping = asyncio.Event(), asyncio.Lock()

    end: End | None

    async def push(self, frames: Frames) -> asyncio.Future[Frames]:
        """Give it frames [n, I], finite, at most ``backlog``; waits until there is room for them.

        Returns:
            What is done when their outputs [n, P] are there; say ``delivered`` once they have been handed over.

        Raises:
            Refusal: it has ended.
        """
        async with self._turn:
            while self.waiting + len(frames) > self._backlog:
                await self._some_went()
            self._require_open()
            self.waiting += len(frames)
            self.frames += len(frames)
            self.heard = self._clock()
            return asyncio.ensure_future(self._pool.push(self.stream, frames))

    def has_room(self, frames: int) -> bool:
        """Whether so many frames could go in now."""
        return self.waiting + frames <= self._backlog

    def delivered(self, frames: int) -> None:
        """The outputs of so many frames were handed over, or nobody waits for them any longer."""
        self.waiting -= frames
        self.heard = self._clock()
        self._went.set()

    async def snapshot(self) -> tuple[bytes, int]:
        """What ``restore`` continues from, once all outputs were handed over, and the frames that it has seen.

        Raises:
            Refusal: it has ended.
        """
        async with self._turn:
            return await self._settled()

    async def last_snapshot(self, end: End, keep: Callable[[bytes], Awaitable[None]] | None = None) -> bytes:
        """What ``restore`` continues from; it ends with it, once ``keep`` has kept it: its client then looks for it."""
        async with self._turn:
            try:
                snapshot, _ = await self._settled()
                if keep is not None:
                    await keep(snapshot)
                return snapshot
            finally:
                self.finish(end)

    def finish(self, end: End) -> None:
        """It ends, for whoever waits."""
        self.end = self.end or end
        self.ended.set()
        self._went.set()

    async def _settled(self) -> tuple[bytes, int]:
        while self.waiting:
            await self._some_went()
        self._require_open()
        try:
            return await self._pool.snapshot(self.stream), self.frames
        except InputError:
            self._require_open()  # it was closed meanwhile
            raise

    async def _some_went(self) -> None:
        self._require_open()
        self._went.clear()
        await self._went.wait()

    def _require_open(self) -> None:
        if self.end is not None:
            raise Refusal(503 if self.end.code == 1012 else 409, f"the sequence has ended: {self.end.reason}")


class Sequences:
    """All that are open, by key."""

    def __init__(self, pool: AsyncStreamPool, options: ServeOptions, clock: Callable[[], float]):
        self._pool, self._options, self._clock = pool, options, clock
        self._all: dict[Key, Sequence] = {}
        self._of = Counter[str]()  # open or about to be, by client

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(list(self._all.values()))

    def get(self, key: Key) -> Sequence | None:
        """The open one of this key."""
        return self._all.get(key)

    def open(self, key: Key) -> Sequence:
        """A new one from zero states.

        Raises:
            Refusal: too many are open.
        """
        self._reserve(key.client)
        try:
            return self._seated(key, self._pool.open())
        except BaseException:
            self._release(key.client)
            raise

    async def restore(self, key: Key, snapshot: bytes) -> Sequence:
        """One that continues from a snapshot.

        Raises:
            Refusal: too many are open, or one of this key has been opened meanwhile.
            StateError: the snapshot does not fit.
        """
        self._reserve(key.client)
        coming = asyncio.ensure_future(self._pool.restore(snapshot))
        try:
            stream = await asyncio.shield(coming)
            while self._pool.running and self._pool.stream_stats(stream).waiting:  # frames of the snapshot
                await asyncio.sleep(self._options.interval)
            if key in self._all:
                raise Refusal(409, f"sequence {key.name:.50} was opened meanwhile")
            return self._seated(key, stream)
        except BaseException:
            self._release(key.client)
            coming.add_done_callback(self._unwanted)  # the pool goes on opening it, whatever becomes of this task
            raise

    def close(self, sequence: Sequence, end: End) -> None:
        """End one, if it has not been closed."""
        sequence.finish(end)
        if self._all.get(sequence.key) is sequence:
            del self._all[sequence.key]
            self._release(sequence.key.client)
            self._pool.close(sequence.stream)

    def _seated(self, key: Key, stream: int) -> Sequence:
        self._all[key] = Sequence(self._pool, stream, key, self._options.backlog, self._clock)
        return self._all[key]

    def _unwanted(self, coming: asyncio.Future[int]) -> None:
        if not coming.cancelled() and coming.exception() is None:
            self._pool.close(coming.result())

    def _reserve(self, client: str) -> None:
        most, each = self._options.streams, self._options.streams_per_client
        if sum(self._of.values()) >= most:
            raise Refusal(503, f"got one more stream, but {most} are open, which is all; try again, or elsewhere")
        if each is not None and self._of[client] >= each:
            raise Refusal(429, f"got one more stream, but you have {each} open, which is all for one client; close one")
        self._of[client] += 1

    def _release(self, client: str) -> None:
        self._of[client] -= 1
        if not self._of[client]:
            del self._of[client]


def answered(tasks: list[asyncio.Future[Any]]) -> None:
    """Nobody waits for these any longer; their errors are not reported."""
    for task in tasks:
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        task.cancel()
