"""What advances a stream: the native core, or chunks on any other runner; one face, chosen once."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import empty_like

from ..execution import torch_state
from ..execution.backend import refuse_non_finite
from ..execution.executor import Executor
from ..execution.native_stack import NativeStack
from ..execution.runner import Chunk
from ..types import Counts, StreamState


class Session(Protocol):
    """The rows of a stream and what they remember. Inputs have been checked; a failed call changes nothing."""

    @property
    def steps(self) -> int:
        """Timesteps since the last ``reset`` or ``write``."""

    def step(self, x: torch.Tensor) -> torch.Tensor:
        """Advance by x [B, I], contiguous; returns y [B, P]. Raises ``NonFiniteError``."""

    def run(self, x: torch.Tensor, batch_first: bool) -> torch.Tensor:
        """Advance by x [T, B, I] or [B, T, I]; returns y in the same layout. Raises ``NonFiniteError``."""

    def reset(self) -> None:
        """Back to zero states with nothing sent or counted."""

    def read(self) -> StreamState:
        """A copy of everything that is remembered."""

    def write(self, state: StreamState) -> None:
        """Continue from a state that has been checked; counting starts again."""

    def counts(self) -> Counts:
        """What was counted in ``steps``."""

    def exited(self) -> torch.Tensor:
        """Which rows have exited in time: bool [B]."""


def open_session(executor: Executor, batch: int) -> Session:
    """A session of ``batch`` rows from zero states."""
    native = executor.native
    session: Session = ChunkSession(executor, batch) if native is None else NativeSession(native, batch)
    return session if executor.computes_in is executor.dtype else ConvertedSession(session, executor)


class NativeSession:
    """A state of the native core."""

    __slots__ = ("_advance", "_batch", "_like", "_stack", "_state", "steps")

    def __init__(self, stack: NativeStack, batch: int):
        self._stack, self._batch = stack, batch
        self._state = stack.new_state(batch)
        self._advance = self._state.step
        # Copying a tensor's sizes takes half as long as reading them from a tuple, a quarter of a small step.
        self._like = torch.empty(batch, stack.shape.output_size, dtype=torch.float32, device="cpu")
        self.steps = 0

    def step(self, x: torch.Tensor) -> torch.Tensor:
        """As ``Session.step``."""
        y = empty_like(self._like)
        if not self._advance(x.data_ptr(), y.data_ptr()):
            raise refuse_non_finite()
        self.steps += 1
        return y

    def run(self, x: torch.Tensor, batch_first: bool) -> torch.Tensor:
        """As ``Session.run``."""
        time, row = (1, 0) if batch_first else (0, 1)
        if x.stride(-1) != 1:
            x = x.contiguous()
        y = x.new_empty((*x.shape[:-1], self._like.shape[1]))
        steps = x.shape[time]
        args = (x.data_ptr(), x.stride(time), x.stride(row), y.data_ptr(), y.stride(time), y.stride(row))
        if not self._state.run(*args, steps, check=True, open_ended=True):
            raise refuse_non_finite()
        self.steps += steps
        return y

    def reset(self) -> None:
        """As ``Session.reset``."""
        self._state.reset(self._batch)
        self.steps = 0

    def read(self) -> StreamState:
        """As ``Session.read``."""
        return torch_state.tensors(self._stack.read(self._state))

    def write(self, state: StreamState) -> None:
        """As ``Session.write``."""
        self._stack.write(self._state, torch_state.arrays(state))
        self.steps = 0

    def counts(self) -> Counts:
        """As ``Session.counts``."""
        return self._stack.counted(self._state, self.steps * self._batch)()

    def exited(self) -> torch.Tensor:
        """As ``Session.exited``."""
        return torch.from_numpy(self._stack.exited(self._state))


class ChunkSession:
    """A state in tensors, advanced chunk by chunk on the reference or on native chunks between exit checks."""

    def __init__(self, executor: Executor, batch: int):
        shape = executor.shape
        self._executor, self._batch = executor, batch
        h, c = (
            torch.zeros(shape.num_cells, batch, width, dtype=executor.computes_in, device=executor.device)
            for width in (shape.output_size, shape.hidden_size)
        )
        self._start = self._state = StreamState.start(h, c)
        self._counts = Counts.none(shape)
        self.steps = 0

    def step(self, x: torch.Tensor) -> torch.Tensor:
        """As ``Session.step``."""
        return self.run(x[None], batch_first=False)[0]

    def run(self, x: torch.Tensor, batch_first: bool) -> torch.Tensor:
        """As ``Session.run``."""
        if not bool(torch.isfinite(x).all()):
            raise refuse_non_finite()
        x = x.transpose(0, 1) if batch_first else x
        steps, batch, features = x.shape
        shape = self._executor.shape
        y = x.new_empty(0, batch, shape.output_size)
        if steps:
            chunk = Chunk(x.reshape(-1, features), [batch] * steps, self._state, open_ended=True)
            with torch.no_grad():
                rows, self._state, counts = self._executor.chunks.advance(chunk)
            self._counts, self.steps = self._counts + counts, self.steps + steps
            y = rows.reshape(steps, batch, shape.output_size)
        return y.transpose(0, 1) if batch_first else y

    def reset(self) -> None:
        """As ``Session.reset``."""
        self._state = self._start
        self._counts, self.steps = Counts.none(self._executor.shape), 0

    def read(self) -> StreamState:
        """As ``Session.read``."""
        return _copied(self._state)

    def write(self, state: StreamState) -> None:
        """As ``Session.write``."""
        self.reset()
        self._state = _copied(state)

    def counts(self) -> Counts:
        """As ``Session.counts``."""
        return self._counts

    def exited(self) -> torch.Tensor:
        """As ``Session.exited``."""
        state = self._state.exit
        return torch.zeros(self._batch, dtype=torch.bool) if state is None else state.exited.clone()


class ConvertedSession:
    """A session of an LSTM of another dtype: inputs and outputs are converted, the state is not."""

    def __init__(self, session: Session, executor: Executor):
        self._session = session
        self._inside, self._outside = executor.computes_in, executor.dtype
        self.reset, self.read, self.write = session.reset, session.read, session.write
        self.counts, self.exited = session.counts, session.exited

    @property
    def steps(self) -> int:
        """As ``Session.steps``."""
        return self._session.steps

    def step(self, x: torch.Tensor) -> torch.Tensor:
        """As ``Session.step``."""
        return self._session.step(x.to(self._inside)).to(self._outside)

    def run(self, x: torch.Tensor, batch_first: bool) -> torch.Tensor:
        """As ``Session.run``."""
        return self._session.run(x.to(self._inside), batch_first).to(self._outside)


def _copied(state: StreamState) -> StreamState:
    """A deep copy without gradients."""
    return state.map(lambda tensor: tensor.detach().clone())
