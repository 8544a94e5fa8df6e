"""Continuous batching on tensors: ``array_pool.StreamPool`` with checks of what comes in, and tensors that come out."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence

import torch

from ..errors import UnsupportedError
from ..execution.executor import Executor
from ..execution.uncompiled import uncompiled
from ..types import RunStats
from ..weights.fingerprint import weights_digest
from . import array_pool
from .array_pool import PoolOptions
from .chunk_rows import ChunkRows
from .lstm import AdaptiveLSTM
from .pool_rows import NativeRows, PoolRows
from .pool_tensors import PoolTensors
from .seats import StreamStats
from .snapshot import identity
from .stream import check_streams


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
        self._pool, self._tensors = open_pool(lstm, PoolOptions(capacity, backlog, max_batch, idle_timeout, clock))

    def __len__(self) -> int:
        return len(self._pool)

    def __iter__(self) -> Iterator[int]:
        return iter(self._pool)

    def __contains__(self, stream: object) -> bool:
        return stream in self._pool

    def open(self) -> int:
        """Open a stream from zero states: its number.

        Raises:
            OverloadError: ``capacity`` streams are open.
        """
        return self._pool.open()

    def close(self, stream: int) -> None:
        """Close a stream; frames that wait are dropped.

        Raises:
            InputError: no such stream.
        """
        self._pool.close(stream)

    def expire(self) -> list[int]:
        """Close the streams that were idle for longer than ``idle_timeout``, as every tick does: their numbers."""
        return self._pool.expire()

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
        self._pool.push(stream, self._tensors.array(frames))

    @uncompiled
    def push_each(self, streams: Sequence[int], frames: torch.Tensor) -> None:
        """Give several streams one frame each, in one call.

        Args:
            streams: n different streams.
            frames: [n, I].

        Raises:
            InputError, NonFiniteError, OverloadError: as ``push``, or a stream is named twice; no frame was taken.
        """
        self._pool.push_each(streams, self._tensors.array(frames))

    @uncompiled
    def tick(self) -> dict[int, torch.Tensor]:
        """Advance every stream that has a frame by one timestep.

        Returns:
            The outputs of the top layer [P] by stream, of those that advanced. Streams that were closed meanwhile are
            not among them.
        """
        streams, y = self._pool.advance()
        return dict(zip(streams, self._tensors.tensor(y).unbind(), strict=True))

    @uncompiled
    def tick_into(self, y: torch.Tensor) -> list[int]:
        """``tick`` into memory of the caller's: the streams that advanced, whose outputs are the first rows of y.

        Args:
            y: [n, P], contiguous; at most n streams advance.

        Raises:
            InputError: wrong shape, dtype, device or layout.
        """
        return self._tensors.fill(y, self._pool.advance)

    @uncompiled
    def snapshot(self, stream: int) -> bytes:
        """Everything of a stream, frames that wait included, as bytes that ``restore`` continues from anywhere.

        The stream stays open; close it where it moves away. Waits for a running tick. A pool of
        ``adaptive_lstm.deploy`` takes the snapshot too.

        Raises:
            InputError: no such stream.
        """
        return self._pool.snapshot(stream)

    @uncompiled
    def restore(self, snapshot: bytes) -> int:
        """Open a stream that continues from a snapshot: its number in this pool. Waits for a running tick.

        It goes on as it would have where it was, bit for bit but for rounding under ``Delta`` on float matrices.

        Raises:
            StateError: not a snapshot, damaged, or of another model, precision or policy.
            OverloadError: ``capacity`` streams are open, or more frames wait in it than ``backlog`` here.
        """
        return self._pool.restore(snapshot)

    def stream_stats(self, stream: int) -> StreamStats:
        """What a stream did, and whether it is done. Raises ``InputError`` if there is no such stream."""
        return self._pool.stream_stats(stream)

    @property
    def waiting(self) -> int:
        """Streams that have a frame for the next tick."""
        return self._pool.waiting

    @property
    @uncompiled
    def stats(self) -> RunStats:
        """What all streams did together since the pool was made."""
        return self._pool.stats


def open_pool(lstm: AdaptiveLSTM, options: PoolOptions) -> tuple[array_pool.StreamPool, PoolTensors]:
    """A pool of arrays that runs an LSTM, and what stands between it and tensors. Raises as ``StreamPool`` does."""
    check_streams(lstm)
    executor, replaced = lstm.executor(), lstm.plan.replaced
    if executor.device.type != "cpu":
        raise UnsupportedError(f"the LSTM is on {executor.device}, but a pool runs on the CPU; move it with .cpu()")
    tensors = PoolTensors(executor)
    weights = weights_digest(lstm) if replaced is None else replaced.digest()
    owner = identity(weights, lstm.quantize, lstm.policy, tensors.computes_in)
    return array_pool.StreamPool(functools.partial(_rows_of, executor), lstm.monitor, owner, options), tensors


def _rows_of(executor: Executor, capacity: int) -> PoolRows:
    native = executor.native
    return ChunkRows(executor, capacity) if native is None else NativeRows(native, executor.route, capacity)
