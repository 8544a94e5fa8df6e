"""Continuous batching on arrays: streams that come and go share batched steps. Needs no torch."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..codec import brief, is_iterable, is_number, is_whole
from ..errors import InputError, OverloadError, StateError, UnsupportedError
from ..execution.backend import refuse_non_finite
from ..types import RunStats
from ..types.states import MOST_ROWS
from .arrays import as_stored, floats
from .frame_queue import FrameQueue
from .monitor import Monitor
from .pool_rows import PoolRows
from .seats import NOBODY, Seats, StreamStats
from .snapshot import Snapshot, pack, unpack
from .state_check import check_state
from .stream_watch import Watched

_Rows = npt.NDArray[np.int64]
_Frames = npt.NDArray[Any]


@dataclass(frozen=True)
class PoolOptions:
    """How a pool serves; each option as ``StreamPool`` describes it.

    Raises:
        InputError: an option out of range.
    """

    capacity: int = 512
    backlog: int = 64
    max_batch: int | None = None
    idle_timeout: float | None = None
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        for name, value in (("capacity", self.capacity), ("backlog", self.backlog), ("max_batch", self.max_batch)):
            if name == "max_batch" and value is None:
                continue
            if not (is_whole(value) and 1 <= value <= MOST_ROWS):
                raise InputError(f"{name}: got {brief(value)}, expected a whole number, 1 to {MOST_ROWS:,}")
            object.__setattr__(self, name, int(value))
        if self.idle_timeout is not None and not (is_number(self.idle_timeout) and self.idle_timeout > 0):
            raise InputError(f"idle_timeout: got {brief(self.idle_timeout)}, expected seconds, above 0")
        if not callable(self.clock):
            raise InputError(f"clock: got {brief(self.clock)}, expected a function that tells the time in seconds")

    @property
    def most(self) -> int:
        """Streams that a tick advances at most."""
        return self.max_batch or self.capacity


class _Batch(NamedTuple):
    """What a tick runs: the oldest frames of some rows, and who sat there.

    ``fresh``: rows that start anew.
    ``left``: how many streams had left the pool.
    """

    rows: _Rows
    ids: _Rows
    frames: _Frames
    fresh: set[int]
    left: int


class StreamPool:
    """Streams through one LSTM that join and leave at any time and advance together; made by ``LSTM.stream_pool``.

    ::

        pool = lstm.stream_pool(capacity=512)
        caller = pool.open()
        pool.push(caller, frames)  # from any thread: [I], or [n, I]
        for stream, y in pool.tick().items():  # a frame of each stream that has one, y: [P]
            ...
        pool.close(caller)

    A tick runs one native step for all rows that have a frame; inside it, rows that a policy holds or lets go leave the
    batch. What a stream returns does not depend on the others: it is that of a ``Stream`` of its own, bit for bit but
    for ``Delta`` on float matrices, whose sums are rounded in another order. Snapshots move between this pool and
    ``adaptive_lstm.StreamPool`` of the same model.

    Everything may be called from any thread; one tick runs at a time, and ``push``, ``open`` and ``close`` do not wait
    for it.

    ``shape``: sizes of the LSTM.
    ``dtype``: of frames and outputs.
    ``options``: how it serves.
    """

    def __init__(self, open_rows: Callable[[int], PoolRows], monitor: Monitor | None, owner: str, options: PoolOptions):
        self._rows = rows = open_rows(options.capacity)
        self.shape, self.dtype, self.options = rows.shape, rows.dtype, options
        self._owner, self._exits = owner, rows.policy.time_exit is not None
        self._watched = Watched(monitor, rows.policy, 1, rows.counted)  # all streams as one: of any number of them
        # ``_ticking`` guards the rows and is taken first; ``_lock`` guards everything else, for moments.
        self._ticking, self._lock = threading.Lock(), threading.Lock()
        self._seats = Seats(options.capacity)
        try:
            self._queue = FrameQueue(options.capacity, options.backlog, self.shape.input_size, self.dtype)
        except (MemoryError, ValueError) as error:
            raise InputError(
                f"got capacity {options.capacity:,} and backlog {options.backlog:,}, whose waiting frames do not fit "
                f"into memory ({error}); expected fewer"
            ) from error
        self._fresh: set[int] = set()  # rows that start anew before they run

    def __len__(self) -> int:
        return len(self._seats)

    def __iter__(self) -> Iterator[int]:
        return iter(self._seats)

    def __contains__(self, stream: object) -> bool:
        return stream in self._seats

    def __reduce_ex__(self, protocol: object) -> Any:
        """Refuse to be copied or pickled. Raises ``UnsupportedError``."""
        raise UnsupportedError(
            "a pool of streams cannot be copied or pickled; make another one and move streams: "
            "other.restore(pool.snapshot(stream))"
        )

    # ------------------------------------------------------------------------------------------------- come and go

    def open(self) -> int:
        """Open a stream from zero states: its number.

        Raises:
            OverloadError: ``capacity`` streams are open.
        """
        if len(self._seats) == len(self._seats.ids):
            self.expire()
        with self._lock:
            stream, row = self._seats.take(self.options.clock())
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
            timeout = self.options.idle_timeout
            if timeout is None:
                return []
            idle = self._seats.idle(self.options.clock(), timeout, self._queue.count)
            for stream in idle:
                self._leave(stream)
            return idle

    def _leave(self, stream: int) -> None:
        row = self._seats.leave(stream)
        self._queue.clear(row)
        self._fresh.discard(row)

    # ------------------------------------------------------------------------------------------------ frames and ticks

    def push(self, stream: int, frames: Any) -> int:
        """Give a stream its next frame or frames; they are copied, and run one per tick.

        Args:
            stream: from ``open`` or ``restore``.
            frames: [I], or [n, I], float32; other real numbers are converted.

        Returns:
            How many frames were taken.

        Raises:
            InputError: no such stream, a wrong shape, or no numbers.
            NonFiniteError: the frames hold NaN or infinity.
            OverloadError: more than ``backlog`` frames would wait; none of these was taken.
        """
        values = _checked(frames, self._rows, alone=True)
        with self._lock:
            row = self._seats.row(stream)
            self._queue.put(row, values, stream)
            self._seats.heard[row] = self.options.clock()
        return len(values)

    def push_each(self, streams: Sequence[int], frames: Any) -> None:
        """Give several streams one frame each, in one call.

        Args:
            streams: n different streams.
            frames: [n, I].

        Raises:
            InputError, NonFiniteError, OverloadError: as ``push``, or a stream is named twice; no frame was taken.
        """
        values = _checked(frames, self._rows, alone=False)
        if not isinstance(streams, (list, tuple)):  # a union is made anew at every call
            streams = _listed(streams)
        if len(streams) != len(values):
            raise InputError(f"got {len(streams)} streams and {len(values)} frames, expected a frame for each")
        with self._lock:
            rows = self._seats.rows(streams)
            self._queue.put_each(rows, values, streams)
            self._seats.heard[rows] = self.options.clock()

    def tick(self) -> dict[int, npt.NDArray[Any]]:
        """Advance every stream that has a frame by one timestep.

        Returns:
            The outputs of the top layer [P] by stream, of those that advanced. Streams that were closed meanwhile are
            not among them.
        """
        streams, y = self.advance()
        return dict(zip(streams, y, strict=True))

    def advance(self, y: _Frames | None = None) -> tuple[list[int], _Frames]:
        """``tick`` as two rows: the n streams that advanced, and their outputs [n, P], the first rows of y if given."""
        with self._ticking:
            batch = self._batch(self.options.most if y is None else min(self.options.most, len(y)))
            if y is None:
                y = np.empty((len(batch.rows), self.shape.output_size), self.dtype)
            try:
                if batch.fresh:
                    self._rows.reset(np.array(sorted(batch.fresh)))
                self._rows.step(batch.rows, batch.frames, y)
            except BaseException:
                with self._lock:
                    self._fresh |= {row for row in batch.fresh if self._seats.ids[row] != NOBODY}
                raise
            done = self._rows.exited() if self._exits else None
            with self._lock:
                rows, ids = batch.rows, batch.ids
                if self._seats.left != batch.left:  # during the tick
                    stay = np.flatnonzero(self._seats.ids[rows] == ids)
                    rows, ids = rows[stay], ids[stay]
                    y[: len(rows)] = y[stay]
                self._queue.drop(rows)
                if done is not None:
                    self._seats.done[rows] = done[rows]
            self._watched.advanced(1)
            return ids.tolist(), y[: len(ids)]

    def tick_into(self, y: npt.NDArray[Any]) -> list[int]:
        """``tick`` into memory of the caller's: the streams that advanced, whose outputs are the first rows of y.

        Args:
            y: [n, P], float32, contiguous; at most n streams advance.

        Raises:
            InputError: wrong shape, dtype or layout.
        """
        width, dtype = self.shape.output_size, np.dtype(self.dtype)
        known = isinstance(y, np.ndarray)
        if not known or y.ndim != 2 or not len(y) or y.shape[1] != width or y.dtype != dtype or not y.flags.carray:
            got = f"{y.shape} of {y.dtype}" if known else type(y).__name__
            raise InputError(f"y: got {got}, expected contiguous memory [n, {width}] of {dtype} to fill, n at least 1")
        return self.advance(y)[0]

    def _batch(self, most: int) -> _Batch:
        """The frames of the next tick, of at most so many rows. They stay in their queues until they have run."""
        if self.options.idle_timeout is not None:
            self.expire()
        with self._lock:
            rows = self._queue.in_turn(most)
            fresh, self._fresh = self._fresh, set()
            return _Batch(rows, self._seats.ids[rows], self._queue.oldest(rows), fresh, self._seats.left)

    # -------------------------------------------------------------------------------------------------- move and look

    def snapshot(self, stream: int) -> bytes:
        """Everything of a stream, frames that wait included, as bytes that ``restore`` continues from anywhere.

        The stream stays open; close it where it moves away. Waits for a running tick.

        Raises:
            InputError: no such stream.
        """
        with self._ticking, self._lock:
            row = self._seats.row(stream)
            if row in self._fresh:
                self._rows.reset(np.array([row]))
                self._fresh.discard(row)
            queue = self._queue
            pushed, steps = int(queue.pushed[row]), int(queue.ran[row])
            return pack(Snapshot(self._rows.read(row), queue.all_of(row), pushed, steps), self._owner)

    def restore(self, snapshot: bytes) -> int:
        """Open a stream that continues from a snapshot: its number in this pool. Waits for a running tick.

        It goes on as it would have where it was, bit for bit but for rounding under ``Delta`` on float matrices.

        Raises:
            StateError: not a snapshot, damaged, or of another model, precision or policy.
            OverloadError: ``capacity`` streams are open, or more frames wait in it than ``backlog`` here.
        """
        found = _continued(snapshot, self._owner, self._rows)
        with self._ticking, self._lock:
            if len(found.frames) > self._queue.longest:
                raise OverloadError(
                    f"got a snapshot in which {len(found.frames)} frames wait, expected at most {self._queue.longest}; "
                    "give the pool a longer backlog"
                )
            stream, row = self._seats.take(self.options.clock())
            try:
                self._rows.write(row, found.state)
            except BaseException:
                self._leave(stream)
                raise
            self._queue.clear(row, found.steps)
            self._queue.put(row, found.frames, stream)
            if found.state.exit is not None:
                self._seats.done[row] = bool(found.state.exit.exited[0])
            return stream

    def stream_stats(self, stream: int) -> StreamStats:
        """What a stream did, and whether it is done. Raises ``InputError`` if there is no such stream."""
        with self._lock:
            return self._seats.stats(stream, self.options.clock(), self._queue)

    @property
    def waiting(self) -> int:
        """Streams that have a frame for the next tick."""
        with self._lock:
            return int(np.count_nonzero(self._queue.pushed != self._queue.ran))

    @property
    def stats(self) -> RunStats:
        """What all streams did together since the pool was made."""
        return self._rows.stats()


def _listed(streams: Any) -> list[int]:
    """Streams in any other container, in its order."""
    if not is_iterable(streams):
        raise InputError(f"streams: got {brief(streams)}, expected a list of numbers from open() or restore()")
    return streams.tolist() if hasattr(streams, "tolist") else list(streams)


def _checked(frames: Any, rows: PoolRows, *, alone: bool) -> _Frames:
    """Frames [n, I], or one ``alone`` [I] too, as [n, I] in the dtype of the rows; may share the caller's memory.

    Raises:
        InputError: a wrong shape, or no numbers.
        NonFiniteError: NaN or infinity.
    """
    width, known = rows.shape.input_size, type(frames) is np.ndarray and frames.dtype == rows.dtype
    given: _Frames = frames if known else floats(frames, "frames", rows.dtype)
    if given.shape[-1:] != (width,) or not (given.ndim == 2 or (alone and given.ndim == 1)):
        wanted = f"[{width}] or [n, {width}]" if alone else f"[n, {width}]"
        raise InputError(f"got frames of shape {given.shape}, expected {wanted}")
    if not np.isfinite(given).all():
        raise refuse_non_finite()
    return given if given.ndim == 2 else given[None]


def _continued(data: bytes, owner: str, rows: PoolRows) -> Snapshot:
    """A snapshot from which a row can go on. Raises ``StateError``."""
    found, width = unpack(data, owner), rows.shape.input_size
    check_state(found.state, rows.shape, 1, rows.policy, functools.partial(as_stored, dtype=rows.dtype))
    frames = found.frames
    if frames.ndim != 2 or frames.shape[1] != width or not np.isfinite(frames).all():
        raise StateError(f"frames: got shape {frames.shape}, expected finite [n, {width}]")
    if found.pushed != found.steps + len(frames):
        raise StateError("the snapshot is damaged: frames pushed are neither those that ran nor those that wait")
    return found
