"""Streaming: one step or one chunk at a time, the state carried along."""

from __future__ import annotations

from types import TracebackType

import torch

from ..errors import InputError, UnsupportedError
from ..execution.accounting import run_stats
from ..execution.backend import refuse_non_finite
from ..execution.reference import start
from ..types import Counts, RunStats, StreamState
from .lstm import AdaptiveLSTM
from .stream_state import check_state, copied


class Stream:
    """A running sequence of ``batch_size`` rows through an ``AdaptiveLSTM``; made by ``stream``.

    A stream does not know where its sequence ends, so an exit in time is asked after its last timestep too, which
    ``forward`` never does: a certificate made with ``forward`` may not cover a row that leaves just there.

    The stream keeps the weights, precision and policy that the LSTM had when it was opened. One thread at a time may
    advance it; any number of streams may run at once. Results carry no gradients. A failed call leaves the state as
    it was.
    """

    def __init__(self, lstm: AdaptiveLSTM, batch_size: int):
        if not isinstance(lstm, AdaptiveLSTM):
            raise InputError(
                f"got {type(lstm).__name__}, expected an AdaptiveLSTM; convert with adaptive_lstm.adapt(model)"
            )
        if lstm.bidirectional:
            raise UnsupportedError(
                "a bidirectional LSTM cannot stream: its backward direction starts at the end of the sequence"
            )
        if lstm.training:
            raise UnsupportedError("the LSTM is in training mode; call .eval() on it before streaming")
        if batch_size < 1:
            raise InputError(f"batch_size: got {batch_size}, expected at least 1")
        self._monitor = lstm.monitor
        self._executor = executor = lstm.executor()
        depth = executor.policy.depth_exit
        if depth is not None and depth.level == "sequence":
            raise UnsupportedError(
                "ExitInDepth(level='sequence') decides on final states, which a stream does not have; use level='step'"
            )
        self._shape, self._batch_first = executor.shape, lstm.batch_first
        self._batch, self._dtype = batch_size, executor.dtype
        self._in = (batch_size, self._shape.input_size)
        self._out = (batch_size, self._shape.output_size)
        self._native = executor.native.new_state(batch_size) if executor.native else None
        self._reference: StreamState
        self._counts: Counts
        self._steps = 0
        self._clear()

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Show the monitor what was done; the buffers go with the object."""
        self._show()

    def _show(self) -> None:
        # A stream may leave at its last timestep, where a sequence is not asked: exits there are no sign of drift.
        if self._monitor is not None and self._steps and self._executor.policy.time_exit is None:
            self._monitor.see(self._counted(), self._steps * self._batch, self._batch)

    # -------------------------------------------------------------------------------------------------- advance

    def step(self, x: torch.Tensor) -> torch.Tensor:
        """Advance by one timestep.

        Args:
            x: [B, I].

        Returns:
            Output of the top layer [B, P], a new tensor.

        Raises:
            InputError: wrong shape, dtype or device.
            NonFiniteError: x holds NaN or infinity.
        """
        native = self._native
        # This is the hot path: a few attribute look-ups are a good part of a small step.
        if (
            native is None
            or not isinstance(x, torch.Tensor)  # type: ignore[redundant-expr]
            or not x.is_cpu
            or x.dtype is not torch.float32
            or x.layout is not torch.strided
            or not x.is_contiguous()
            or x.shape != self._in
        ):
            return self._step_checked(x)
        y = x.new_empty(self._out)
        if not native.step(x.data_ptr(), y.data_ptr()):
            raise refuse_non_finite()
        self._steps += 1
        return y

    def _step_checked(self, x: torch.Tensor) -> torch.Tensor:
        self._check(x, self._in)
        if self._native is None:
            return self._advance(x.detach().unsqueeze(0))[0]
        return self.step(x.detach().contiguous())

    def run(self, x: torch.Tensor) -> torch.Tensor:
        """Advance by a chunk of any length.

        Args:
            x: [B, T, I] if the LSTM is ``batch_first``, else [T, B, I].

        Returns:
            Outputs of the top layer in the same layout; equal to those of single steps.

        Raises:
            InputError: wrong shape, dtype or device.
            NonFiniteError: x holds NaN or infinity.
        """
        time, row = (1, 0) if self._batch_first else (0, 1)
        steps = x.shape[time] if isinstance(x, torch.Tensor) and x.dim() == 3 else 0  # type: ignore[redundant-expr]
        want = (self._batch, steps, self._in[1]) if self._batch_first else (steps, self._batch, self._in[1])
        self._check(x, want)
        x = x.detach()
        if self._native is None:
            y = self._advance(x.transpose(0, 1) if self._batch_first else x)
            return y.transpose(0, 1) if self._batch_first else y
        if x.stride(-1) != 1:
            x = x.contiguous()
        y = x.new_empty((*x.shape[:-1], self._shape.output_size))
        args = (x.data_ptr(), x.stride(time), x.stride(row), y.data_ptr(), y.stride(time), y.stride(row))
        if not self._native.run(*args, steps, check=True, open_ended=True):
            raise refuse_non_finite()
        self._steps += steps
        return y

    def _advance(self, x: torch.Tensor) -> torch.Tensor:
        """A chunk [T, B, I] on the reference executor."""
        if not bool(torch.isfinite(x).all()):
            raise refuse_non_finite()
        if len(x) == 0:
            return x.new_empty(0, *self._out)
        with torch.no_grad():
            y, self._reference, counts = self._executor.advance(x, self._reference)
        self._counts += counts
        self._steps += len(x)
        return y

    def _check(self, x: torch.Tensor, want: tuple[int, ...]) -> None:
        if not isinstance(x, torch.Tensor):
            raise InputError(f"got {type(x).__name__}, expected a torch.Tensor")
        if tuple(x.shape) != want:
            shown = (
                "[T, B, I]" if len(want) == 3 and not self._batch_first else "[B, T, I]" if len(want) == 3 else "[B, I]"
            )
            raise InputError(f"got an input of shape {tuple(x.shape)}, expected {want} ({shown})")
        if x.layout != torch.strided:
            raise InputError(f"got a tensor of layout {x.layout}, expected a dense one; call .to_dense() on it")
        if x.dtype != self._dtype or x.device != self._executor.device:
            wanted = f"{self._dtype} on {self._executor.device}"
            raise InputError(f"got {x.dtype} on {x.device}, expected {wanted} like the weights")

    # ---------------------------------------------------------------------------------------------------- state

    def reset(self) -> None:
        """Back to zero states, nothing sent, statistics cleared; a calibrated LSTM's monitor sees the sequence."""
        self._show()
        self._clear()

    def _clear(self) -> None:
        shape, like = self._shape, self._executor.tensors[0].w_ih
        if self._native is not None:
            self._native.reset(self._batch)
        self._reference = start(
            shape,
            like.new_zeros(shape.num_cells, self._batch, shape.output_size),
            like.new_zeros(shape.num_cells, self._batch, shape.hidden_size),
        )
        self._counts = Counts.none(shape)
        self._steps = 0

    @property
    def state(self) -> StreamState:
        """A copy of everything that the stream remembers; assign one to continue from there.

        Assigning raises ``StateError`` if it is of another model, batch size or policy; nothing is changed then.
        Statistics start again.
        """
        if self._native is None or self._executor.native is None:
            return copied(self._reference)
        return self._executor.native.read(self._native)

    @state.setter
    def state(self, state: StreamState) -> None:
        executor = self._executor
        check_state(state, self._shape, self._batch, executor.policy, self._dtype, executor.device)
        self._clear()
        if self._native is not None and self._executor.native is not None:
            self._executor.native.write(self._native, state)
        else:
            self._reference = copied(state)

    @property
    def stats(self) -> RunStats:
        """What the stream did since it was opened, reset, or given a state."""
        executor, timesteps = self._executor, self._steps * self._batch
        return run_stats(executor.policy, self._shape, self._counted(), timesteps, executor.why_not_native())

    def _counted(self) -> Counts:
        native = self._executor.native
        if native is not None and self._native is not None:
            return native.counts(self._native, self._steps * self._batch)
        return self._counts

    @property
    def exited(self) -> torch.Tensor:
        """Which rows have left (``ExitInTime``): bool [B]. Their outputs stay the translation they left with.

        When all are done, nothing is computed any more; ``reset()`` starts new sequences.
        """
        if self._native is not None and self._executor.native is not None:
            return self._executor.native.exited(self._native)
        left = self._reference.exit
        return torch.zeros(self._batch, dtype=torch.bool) if left is None else left.exited.clone()


def stream(lstm: AdaptiveLSTM, batch_size: int = 1) -> Stream:
    """Open a stream of ``batch_size`` rows through an ``AdaptiveLSTM`` in eval mode, from zero states.

    ::

        with al.stream(fast.lstm) as s:
            y = s.step(x)  # x: [1, I]

    Raises:
        InputError: not an ``AdaptiveLSTM``, or a batch size below 1.
        UnsupportedError: a bidirectional LSTM, or one in training mode.
    """
    return Stream(lstm, batch_size)
