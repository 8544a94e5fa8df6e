"""Never slower than ``nn.LSTM``: which path is faster here, measured on real calls, not assumed.

With one batch row on one thread, and where a call is so small that torch mostly calls functions, the native kernels win
at every size that was measured (``eval/latency.py``, ``eval/never_slower.py``). Torch gains with large batches and with
threads, and where weights must be compared at every call. There the two serve the first calls in turn, each call is
timed, and the faster one serves from then on, for the process. No call is made for the race alone, but for a small part
of a large one: it keeps a much slower side from ever serving.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable
from typing import Literal, TypeVar

import torch

from ..types import StackShape
from .backend import backend_info
from .batch import Batch
from .racing import races
from .runner import Runner
from .threads import get_num_threads

ROUNDS = 3  # timed calls of each
CLEAR = 1.25  # times as slow: fewer rounds will do
TIE = 0.97  # native must be this much faster, or times say no more than that the two are alike
CORNER = 16  # before native serves a long call or a large batch, it runs this part of one beside torch
FEW_ROWS = 16  # a batch that takes hardly longer than a smaller one
SMALL = 1 << 20  # multiply-accumulates of a call that torch needs longer to start than to compute

Side = Literal["native", "torch"]
Value = TypeVar("Value")


class Contest:
    """Torch and the native core on calls of one kind, in turn; times are seconds per batch row and timestep."""

    def __init__(self) -> None:
        self._times: dict[Side, list[float]] = {"torch": [], "native": []}
        self._estimate: float | None = None  # of native, from a corner
        self.winner: Side | None = None

    @property
    def turn(self) -> Side:
        """Who serves the next call while there is no winner."""
        return "torch" if len(self._times["torch"]) <= len(self._times["native"]) else "native"

    def served(self, side: Side, seconds: float, timesteps: int) -> None:
        """One call of so many batch rows times timesteps took so long."""
        self._times[side].append(seconds / timesteps)
        of_torch, of_native = self._times["torch"], self._times["native"]
        if not of_torch or not of_native:
            return
        ours, theirs = min(of_native), min(of_torch)
        confirmed = len(of_native) > 1 or (self._estimate is not None and self._estimate > CLEAR * theirs)
        slow = confirmed and ours > CLEAR * theirs
        if slow or min(len(of_torch), len(of_native)) >= ROUNDS:
            self.winner = "torch" if ours > TIE * theirs else "native"

    @property
    def wants_corner(self) -> bool:
        """Whether nothing is known of native yet."""
        return self.winner is None and not self._times["native"] and self._estimate is None

    def estimated(self, seconds: float, timesteps: int) -> None:
        """Native took so long for a corner of a call; where that is far too long, it never serves a whole one."""
        self._estimate = seconds / timesteps
        if self._estimate > 2 * CLEAR * min(self._times["torch"], default=math.inf):
            self.winner = "torch"


_contests: dict[Hashable, Contest] = {}  # of the process


def _power_of_two(n: int) -> int:
    return 1 << (n - 1).bit_length()


class SpeedTrial:
    """The contests of one compiled stack, shared with every stack of the same sizes that is stored alike.

    ``small``: numbers of an input that torch needs longer to start with than to compute.

    Args:
        runner: the native side.
        shape: sizes of the stack.
        stored: how its weights are stored.
    """

    def __init__(self, runner: Runner, shape: StackShape, stored: Hashable):
        self._runner, self._shape, self._stored = runner, shape, stored
        macs = sum(shape.step_macs(cell) for cell in range(shape.num_cells))
        self.small = 0 if backend_info().isa == "generic" else SMALL // macs * shape.input_size

    def contest(self, x: torch.Tensor, batch_first: bool, *, dear: bool) -> Contest | None:
        """The contest for calls such as x [T, B, I], or [B, T, I] if ``batch_first``; None: native serves.

        Args:
            x: the input.
            batch_first: its layout.
            dear: whether the native side must compare all weights at every call.
        """
        if (x.numel() <= self.small and not dear) or x.dim() != 3:
            return None
        threads = torch.get_num_threads(), get_num_threads()
        outer, inner, _ = x.shape
        steps, batch = (inner, outer) if batch_first else (outer, inner)
        if batch == 1 and threads[0] == 1 and not dear:
            return None
        if not races() or torch.are_deterministic_algorithms_enabled():
            return None
        key = (self._shape, self._stored, dear, _power_of_two(batch), _power_of_two(steps), threads, batch_first)
        return _contests.get(key) or _contests.setdefault(key, Contest())

    def corner(self, contest: Contest, x: torch.Tensor, batch_first: bool) -> None:
        """Run a small part of a long call or large batch natively, so that a slow native side is known cheaply."""
        time_, row = (1, 0) if batch_first else (0, 1)
        steps, rows = x.shape[time_], x.shape[row]
        if steps >= CORNER:
            part = x.detach().narrow(time_, 0, steps // CORNER)
        elif rows > FEW_ROWS:
            part = x.detach().narrow(row, 0, max(FEW_ROWS, rows // CORNER))
        else:
            return
        batch = Batch.of(part, None, self._shape, batch_first)
        seconds = min(timed(lambda: self._runner.run(batch))[0] for _ in range(2))  # the first one warms up
        contest.estimated(seconds, batch.timesteps)


def timed(call: Callable[[], Value]) -> tuple[float, Value]:
    """Seconds that a call takes, and what it returns."""
    start = time.perf_counter()
    value = call()
    return time.perf_counter() - start, value
