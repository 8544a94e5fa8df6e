"""Streaming: one step or one chunk at a time, the state carried along."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn, strided

from ..errors import InputError, UnsupportedError
from ..execution.plain import is_dense, may_step, resolved
from ..execution.uncompiled import uncompiled
from ..types import RunStats, StreamState
from ..types.rows import Rows, row_mask, row_numbers
from ..types.states import check_batch_size
from .lstm import AdaptiveLSTM
from .session import open_session, stats_of
from .stream_state import check_state
from .stream_watch import Watched
from .streamable import check_decisions, check_direction
from .tensor_check import check_tensor


def check_streams(lstm: AdaptiveLSTM) -> None:
    """Raise ``InputError`` or ``UnsupportedError`` unless an LSTM can stream."""
    if not isinstance(lstm, AdaptiveLSTM):
        raise InputError(f"got {type(lstm).__name__}, expected an AdaptiveLSTM; {_advice(lstm)}")
    check_direction(lstm.stack_shape)
    if lstm.training:
        raise UnsupportedError("the LSTM is in training mode; call .eval() on it before streaming")
    check_decisions(lstm.executor().policy)


def _advice(module: object) -> str:
    if isinstance(module, nn.LSTMCell):
        return "a cell is a step already: call it with its last states"
    return "convert with adaptive_lstm.adapt(model)"


class Stream:
    """A running sequence of ``batch_size`` rows through an ``AdaptiveLSTM``; made by ``stream``.

    A stream does not know where its sequence ends, so an exit in time is checked after its last timestep too, which
    ``forward`` never does: a certificate made with ``forward`` may not cover a row that exits just there.

    The stream keeps the weights, precision and policy that the LSTM had when it was opened. One thread at a time may
    advance it; any number of streams may run at once. Results carry no gradients. A failed call leaves the state as
    it was.
    """

    @uncompiled
    def __init__(self, lstm: AdaptiveLSTM, batch_size: int):
        check_streams(lstm)
        check_batch_size(batch_size)
        self._executor = executor = lstm.executor()
        self._shape, self._batch_first = executor.shape, lstm.batch_first
        self._batch, self._dtype, self._device = batch_size, executor.dtype, executor.device
        self._in = (batch_size, self._shape.input_size)
        self._fast = self._in if self._device.type == "cpu" else None  # inputs of this shape need few checks
        self._session = session = open_session(executor, batch_size)
        self._advance: Callable[[torch.Tensor], torch.Tensor] = session.step
        self._watched = Watched(lstm.monitor, executor.policy, batch_size, session.counted)
        if self._watched:
            self._advance = self._watching(session.step)

    def _watching(self, step: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
        """Single steps that a monitor is told of; an unmonitored stream pays nothing for it."""
        advanced = self._watched.advanced

        def advance(x: torch.Tensor) -> torch.Tensor:
            advanced(1)
            return step(x)

        return advance

    def __enter__(self) -> Stream:
        return self

    @uncompiled
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Tell the monitor what the stream did; its buffers are freed with the object."""
        self._watched.ended()

    def __reduce_ex__(self, protocol: object) -> Any:
        """Refuse to be copied or pickled. Raises ``UnsupportedError``."""
        raise UnsupportedError(
            "a Stream cannot be copied or pickled; open another one and give it the state: other = "
            "adaptive_lstm.stream(lstm, batch_size); other.state = stream.state. A model that keeps one should open it "
            "when it is first needed"
        )

    # -------------------------------------------------------------------------------------------------- advance

    @uncompiled
    def step(self, x: torch.Tensor, rows: Rows | None = None) -> torch.Tensor:
        """Advance by one timestep.

        Args:
            x: [B, I]; with ``rows`` [n, I].
            rows: advance these alone, in the order of ``x``: numbers [n], each once, or a bool mask [B]; the others
                stay where they are.

        Returns:
            Output of the top layer [B, P], or [n, P]: a new tensor.

        Raises:
            InputError: wrong shape, dtype or device, or rows that are not there or are given twice.
            NonFiniteError: x holds NaN or infinity.
        """
        # This is the hot path: a few attribute look-ups are a good part of a small step.
        try:
            ready = (
                rows is None
                and type(x) is torch.Tensor
                and x.is_cpu
                and x.shape == self._fast
                and x.dtype is self._dtype
                and x.layout is strided  # others may not even know whether they are contiguous
                and may_step(x)
            )
            if ready and not x.is_contiguous():  # a slice of a batch
                ready = is_dense(x)
                x = x.contiguous() if ready else x
        except RuntimeError:  # nested tensors do not even know their shape
            ready = False
        if ready:
            return self._advance(x)
        if rows is not None:
            return self._step_rows(x, rows)
        self._check(x, self._in)
        return self._advance(resolved(x.detach()).contiguous())

    def _step_rows(self, x: torch.Tensor, rows: Rows) -> torch.Tensor:
        index, order = torch.from_numpy(self._distinct(rows)).sort()
        self._check(x, (len(order), self._in[1]))
        y = x.new_empty(len(order), self._shape.output_size)
        self._session.step_rows(resolved(x.detach())[order].contiguous(), index, y)
        return torch.empty_like(y).index_copy_(0, order.to(y.device), y)

    def _distinct(self, rows: Rows) -> npt.NDArray[np.int64]:
        index = row_numbers(rows, self._batch)
        if len(np.unique(index)) < len(index):
            raise InputError(f"rows: got {index.tolist()!s:.100}, expected every row once at most")
        return index

    @uncompiled
    def run(self, x: torch.Tensor, done: Any = None) -> torch.Tensor:
        """Advance by a chunk of any length.

        Args:
            x: [B, T, I] if the LSTM is ``batch_first``, else [T, B, I].
            done: where rows start anew before the timestep, in the layout of x: a bool mask [B, T] or [T, B]. A row in
                which it is set at t begins a new sequence with its frame t, as after ``reset(rows=)``.

        Returns:
            Outputs of the top layer in the same layout; equal to those of single steps, and of every sequence alone.

        Raises:
            InputError: wrong shape, dtype or device.
            NonFiniteError: x holds NaN or infinity.
        """
        time = 1 if self._batch_first else 0
        known = isinstance(x, torch.Tensor) and is_dense(x) and x.dim() == 3  # type: ignore[redundant-expr]
        steps = x.shape[time] if known else 0
        want = (self._batch, steps, self._in[1]) if self._batch_first else (steps, self._batch, self._in[1])
        self._check(x, want)
        starts = None if done is None else self._starts(done, want[:2])
        self._watched.advanced(steps)
        return self._session.run(resolved(x.detach()), self._batch_first, starts)

    def _starts(self, done: Any, want: tuple[int, ...]) -> torch.Tensor | None:
        """A mask of rows that start anew as [T, B]; None: there are none."""
        mask = torch.from_numpy(row_mask("done", done, want))
        starts = (mask.transpose(0, 1) if self._batch_first else mask).contiguous()
        return starts if bool(starts.any()) else None

    @uncompiled
    def ahead(self) -> None:
        """Compute the recurrent side of the next timestep now, in the idle time before its frame comes.

        The frame then finds about half of its work done. Results are the same to the bit, and so are ``state`` and
        ``stats``: they tell of timesteps that were advanced. Call it after any step, or not at all. What was computed
        is kept until the stream advances or is reset; a second call does nothing.

        It does what no input can change: all layers up to the first that may reuse its gates
        (``SkipTimesteps(mode="hold_gates")``) or be replaced (``ExitInDepth``). Nothing is done for float weights that
        are stored without their zeros, where h exceeds what integers reach, and where a step does not run natively as
        a whole.

        Raises:
            BusyError: another thread is advancing the stream.
        """
        self._session.ahead()

    def _check(self, x: torch.Tensor, want: tuple[int, ...]) -> None:
        check_tensor(x, self._dtype, self._device)
        if tuple(x.shape) != want:
            shown = "[B, I]" if len(want) == 2 else "[B, T, I]" if self._batch_first else "[T, B, I]"
            raise InputError(f"got an input of shape {tuple(x.shape)}, expected {want} ({shown})")

    # ---------------------------------------------------------------------------------------------------- state

    @uncompiled
    def reset(self, rows: Rows | None = None) -> None:
        """Back to zero states with nothing sent: a new sequence in every row, statistics cleared.

        A calibrated LSTM's monitor sees the sequences that end. Where sequences end at different times (``done`` masks
        of reinforcement learning), ``stream.reset(rows=done)`` before the next step starts new ones there, and
        ``stream.run(frames, done=ended)`` is the same for a chunk::

            for x, done in zip(frames, ended):  # done[b]: the frame in row b is the first of a new sequence
                stream.reset(rows=done)
                y = stream.step(x)

        Args:
            rows: start these anew and leave the others, and the statistics, as they are: numbers [n], or a bool mask
                [B].

        Raises:
            InputError: rows that are not there.
        """
        if rows is not None:
            index = np.unique(row_numbers(rows, self._batch))
            if len(index):
                self._session.reset_rows(torch.from_numpy(index))
            return
        self._watched.ended()
        self._session.reset()

    @property
    @uncompiled
    def state(self) -> StreamState:
        """A copy of everything that the stream remembers; assign one to continue from there.

        Assigning raises ``StateError`` if it is of another model, batch size or policy; nothing is changed then.
        Statistics start again.
        """
        return self._session.read()

    @state.setter
    @uncompiled
    def state(self, state: StreamState) -> None:
        check_state(state, self._shape, self._batch, self._executor.policy, self._executor.computes_in, self._device)
        self._session.write(state)

    @property
    @uncompiled
    def stats(self) -> RunStats:
        """What the stream did since it was opened, reset, or given a state."""
        return stats_of(self._session, self._executor)

    @property
    @uncompiled
    def exited(self) -> torch.Tensor:
        """Which rows have exited (``ExitInTime``): bool [B]. Their outputs stay the translation they exited with.

        When all have exited, nothing is computed any more; ``reset()`` starts new sequences.
        """
        return self._session.exited()


@uncompiled
def stream(lstm: AdaptiveLSTM, batch_size: int = 1) -> Stream:
    """Open a stream of ``batch_size`` rows through an ``AdaptiveLSTM`` in eval mode, from zero states.

    ::

        with al.stream(fast.lstm) as s:
            y = s.step(x)  # x: [1, I]

    Raises:
        InputError: not an ``AdaptiveLSTM``, or a batch size below 1 or above 2**26.
        UnsupportedError: a bidirectional LSTM, or one in training mode.
    """
    return Stream(lstm, batch_size)
