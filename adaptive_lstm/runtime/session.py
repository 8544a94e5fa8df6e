"""What advances a stream: the native core, or chunks on any other runner; one face, chosen once."""

from __future__ import annotations

import itertools
from typing import Protocol

import torch
from torch import empty_like

from ..execution import torch_state
from ..execution.accounting import run_stats
from ..execution.backend import refuse_non_finite
from ..execution.executor import Executor
from ..execution.native_rows import new_rows, write_rows
from ..execution.native_stack import NativeStack
from ..execution.plain import resolved
from ..types import Counts, RunStats, StreamState
from ..types.states import with_rows
from .turn import Turn


class Session(Protocol):
    """The rows of a stream and what they remember. Inputs have been checked; a failed call changes nothing."""

    def step(self, x: torch.Tensor) -> torch.Tensor:
        """Advance by x [B, I], contiguous; returns y [B, P]. Raises ``NonFiniteError``."""

    def run(self, x: torch.Tensor, batch_first: bool, starts: torch.Tensor | None = None) -> torch.Tensor:
        """Advance by x [T, B, I] or [B, T, I]; returns y in the same layout. Raises ``NonFiniteError``.

        ``starts``: bool [T, B], contiguous: before these timesteps these rows become new sequences; counting goes on.
        """

    def ahead(self) -> None:
        """Do now what is certain of the next timestep; no result, state or count changes."""

    def reset(self) -> None:
        """Back to zero states with nothing sent or counted."""

    def read(self) -> StreamState:
        """A copy of everything that is remembered."""

    def write(self, state: StreamState) -> None:
        """Continue from a state that has been checked; counting starts again."""

    def step_rows(self, x: torch.Tensor, rows: torch.Tensor, y: torch.Tensor) -> None:
        """Advance rows [n], ascending, by x [n, I], to y [n, P], both contiguous. Raises ``NonFiniteError``."""

    def reset_rows(self, rows: torch.Tensor) -> None:
        """Rows [n] become new sequences; counting goes on."""

    def counted(self) -> tuple[int, Counts]:
        """Timesteps of all rows together since the last ``reset`` or ``write``, and what was counted in them."""

    def exited(self) -> torch.Tensor:
        """Which rows have exited in time: bool [B]."""


def open_session(executor: Executor, batch: int) -> Session:
    """A session of ``batch`` rows from zero states."""
    native = executor.native
    session: Session = ChunkSession(executor, batch) if native is None else NativeSession(native, batch)
    return session if executor.computes_in is executor.dtype else ConvertedSession(session, executor)


def stats_of(session: Session, executor: Executor) -> RunStats:
    """What a session did since it was opened, reset or written."""
    timesteps, counts = session.counted()
    return run_stats(
        executor.policy, executor.shape, counts, timesteps, route=executor.route, threads=executor.threads()
    )


