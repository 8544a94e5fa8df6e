"""Continuous batching: streams that come and go share batched steps."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ..codec import brief, is_number
from ..errors import InputError, OverloadError, StateError, UnsupportedError
from ..execution.plain import is_dense, is_plain, resolved
from ..execution.uncompiled import uncompiled
from ..types import RunStats
from ..types.states import MOST_ROWS
from .frame_check import FrameCheck
from .frame_queue import FrameQueue
from .lstm import AdaptiveLSTM
from .monitor import LOOK
from .seats import NOBODY, Seats, StreamStats
from .session import open_session, stats_of
from .snapshot import Snapshot, identity, pack, unpack
from .stream import check_streams
from .stream_state import check_state

_Rows = npt.NDArray[np.int64]


class _Batch(NamedTuple):
    """What a tick runs: the oldest frames of some rows, and who sat there.

    ``fresh``: rows that start anew.
    ``left``: how many streams had left the pool.
    """

    rows: _Rows
    ids: _Rows
    frames: npt.NDArray[Any]
    fresh: set[int]
    left: int


class StreamPool:
    """Streams through one ``AdaptiveLSTM`` that join and leave at any time and advance together.

    ::

        pool = al.StreamPool(fast.lstm, capacity=512)
        caller = pool.open()
        pool.push(caller, frames)  # from any thread: [I], or [n, I]
        for stream, y in pool.tick().items():  # a frame of each stream that has one, y: [P]
            ...
        pool.close(caller)

    A tick runs one native step for all rows that have a frame; inside it, rows that a policy holds or lets go leave the
    batch. What a stream returns does not depend on the others: it is that of an ``al.stream`` of its own, bit for bit
    but for ``Delta`` on float matrices, whose sums are rounded in another order.

    Everything may be called from any thread; one tick runs at a time, and ``push``, ``open`` and ``close`` do not wait
    for it. The pool keeps the weights, precision and policy that the LSTM had when it was made. What the native core
    does not run (policies in Python, float64) is run by the executor of streams, which copies rows at every tick.

    Args:
        lstm: in eval mode, on the CPU, one direction.
        capacity: streams that may be open at once.
        backlog: frames that may wait in each.
        max_batch: streams that a tick advances at most, the longest not served first; None: all that have a frame.
        idle_timeout: seconds after which ``tick`` closes a stream that brought no frame and has none waiting; None:
            never.
        clock: tells the time in seconds.

    Raises:
        InputError: not an ``AdaptiveLSTM``, or an option out of range.
        UnsupportedError: an LSTM that cannot stream, or is not on the CPU.
    """

    @uncompiled
    def __init__(
        self,
        lstm: AdaptiveLSTM,
        capacity: int = 512,
        *,
        backlog: int = 64,
        max_batch: int | None = None,
        idle_timeout: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        check_streams(lstm)
        for name, value in (("capacity", capacity), ("backlog", backlog), ("max_batch", max_batch)):
            if value is not None and (type(value) is not int or not 1 <= value <= MOST_ROWS):
                raise InputError(f"{name}: got {brief(value)}, expected a whole number, 1 to {MOST_ROWS:,}")
        if idle_timeout is not None and not (is_number(idle_timeout) and idle_timeout > 0):
            raise InputError(f"idle_timeout: got {brief(idle_timeout)}, expected seconds, above 0")
        self._executor = executor = lstm.executor()
        if executor.device.type != "cpu":
            raise UnsupportedError(f"the LSTM is on {executor.device}, but a pool runs on the CPU; move it with .cpu()")
        self._shape, self._owner = executor.shape, identity(lstm)
        self._session = open_session(executor, capacity)
        self._max_batch, self._idle_timeout, self._clock = max_batch or capacity, idle_timeout, clock
        self._watch = None
        if lstm.monitor is not None and executor.policy.time_exit is None:
            self._watch = lstm.monitor.watch(1)  # all streams as one: of any number of them
        self._ticks = 0
        # ``_ticking`` guards the session and is taken first; ``_lock`` guards everything else, for moments.
        self._ticking, self._lock = threading.Lock(), threading.Lock()
        self._seats = Seats(capacity)
        self._check = FrameCheck(executor)
        self._queue = FrameQueue(capacity, backlog, self._shape.input_size, self._check.dtype)
        self._fresh: set[int] = set()  # rows that start anew before they run

    def __len__(self) -> int:
        return len(self._seats)

    def __iter__(self) -> Iterator[int]:
        return iter(self._seats)

    def __contains__(self, stream: object) -> bool:
        return stream in self._seats

    # ------------------------------------------------------------------------------------------------- come and go

    def open(self) -> int:
        """Open a stream from zero states: its number.

        Raises:
            OverloadError: ``capacity`` streams are open.
        """
        if len(self._seats) == len(self._seats.ids):
            self.expire()
        with self._lock:
            stream, row = self._seats.take(self._clock())
            self._queue.clear(row)
            self._fresh.add(row)
            return stream

    def close(self, stream: int) -> None:
        """Close a stream; frames that wait are dropped.

        Raises:
            InputError: no such stream.
        """
        with self._lock:
            self._leave(stream)

    def expire(self) -> list[int]:
        """Close the streams that were idle for longer than ``idle_timeout``, as every tick does: their numbers."""
        with self._lock:
            if self._idle_timeout is None:
                return []
            idle = self._seats.idle(self._clock(), self._idle_timeout, self._queue.count)
            for stream in idle:
                self._leave(stream)
            return idle

    def _leave(self, stream: int) -> None:
        row = self._seats.leave(stream)
        self._queue.clear(row)
        self._fresh.discard(row)

    # ------------------------------------------------------------------------------------------------ frames and ticks

    @uncompiled
    def push(self, stream: int, frames: torch.Tensor) -> None:
        """Give a stream its next frame or frames; they are copied, and run one per tick.

        Args:
            stream: from ``open`` or ``restore``.
            frames: [I], or [n, I].

        Raises:
            InputError: no such stream, or a wrong shape, dtype or device.
            NonFiniteError: the frames hold NaN or infinity.
            OverloadError: more than ``backlog`` frames would wait; none of these was taken.
        """
        values = self._check.frames(frames)
        with self._lock:
            row = self._seats.row(stream)
            self._queue.put(row, values, stream)
            self._seats.heard[row] = self._clock()

    @uncompiled
    def push_each(self, streams: Sequence[int], frames: torch.Tensor) -> None:
        """Give several streams one frame each, in one call.

        Args:
            streams: n different streams.
            frames: [n, I].

        Raises:
            InputError, NonFiniteError, OverloadError: as ``push``, or a stream is named twice; no frame was taken.
        """
        values = self._check.one_each(frames)
        if len(streams) != len(values):
            raise InputError(f"got {len(streams)} streams and {len(values)} frames, expected a frame for each")
        with self._lock:
            rows = self._seats.rows(streams)
            self._queue.put_each(rows, values, streams)
            self._seats.heard[rows] = self._clock()

    @uncompiled
    def tick(self) -> dict[int, torch.Tensor]:
        """Advance every stream that has a frame by one timestep.

        Returns:
            The outputs of the top layer [P] by stream, of those that advanced. Streams that were closed meanwhile are
            not among them.
        """
        with self._ticking:
            batch = self._batch(self._max_batch)
            y = torch.empty(len(batch.rows), self._shape.output_size, dtype=self._executor.dtype)
            return dict(zip(self._run(batch, y), y, strict=False))

    @uncompiled
    def tick_into(self, y: torch.Tensor) -> list[int]:
        """``tick`` into memory of the caller's: the streams that advanced, whose outputs are the first rows of y.

        Args:
            y: [n, P], contiguous; at most n streams advance.

        Raises:
            InputError: wrong shape, dtype, device or layout.
        """
        width, dtype = self._shape.output_size, self._executor.dtype
        known: bool = isinstance(y, torch.Tensor) and is_dense(y) and is_plain(y)  # type: ignore[redundant-expr]
        if not known or y.dim() != 2 or not len(y) or y.shape[1] != width or y.dtype is not dtype or not y.is_cpu:
            got = f"{tuple(y.shape)} of {y.dtype}" if known else type(y).__name__
            raise InputError(f"y: got {got}, expected plain memory [n, {width}] of {dtype} on the CPU, n at least 1")
        with self._ticking, torch.no_grad():
            batch = self._batch(min(self._max_batch, len(y)))
            rows = y.detach()[: len(batch.rows)]
            into = resolved(rows).contiguous()
            streams = self._run(batch, into)
            if into.data_ptr() != rows.data_ptr():
                rows.copy_(into)
            return streams

    def _batch(self, most: int) -> _Batch:
        """The frames of the next tick, of at most so many rows. They stay in their queues until they have run."""
        if self._idle_timeout is not None:
            self.expire()
        with self._lock:
            rows = self._queue.in_turn(most)
            fresh, self._fresh = self._fresh, set()
            return _Batch(rows, self._seats.ids[rows], self._queue.oldest(rows), fresh, self._seats.left)

    def _run(self, batch: _Batch, y: torch.Tensor) -> list[int]:
        """Runs a batch to y [n, P]: the streams that are still open, whose outputs are then the first rows of y."""
        x = torch.from_numpy(batch.frames)
        try:
            if batch.fresh:
                self._session.reset_rows(torch.tensor(sorted(batch.fresh)))
            self._session.step_rows(x if x.dtype is y.dtype else x.to(y.dtype), torch.from_numpy(batch.rows), y)
        except BaseException:
            with self._lock:
                self._fresh |= {row for row in batch.fresh if self._seats.ids[row] != NOBODY}
            raise
        done = self._session.exited().numpy() if self._executor.policy.time_exit is not None else None
        with self._lock:
            rows, ids = batch.rows, batch.ids
            if self._seats.left != batch.left:  # during the tick
                stay = self._seats.ids[rows] == ids
                rows, ids = rows[stay], ids[stay]
                y[: len(rows)] = y[torch.from_numpy(stay)]
            self._queue.drop(rows)
            if done is not None:
                self._seats.done[rows] = done[rows]
        self._ticks += 1
        if self._watch is not None and self._ticks % LOOK == 0:
            timesteps, counts = self._session.counted()
            self._watch.look(counts, timesteps)
        streams: list[int] = ids.tolist()
        return streams

    # -------------------------------------------------------------------------------------------------- move and look

    @uncompiled
    def snapshot(self, stream: int) -> bytes:
        """Everything of a stream, frames that wait included, as bytes that ``restore`` continues from anywhere.

        The stream stays open; close it where it moves away. Waits for a running tick.

        Raises:
            InputError: no such stream.
        """
        with self._ticking, self._lock:
            row = self._seats.row(stream)
            index = torch.tensor([row])
            if row in self._fresh:
                self._session.reset_rows(index)
                self._fresh.discard(row)
            queue = self._queue
            state, pushed, steps = self._session.read_rows(index), int(queue.pushed[row]), int(queue.ran[row])
            return pack(Snapshot(state, queue.all_of(row), pushed, steps), self._owner)

    @uncompiled
    def restore(self, snapshot: bytes) -> int:
        """Open a stream that continues from a snapshot: its number in this pool. Waits for a running tick.

        It goes on as it would have where it was, bit for bit but for rounding under ``Delta`` on float matrices.

        Raises:
            StateError: not a snapshot, damaged, or of another model, precision or policy.
            OverloadError: ``capacity`` streams are open, or more frames wait in it than ``backlog`` here.
        """
        executor, found = self._executor, unpack(snapshot, self._owner)
        check_state(found.state, self._shape, 1, executor.policy, executor.computes_in, executor.device)
        frames = found.frames
        if frames.ndim != 2 or frames.shape[1] != self._shape.input_size or not np.isfinite(frames).all():
            raise StateError(f"frames: got shape {frames.shape}, expected finite [n, {self._shape.input_size}]")
        if found.pushed != found.steps + len(frames):
            raise StateError("the snapshot is damaged: frames pushed are neither those that ran nor those that wait")
        with self._ticking, self._lock:
            if len(frames) > self._queue.longest:
                raise OverloadError(
                    f"got a snapshot in which {len(frames)} frames wait, expected at most {self._queue.longest}; give "
                    "the pool a longer backlog"
                )
            stream, row = self._seats.take(self._clock())
            try:
                self._session.write_rows(torch.tensor([row]), found.state)
            except BaseException:
                self._leave(stream)
                raise
            self._queue.clear(row, found.steps)
            self._queue.put(row, frames, stream)
            if found.state.exit is not None:
                self._seats.done[row] = bool(found.state.exit.exited[0])
            return stream

    def stream_stats(self, stream: int) -> StreamStats:
        """What a stream did, and whether it is done. Raises ``InputError`` if there is no such stream."""
        with self._lock:
            return self._seats.stats(stream, self._clock(), self._queue)

    @property
    def waiting(self) -> int:
        """Streams that have a frame for the next tick."""
        with self._lock:
            return int(np.count_nonzero(self._queue.pushed != self._queue.ran))

    @property
    @uncompiled
    def stats(self) -> RunStats:
        """What all streams did together since the pool was made."""
        return stats_of(self._session, self._executor)
