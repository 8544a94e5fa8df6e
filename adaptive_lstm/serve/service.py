"""One pool and the sequences of its clients: opened, kept alive, put into the store, ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from ..deploy import LSTM, AsyncStreamPool
from ..errors import AdaptiveLSTMError
from .audited import Audited, Frames, Segment
from .metrics import Metrics, Ticks, Told
from .options import ServeOptions
from .refusals import Refusal, draining
from .sequences import End, Key, Sequence, Sequences
from .store import Store

IDLE, MOVED, CLOSED = End(1001, "idle"), End(1012, "moved"), End(1000, "closed")
REPLACED, TAKEN, STOPPED = End(1008, "started anew"), End(1008, "taken over"), End(1012, "stopped")
PATIENCE = 10.0  # seconds that a snapshot waits for results to be taken
MOST_CHECKS = 64  # comparisons of an audit that wait; more are left out

log = logging.getLogger("adaptive_lstm.serve")


class Service:
    """Serves one LSTM.

    Args:
        lstm: to serve.
        options: how.
        store: where snapshots go; None: sequences end with this process.
        audited: what is compared with the original; None: nothing.
        clock: tells the time in seconds.

    Raises:
        InputError, UnsupportedError: as ``LSTM.stream_pool``.
    """

    def __init__(
        self,
        lstm: LSTM,
        options: ServeOptions,
        store: Store | None = None,
        audited: Audited | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.lstm, self.options, self.store, self.audited, self._clock = lstm, options, store, audited, clock
        pool = lstm.stream_pool(options.streams, backlog=options.backlog, max_batch=options.max_batch)
        self.ticks, self.told = Ticks(), Told()
        self.pool = AsyncStreamPool(pool, interval=options.interval, on_tick=self.ticks.add)
        self.sequences = Sequences(self.pool, options, clock)
        self.metrics = Metrics(self)
        self.draining = False
        self._segments: dict[Sequence, Segment] = {}
        self._at_work = set[asyncio.Task[None]]()
        self._checks = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve; at the end all sequences are put into the store."""
        async with self.pool:
            keeper = asyncio.create_task(self._keep())
            try:
                yield
            finally:
                await self.drain()
                for task in (keeper, *self._at_work):
                    task.cancel()
                await asyncio.gather(keeper, *self._at_work, return_exceptions=True)

    @property
    def ready(self) -> bool:
        """Whether new sequences are taken."""
        return self.pool.running and not self.draining

    # --------------------------------------------------------------------------------------------- sequences of clients

    def start(self, key: Key) -> Sequence:
        """A new sequence, in place of an older one of this key, whoever holds it. Raises ``Refusal``."""
        self._require_ready()
        old = self.sequences.get(key)
        if old is not None:
            self.close(old, REPLACED)
        sequence = self.sequences.open(key)
        if self.audited is not None and random.random() < self.audited.share:
            self._segments[sequence] = Segment(self.audited.frames)
        return sequence

    async def resume(self, key: Key) -> Sequence:
        """The open sequence of this key, or one that continues from the store.

        A connection that holds it loses it: its client may have come back before its end was noticed.

        Raises:
            Refusal: there is none.
            StateError: the snapshot is of another model.
        """
        self._require_ready()
        found = self.sequences.get(key)
        if found is not None and not found.held:
            return found
        snapshot = await self._taken_over(found) if found is not None else None
        if snapshot is None and self.store is not None:
            snapshot = await self.store.get(key)
        if snapshot is None:
            raise Refusal(404, f"there is no sequence {key.name:.50} to resume; start one")
        return await self.restore(key, snapshot)

    async def _taken_over(self, held: Sequence) -> bytes | None:
        """The last snapshot of a sequence that ends here; None if nobody takes its results."""
        snapshot = None
        with contextlib.suppress(asyncio.TimeoutError):
            snapshot = await asyncio.wait_for(held.last_snapshot(TAKEN), PATIENCE)
        self.close(held, TAKEN)
        return snapshot

    async def restore(self, key: Key, snapshot: bytes) -> Sequence:
        """A new sequence that continues from a snapshot. Raises as ``resume``."""
        self._require_ready()
        if self.sequences.get(key) is not None:
            raise Refusal(409, f"sequence {key.name:.50} is open; close it first")
        return await self.sequences.restore(key, snapshot)

    def going_on(self, key: Key) -> Sequence:
        """The open sequence of this key. Raises ``Refusal``."""
        self._require_ready()
        found = self.sequences.get(key)
        if found is None:
            raise Refusal(
                404,
                f"sequence {key.name:.50} is not open; set sequence_start with its first request, or "
                "sequence_resume to continue from its last snapshot",
            )
        return require_free(found)

    def delivered(self, sequence: Sequence, x: Frames, y: Frames) -> None:
        """Frames [n, I] and their outputs [n, P], which were handed over."""
        segment = self._segments.get(sequence)
        if segment is not None and segment.add(x, y):
            self._compare(sequence)
        sequence.delivered(len(x))

    def close(self, sequence: Sequence, end: End) -> None:
        """End a sequence, unless it has been closed."""
        if self.sequences.get(sequence.key) is sequence:
            self.told.ended[end.reason] += 1
        self._compare(sequence)
        self.sequences.close(sequence, end)

    async def forget(self, key: Key, ended: Sequence | None) -> None:
        """The client of a sequence, which has ended if it was here, wants its snapshot no longer."""
        if self.store is not None:
            try:
                async with contextlib.AsyncExitStack() as held:
                    if ended is not None:
                        await held.enter_async_context(ended.keeping)
                    await self.store.drop(key)
            except (AdaptiveLSTMError, OSError) as error:
                log.warning("a snapshot could not be deleted: %s", error)

    async def drain(self) -> None:
        """Take nothing new, hand over what has run, put all sequences into the store, and end them."""
        self.draining = True
        await asyncio.gather(*(self._move(sequence) for sequence in self.sequences))

    # ------------------------------------------------------------------------------------------------------- the keeper

    async def _keep(self) -> None:
        options = self.options
        beat = min(1.0, options.idle_timeout / 4, options.checkpoint / 4)
        while True:
            await asyncio.sleep(beat)
            now = self._clock()
            for sequence in self.sequences:
                if now - sequence.heard > options.idle_timeout:
                    self.close(sequence, IDLE)
                elif self._due(sequence, now):
                    self._work(self._save(sequence))

    def _due(self, sequence: Sequence, now: float) -> bool:
        new = sequence.saved != sequence.frames
        at_it = self.store is None or sequence.keeping.locked()
        return new and not at_it and now - sequence.saved_at >= self.options.checkpoint

    async def _save(self, sequence: Sequence) -> None:
        async with sequence.keeping:
            sequence.saved_at = self._clock()
            with contextlib.suppress(Refusal, asyncio.TimeoutError):  # it ended, or its client takes no results
                snapshot, frames = await asyncio.wait_for(sequence.snapshot(), PATIENCE)
                await self._put(sequence, snapshot)
                sequence.saved = frames

    async def _move(self, sequence: Sequence) -> None:
        end = STOPPED if self.store is None else MOVED
        try:
            if self.pool.running:  # else nobody can tell where it is
                async with sequence.keeping:
                    await asyncio.wait_for(sequence.last_snapshot(end, partial(self._put, sequence)), PATIENCE)
        except (Refusal, asyncio.TimeoutError, AdaptiveLSTMError) as error:
            log.warning("a sequence ends without a snapshot: %r", error)
        self.close(sequence, end)

    async def _put(self, sequence: Sequence, snapshot: bytes) -> None:
        if self.store is not None:
            try:
                await self.store.put(sequence.key, snapshot)
            except (AdaptiveLSTMError, OSError) as error:
                log.warning("a snapshot could not be stored: %s", error)

    def _compare(self, sequence: Sequence) -> None:
        """Let the audit see what was kept of a sequence."""
        segment = self._segments.pop(sequence, None)
        if segment and self.audited is not None and self._checks < MOST_CHECKS:
            self._checks += 1
            self._work(self._checked(self.audited, *segment.all()))

    async def _checked(self, audited: Audited, x: Frames, y: Frames) -> None:
        try:
            await asyncio.to_thread(audited.check, x, y)
        except Exception:  # whatever the caller's check raises: streams go on
            log.exception("a comparison of the audit failed")
        finally:
            self._checks -= 1

    def _work(self, what: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(what)
        self._at_work.add(task)
        task.add_done_callback(self._at_work.discard)

    def _require_ready(self) -> None:
        if self.draining:
            raise draining()
        if not self.pool.running:
            raise Refusal(503, "the pool of this replica has stopped; go on at another one")


def require_free(sequence: Sequence) -> Sequence:
    """The same, unless a connection holds it. Raises ``Refusal``."""
    if sequence.held:
        raise Refusal(409, f"sequence {sequence.key.name:.50} is held by a connection")
    return sequence
