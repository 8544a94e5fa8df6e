"""What a peer is: a stacked LSTM loaded into another runtime, called with its state as plain arguments.

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

Forward = Callable[[Any, Any, Any], tuple[Any, Any, Any]]  # x, h, c -> y, h, c
Packed = Callable[[PackedSequence, Tensor, Tensor], tuple[PackedSequence, Tensor, Tensor]]


class Contender(Protocol):
    """A runtime with a stacked LSTM loaded, as races call it."""

    @property
    def name(self) -> str: ...

    @property
    def precision(self) -> str:
        """Of its weights: "fp32", "bf16" or "int8"."""
        ...

    @property
    def nbytes(self) -> int | None:
        """Bytes of its weights as it stores them; None where nobody says."""
        ...

    def whole(self, x: Tensor) -> Callable[[], Any]:
        """x: [B, T, I]. Returns a call that computes the outputs [B, T, H] from the zero state."""
        ...

    def stream(self, x: Tensor) -> Callable[[], Any]:
        """x: [B, T, I]. Returns a call that computes the next step's outputs, [B, 1, H] or [B, H]; x in a circle."""
        ...


@dataclass(frozen=True)
class Absent:
    """A contender that does not take part, and why."""

    name: str
    reason: str


class Carried(nn.Module):
    """A batch-first ``nn.LSTM`` with its state as plain arguments: what exporters and quantizers understand."""

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        self.lstm = lstm

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, (h, c) = self.lstm(x, (h, c))
        return y, h, c


@dataclass(frozen=True, eq=False)
class Order:
    """What a peer is to be built from.

    model: in eval mode, without gradients, not shared with anybody; inputs: sequences [1, T, I] of the LSTM's own
    inputs for those who calibrate on some, may be empty.
    """

    model: Carried
    threads: int
    inputs: Sequence[Tensor] = ()


@dataclass(frozen=True, eq=False)
class Engine:
    """One stack in one runtime.

    native: tensor -> the runtime's own array, a copy, outside the clock; tensor: the way back, float32.
    packed: for runtimes that take a PackedSequence as it is.
    """

    native: Callable[[Tensor], Any]
    forward: Forward
    tensor: Callable[[Any], Tensor]
    nbytes: int | None = None
    packed: Packed | None = None


Builder = Callable[[Order], Engine]


@dataclass(frozen=True, eq=False)
class Peer:
    """An engine as a contender. state: sizes of h and c without their batch, ((D * L, P or H), (D * L, H))."""

    name: str
    precision: str
    engine: Engine
    state: tuple[tuple[int, int], tuple[int, int]]
    bidirectional: bool = False

    @property
    def nbytes(self) -> int | None:
        return self.engine.nbytes

    def whole(self, x: Tensor) -> Callable[[], Any]:
        feed, (h, c) = self.engine.native(x), self._zeros(x)
        return lambda: self.engine.forward(feed, h, c)[0]

    def stream(self, x: Tensor) -> Callable[[], Any]:
        if self.bidirectional:
            raise UnsupportedError("a bidirectional stack cannot stream: it begins at the end of a sequence too")
        frames = itertools.cycle([self.engine.native(x[:, t : t + 1]) for t in range(x.shape[1])])
        h, c = self._zeros(x)

        def step() -> Any:
            nonlocal h, c
            y, h, c = self.engine.forward(next(frames), h, c)
            return y

        return step

    def _zeros(self, x: Tensor) -> tuple[Any, Any]:
        (rows, wide), (_, hidden) = self.state
        batch = x.shape[0]
        return (
            self.engine.native(torch.zeros(rows, batch, wide)),
            self.engine.native(torch.zeros(rows, batch, hidden)),
        )


def output(value: Any) -> Tensor:
    """What a contender's call returned, as a float32 tensor of its own; the layouts of ``whole`` and ``stream``."""
    return torch.as_tensor(value).to(torch.float32, copy=True)
