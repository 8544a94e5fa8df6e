"""A compiled stack, kept for as long as the weights hold what they held."""

from __future__ import annotations

import itertools
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from ..errors import InputError
from ..weights.layout import named_weights
from .direct_call import Bypassed, DirectCall, Monitor, direct_call
from .executor import Executor
from .fingerprint import Fingerprint
from .native_stack import NativeStack
from .plain import is_freed
from .route import THROUGH_FLOAT32

PACKS = 3  # in a row that no second call could use
MOST_CALLS = 128  # between two looks at weights that change at every look
DTYPES = frozenset({torch.float32}) | THROUGH_FLOAT32
HEAD = 4096  # bytes of every weight that are compared while weights change at every call

Make = Callable[[Mapping[str, torch.Tensor]], Executor]


@dataclass(frozen=True, eq=False)
class Compiled:
    """A compiled stack, and what it was compiled from; immutable.

    ``fingerprint``: of the weights.
    ``executor``: None where exact calls are torch's because the weights change at every call.
    ``unchanged``: (lstm, timesteps) -> whether a call may use it unseen; ``current`` knows more.
    ``direct``: serves calls in which nothing is left to decide.
    ``packs``: how many times in a row weights had changed at the next look.
    ``kept``: whether a later call has used it.
    ``seconds``: how long the last comparison of contents took.
    ``calls``: counts calls for which weights that are computed anew for each are not even read.
    """

    fingerprint: Fingerprint
    executor: Executor | None
    unchanged: Callable[[nn.LSTM, int], bool]
    direct: DirectCall | None = None
    packs: int = 0
    kept: bool = False
    seconds: float = 0.0
    calls: Iterator[int] = field(default_factory=itertools.count)

    def in_vain(self) -> int:
        """``packs`` of the next one, once this one is found to be out of date."""
        used = self.executor is not None and (self.kept or self.fingerprint.used)
        return 0 if used else self.packs + 1

    def rests(self) -> bool:
        """Whether torch serves the next call unseen, because weights have changed at every look.

        Looking again at weights that are computed for it costs as much as a part of the call, so pauses grow.
        """
        return self.executor is None and self.fingerprint.dear and next(self.calls) < min(1 << self.packs, MOST_CALLS)

    def lent(self) -> Lent | None:
        """For a copy of the module; None where nothing has been packed, or Python code of the policy runs."""
        native = None if self.executor is None else self.executor.packed
        return None if native is None else Lent(self.fingerprint.for_copy(), native)

    def torch_won(self, x: torch.Tensor, batch_first: bool) -> bool:
        """Whether torch serves calls such as x in any case, so that weights need not be compared."""
        executor = self.executor
        if executor is None or x.dtype is not executor.dtype or executor.trial is None:
            return False
        contest = executor.trial.contest(x, batch_first, dear=True)
        return contest is not None and contest.winner == "torch"


@dataclass(frozen=True, eq=False)
class Lent:
    """What a copy of a module uses, until it has changed, instead of packing weights that hold the same once more."""

    fingerprint: Fingerprint
    native: NativeStack

    def to(self, executor: Executor, weights: Mapping[str, torch.Tensor]) -> Executor:
        """The executor of a copy, with the same settings, that found these weights."""
        if self.fingerprint.held_by(weights) is not None:
            executor.native = self.native
        return executor


def current(
    old: Compiled | None,
    lstm: nn.LSTM,
    make: Make,
    bypassed: Bypassed | None,
    monitor: Monitor | None,
    *,
    exact: bool,
    compare: bool,
) -> Compiled:
    """The compiled stack for the weights as they are now: the old one if they hold the same, else a new one.

    Exact calls are left to torch, for as long as weights change at every call.

    Args:
        old: the last one.
        lstm: the module.
        make: compiles weights by name.
        bypassed: what a direct call goes past; None: none may.
        monitor: what it tells of its runs.
        exact: whether torch's results would be the same.
        compare: whether contents are compared.

    Raises:
        InputError: weights whose memory was freed, or that are of several dtypes, or of none that an LSTM has.
    """
    start = time.perf_counter()
    weights = named_weights(lstm)
    dtype = next(iter(weights.values())).dtype
    for name, weight in weights.items():
        if weight.dtype is not dtype or dtype not in DTYPES:
            raise InputError(
                f"{name}: got a weight of {weight.dtype}, expected one dtype for all weights, which module.to(dtype) "
                "gives: float32, float64, bfloat16 or float16"
            )
        if is_freed(weight):
            raise InputError(
                f"{name}: got a weight whose memory was freed (its storage was resized), expected its values; "
                "where a model is sharded, gather its weights before the call"
            )
    kept = None if old is None else old.fingerprint.followed(lstm, weights)
    if old is not None and old.executor is not None and kept is not None:
        gate = _never if kept.dear else kept.unchanged
        seconds = time.perf_counter() - start
        direct = direct_call(lstm, old.executor, kept, bypassed, monitor)
        return replace(old, fingerprint=kept, unchanged=gate, direct=direct, kept=True, seconds=seconds)
    packs = 0 if old is None or kept is not None else old.in_vain()
    if packs == PACKS and not exact:
        _tell_of_packs()
    if exact and packs >= PACKS:
        return Compiled(Fingerprint(lstm, weights, most=HEAD), None, _never, packs=packs)
    fingerprint = Fingerprint(lstm, weights, contents=compare)  # first: a write during what follows is noticed
    executor = make(weights)
    gate = _never if fingerprint.dear else fingerprint.unchanged
    if executor.call_route.by == "torch":  # which reads the weights itself
        gate = Fingerprint(lstm, weights, contents=False).unchanged
    direct = direct_call(lstm, executor, fingerprint, bypassed, monitor)
    return Compiled(fingerprint, executor, gate, direct, packs)


def _tell_of_packs() -> None:
    warnings.warn(
        f"adaptive_lstm: the weights of an LSTM have held other values at each of its last {PACKS} calls (weight "
        "dropout that is on in eval mode?), so they were quantized and packed anew for each, which takes longer than "
        "the call. Switch that off, or compress a model whose weights stay.",
        UserWarning,
        stacklevel=2,
    )


def _never(lstm: nn.LSTM, timesteps: int) -> bool:
    return False
