"""Who takes part in a race, the proof that all compute the same function, and our own runtime as a contender."""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

import adaptive_lstm as al
from adaptive_lstm.quantize import Precision

# Largest allowed difference of any output from torch fp32. Outputs lie in (-1, 1): the loose ones only catch somebody
# who computes another function; what 8 bits cost on a real model is the subject of ``eval.quality``.
TOLERANCE = {"fp32": 1e-4, "bf16": 2e-2, "int8": 1e-1}


class Contender(Protocol):
    """A runtime with a stacked LSTM loaded."""

    @property
    def name(self) -> str: ...

    @property
    def precision(self) -> str:
        """A key of TOLERANCE."""
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


@dataclass(frozen=True)
class Adaptive:
    """This project's runtime; ``lstm`` is batch-first and holds its own weights and policy."""

    name: str
    precision: str
    lstm: al.AdaptiveLSTM

    def whole(self, x: Tensor) -> Callable[[], Any]:
        return lambda: self.lstm(x)[0]

    def last_run(self) -> al.RunStats:
        """What the latest whole sequence did."""
        stats = self.lstm.last_run
        assert stats is not None, "nothing has run yet"
        return stats

    def stream(self, x: Tensor) -> Callable[[], Any]:
        frames = itertools.cycle([x[:, t].clone() for t in range(x.shape[1])])
        stream = al.stream(self.lstm, batch_size=x.shape[0])
        return lambda: stream.step(next(frames))


def adaptive(
    lstm: nn.LSTM, precision: Precision = "fp32", name: str | None = None, raw: Tensor | None = None
) -> Adaptive:
    """Our runtime with the weights of ``lstm`` in ``precision`` ("fp32", "bf16", "int8"), nothing skipped.

    raw: inputs [B, T, I] to take the scales of an int8 first input matrix from; None: that matrix stays as it is.
    """
    fast = al.AdaptiveLSTM.from_lstm(lstm).eval()
    if precision != "fp32":
        al.compress(fast, raw, quantize=al.Quantize(precision, raw=None if raw is None else "int8"))
    return Adaptive(name or f"adaptive {precision}", precision, fast)


def check(contenders: Iterable[Contender], lstm: nn.LSTM, x: Tensor) -> tuple[list[Contender], list[Absent]]:
    """Keep those whose whole sequence and whose stream over x [B, T, I] agree with ``lstm`` within TOLERANCE."""
    expected = lstm(x)[0]
    right: list[Contender] = []
    wrong: list[Absent] = []
    for contender in contenders:
        step = contender.stream(x)
        streamed = torch.stack([torch.as_tensor(step()).reshape(len(x), -1).clone() for _ in range(x.shape[1])], 1)
        allowed = TOLERANCE[contender.precision]
        errors = {
            "whole sequence": float((torch.as_tensor(contender.whole(x)()) - expected).abs().max()),
            "stream": float((streamed - expected).abs().max()),
        }
        if all(error <= allowed for error in errors.values()):  # NaN is not <= anything: refused too
            right.append(contender)
        else:
            found = ", ".join(f"{error:.2g} ({where})" for where, error in errors.items())
            wrong.append(Absent(contender.name, f"differs from torch fp32 by {found}; allowed {allowed:g}"))
    return right, wrong