class NativeSession:
    """A state of the native core."""

    __slots__ = ("_advance", "_batch", "_like", "_stack", "_state")

    def __init__(self, stack: NativeStack, batch: int):
        self._stack, self._batch = stack, batch
        self._state = stack.new_state(batch)
        self._advance = self._state.step
        # Copying a tensor's sizes takes half as long as reading them from a tuple, a quarter of a small step.
        self._like = torch.empty(batch, stack.shape.output_size, dtype=torch.float32, device="cpu")

    def step(self, x: torch.Tensor) -> torch.Tensor:
        """As ``Session.step``."""
        y = empty_like(self._like)
        if not self._advance(x.data_ptr(), y.data_ptr()):
            raise refuse_non_finite()
        return y

    def run(self, x: torch.Tensor, batch_first: bool, starts: torch.Tensor | None = None) -> torch.Tensor:
        """As ``Session.run``."""
        time, row = (1, 0) if batch_first else (0, 1)
        if x.stride(-1) != 1:
            x = x.contiguous()
        y = x.new_empty((*x.shape[:-1], self._like.shape[1]))
        steps = x.shape[time]
        args = (x.data_ptr(), x.stride(time), x.stride(row), y.data_ptr(), y.stride(time), y.stride(row))
        if starts is None:
            done = self._state.run(*args, steps, check=True, open_ended=True)
        else:
            with new_rows(self._stack, 1) as fresh:
                done = self._state.run_starting(*args, steps, starts.data_ptr(), fresh)
        if not done:
            raise refuse_non_finite()
        return y

    def ahead(self) -> None:
        """As ``Session.ahead``."""
        self._state.ahead()

    def reset(self) -> None:
        """As ``Session.reset``."""
        self._state.reset(self._batch)

    def read(self) -> StreamState:
        """As ``Session.read``."""
        return torch_state.tensors(self._stack.read(self._state))

    def write(self, state: StreamState) -> None:
        """As ``Session.write``."""
        self._stack.write(self._state, torch_state.arrays(state))

    def step_rows(self, x: torch.Tensor, rows: torch.Tensor, y: torch.Tensor) -> None:
        """As ``Session.step_rows``."""
        if not self._state.step_rows(rows.data_ptr(), len(rows), x.data_ptr(), y.data_ptr()):
            raise refuse_non_finite()

    def reset_rows(self, rows: torch.Tensor) -> None:
        """As ``Session.reset_rows``."""
        write_rows(self._stack, self._state, rows.numpy(), None)

    def counted(self) -> tuple[int, Counts]:
        """As ``Session.counted``."""
        return self._stack.counted_in_all(self._state)

    def exited(self) -> torch.Tensor:
        """As ``Session.exited``."""
        return torch.from_numpy(self._stack.exited(self._state))


