"""The protocol of contenders, and peers: a stacked LSTM in another runtime, its state as plain arguments.

Shapes, for all: x [B, T, I]; h [D * L, B, P or H] and c [D * L, B, H], as torch orders them; y [B, T, D * (P or H)].
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ..errors import UnsupportedError

Call = Callable[[], Any]
Forward = Callable[[Any, Any, Any], tuple[Any, Any, Any]]  # x, h, c -> y, h, c
PackedForward = Callable[[PackedSequence, Tensor, Tensor], tuple[PackedSequence, Tensor, Tensor]]


class Contender(Protocol):
    """A runtime with a stacked LSTM loaded. Its calls take no arguments, so that only the LSTM is timed."""

    @property
    def name(self) -> str: ...

    @property
    def precision(self) -> str:
        """Precision of the weights: "fp32", "bf16" or "int8"."""
        ...

    @property
    def nbytes(self) -> int | None:
        """Bytes of the weights as they are stored; None if the runtime does not report it."""
        ...

    def whole(self, x: Tensor) -> Call:
        """x: [B, T, I]. Returns a call that computes the outputs [B, T, H] from the zero state."""
        ...

    def steps(self, x: Tensor) -> Call:
        """x: [B, T, I]. Returns a call that computes the T timesteps one by one, from the zero state every time.

        It returns the outputs of the last timestep, as ``stream``.
        """
        ...

    def stream(self, x: Tensor) -> Call:
        """x: [B, T, I]. Returns a call that computes the next timestep's outputs, [B, 1, H] or [B, H].

        The state is never reset; after the last timestep of x comes the first one again.
        """
        ...


@dataclass(frozen=True)
class Unavailable:
    """A contender that cannot take part.

    Attributes:
        name: of the contender.
        reason: in one line, for the user.
    """

    name: str
    reason: str


class ExplicitStateLSTM(nn.Module):
    """A batch-first ``nn.LSTM`` with its state as plain arguments: the form that exporters and quantizers accept."""

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        self.lstm = lstm

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, (h, c) = self.lstm(x, (h, c))
        return y, h, c


@dataclass(frozen=True, eq=False)
class BuildRequest:
    """The input of a ``Builder``.

    Attributes:
        model: in eval mode, without gradients, not shared.
        threads: that the runtime may use.
        inputs: sequences [1, T, I] of the LSTM's own inputs, for peers that calibrate; may be empty.
    """

    model: ExplicitStateLSTM
    threads: int
    inputs: Sequence[Tensor] = ()


@dataclass(frozen=True, eq=False)
class Engine:
    """One stack in one runtime.

    Attributes:
        native: tensor -> the runtime's own array, a copy; called outside the timed part.
        forward: one call of the stack on the runtime's own arrays.
        tensor: the runtime's own array -> float32 tensor.
        nbytes: bytes of the weights as stored; None if unknown.
        packed: for runtimes that take a PackedSequence as it is; None for the others.
    """

    native: Callable[[Tensor], Any]
    forward: Forward
    tensor: Callable[[Any], Tensor]
    nbytes: int | None = None
    packed: PackedForward | None = None


Builder = Callable[[BuildRequest], Engine]


@dataclass(frozen=True, eq=False)
class Peer:
    """An engine as a contender.

    Attributes:
        name: in ``PEERS``.
        precision: of the weights.
        engine: the stack in the runtime.
        state: sizes of h and c without their batch, ((D * L, P or H), (D * L, H)).
        bidirectional: such a stack cannot be streamed.
    """

    name: str
    precision: str
    engine: Engine
    state: tuple[tuple[int, int], tuple[int, int]]
    bidirectional: bool = False

    @property
    def nbytes(self) -> int | None:
        return self.engine.nbytes

    def whole(self, x: Tensor) -> Call:
        feed, (h, c) = self.engine.native(x), self._zeros(x)
        return lambda: self.engine.forward(feed, h, c)[0]

    def steps(self, x: Tensor) -> Call:
        frames, zeros, forward = self._frames(x), self._zeros(x), self.engine.forward

        def run() -> Any:
            y, (h, c) = None, zeros
            for frame in frames:
                y, h, c = forward(frame, h, c)
            return y

        return run

    def stream(self, x: Tensor) -> Call:
        frames, (h, c) = itertools.cycle(self._frames(x)), self._zeros(x)

        def step() -> Any:
            nonlocal h, c
            y, h, c = self.engine.forward(next(frames), h, c)
            return y

        return step

    def _frames(self, x: Tensor) -> list[Any]:
        """x as arrays of the runtime, one per timestep."""
        if self.bidirectional:
            raise UnsupportedError("a bidirectional stack cannot stream: it needs the end of a sequence first")
        return [self.engine.native(x[:, t : t + 1]) for t in range(x.shape[1])]

    def _zeros(self, x: Tensor) -> tuple[Any, Any]:
        (rows, wide), (_, hidden) = self.state
        batch = x.shape[0]
        return (
            self.engine.native(torch.zeros(rows, batch, wide)),
            self.engine.native(torch.zeros(rows, batch, hidden)),
        )


def output(value: Any) -> Tensor:
    """The result of a contender's call as a float32 tensor of its own, in the layout of ``whole`` or ``stream``."""
    return torch.as_tensor(value).to(torch.float32, copy=True)