class ChunkSession:
    """A run that stays open: on the reference, or on native chunks between exit checks in Python."""

    def __init__(self, executor: Executor, batch: int):
        shape = executor.shape
        self._executor, self._batch = executor, batch
        h, c = (
            torch.zeros(shape.num_cells, batch, width, dtype=executor.computes_in, device=executor.device)
            for width in (shape.output_size, shape.hidden_size)
        )
        self._turn = Turn()
        self._start = StreamState.start(h, c)
        self._open(self._start)

    def _open(self, state: StreamState, timesteps: int = 0, counts: Counts | None = None) -> None:
        """Go on from a state, with what was counted before."""
        self._run = self._executor.chunks.open(_copied(state))
        self._timesteps = 0  # since then
        self._earlier = timesteps, counts or Counts.none(self._executor.shape)

    def step(self, x: torch.Tensor) -> torch.Tensor:
        """As ``Session.step``."""
        return self.run(x[None], batch_first=False)[0]

    def run(self, x: torch.Tensor, batch_first: bool, starts: torch.Tensor | None = None) -> torch.Tensor:
        """As ``Session.run``."""
        if not bool(torch.isfinite(x).all()):
            raise refuse_non_finite()
        x = x.transpose(0, 1) if batch_first else x
        y = x.new_empty(*x.shape[:2], self._executor.shape.output_size)
        if len(x):
            with self._turn.to_advance(), torch.no_grad():
                self._advance(
                    x, y, torch.zeros(x.shape[:2], dtype=torch.bool, device="cpu") if starts is None else starts
                )
        return y.transpose(0, 1) if batch_first else y

    def _advance(self, x: torch.Tensor, y: torch.Tensor, starts: torch.Tensor) -> None:
        """Run x [T, B, I] to y; if a head or a policy in Python fails on the way, go back to where it started."""
        before, counted = self._run.state(), self._counted()
        edges = [0, *(t for t in starts.any(1).nonzero()[:, 0].tolist() if t), len(x)]
        try:
            for begin, end in itertools.pairwise(edges):
                rows = starts[begin].nonzero()[:, 0]
                if len(rows):
                    fresh = with_rows(self._run.state(), rows, self._start.select(rows))
                    self._open(fresh, *self._counted())
                piece = self._run.advance(x[begin:end].flatten(0, 1), [self._batch] * (end - begin), open_ended=True)
                y[begin:end] = piece.reshape(end - begin, self._batch, -1)
                self._timesteps += (end - begin) * self._batch
        except BaseException:
            self._open(before, *counted)
            raise

    def ahead(self) -> None:
        """Nothing: a runner of chunks takes a timestep as one piece."""

    def _counted(self) -> tuple[int, Counts]:
        timesteps, counts = self._earlier
        return timesteps + self._timesteps, counts + self._run.counted(self._timesteps)()

    def step_rows(self, x: torch.Tensor, rows: torch.Tensor, y: torch.Tensor) -> None:
        """As ``Session.step_rows``: on a copy of the rows, which are then put back."""
        if not bool(torch.isfinite(x).all()):
            raise refuse_non_finite()
        if not len(rows):
            return
        with self._turn.to_advance(), torch.no_grad():
            whole = self._run.state()
            part = self._executor.chunks.open(_copied(whole.select(rows)))
            y.copy_(part.advance(x, [len(rows)], open_ended=True))
            timesteps, counts = self._counted()
            counts += part.counted(len(rows))()
            self._open(with_rows(whole, rows, part.state()), timesteps + len(rows), counts)
            part.close()

    def reset_rows(self, rows: torch.Tensor) -> None:
        """As ``Session.reset_rows``."""
        self.write_rows(rows, self._start.select(rows))

    def read_rows(self, rows: torch.Tensor) -> StreamState:
        """A copy of everything that is remembered of rows [n]."""
        with self._turn.to_look():
            return _copied(self._run.state().select(rows))

    def write_rows(self, rows: torch.Tensor, state: StreamState) -> None:
        """Rows [n] continue from a state that has been checked; counting goes on."""
        if not len(rows):
            return
        with self._turn.to_advance():
            self._open(with_rows(self._run.state(), rows, state), *self._counted())

    def reset(self) -> None:
        """As ``Session.reset``."""
        self.write(self._start)

    def read(self) -> StreamState:
        """As ``Session.read``."""
        with self._turn.to_look():
            return _copied(self._run.state())

    def write(self, state: StreamState) -> None:
        """As ``Session.write``."""
        with self._turn.to_advance():
            self._open(state)

    def counted(self) -> tuple[int, Counts]:
        """As ``Session.counted``."""
        with self._turn.to_look():
            return self._counted()

    def exited(self) -> torch.Tensor:
        """As ``Session.exited``."""
        state = self.read().exit
        return torch.zeros(self._batch, dtype=torch.bool, device="cpu") if state is None else state.exited


class ConvertedSession:
    """A session of an LSTM of another dtype: inputs and outputs are converted, the state is not."""

    def __init__(self, session: Session, executor: Executor):
        self._session = session
        self._inside, self._outside = executor.computes_in, executor.dtype
        self.ahead, self.reset, self.read, self.write = session.ahead, session.reset, session.read, session.write
        self.counted, self.exited, self.reset_rows = session.counted, session.exited, session.reset_rows

    def step(self, x: torch.Tensor) -> torch.Tensor:
        """As ``Session.step``."""
        return self._session.step(x.to(self._inside)).to(self._outside)

    def run(self, x: torch.Tensor, batch_first: bool, starts: torch.Tensor | None = None) -> torch.Tensor:
        """As ``Session.run``."""
        return self._session.run(x.to(self._inside), batch_first, starts).to(self._outside)

    def step_rows(self, x: torch.Tensor, rows: torch.Tensor, y: torch.Tensor) -> None:
        """As ``Session.step_rows``."""
        inside = y.to(self._inside)
        self._session.step_rows(x.to(self._inside), rows, inside)
        y.copy_(inside)


def _copied(state: StreamState) -> StreamState:
    """A deep copy without gradients."""
    return state.map(lambda tensor: resolved(tensor.detach()).clone())
