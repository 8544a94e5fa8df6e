"""Standing in for the executors of a model's LSTMs: how a pass over calibration inputs sees what they are given."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from .errors import InputError
from .policies import Parts
from .runtime import AdaptiveLSTM
from .types import Counts, StackShape

Returned = tuple[torch.Tensor, torch.Tensor, torch.Tensor, Callable[[], Counts] | None]


class Runner(Protocol):
    """What ``AdaptiveLSTM`` asks of an executor."""

    shape: StackShape
    policy: Parts
    finite_only: bool

    def run(
        self,
        x: torch.Tensor,
        sizes: torch.Tensor | None,
        batch_first: bool,
        initial: tuple[torch.Tensor, torch.Tensor] | None,
    ) -> Returned:
        """As ``Executor.run``."""

    def why_not_native(self) -> str | None:
        """Shown in ``last_run``."""


def lstms_of(model: nn.Module) -> dict[str, AdaptiveLSTM]:
    """The adapted LSTMs of a model, by module name.

    Raises:
        InputError: there is none.
    """
    lstms = {name: m for name, m in model.named_modules() if isinstance(m, AdaptiveLSTM)}
    if not lstms:
        raise InputError("the model holds no AdaptiveLSTM; convert it first: fast = adaptive_lstm.adapt(model)")
    return lstms


def adapted_lstms(model: nn.Module) -> dict[str, AdaptiveLSTM]:
    """The adapted LSTMs of a model in eval mode, by module name.

    Raises:
        InputError: there is none, or one is in training mode.
    """
    lstms = lstms_of(model)
    if any(lstm.training for lstm in lstms.values()):
        raise InputError("the model is in training mode; call .eval() on it first")
    return lstms


def as_batches(inputs: Iterable[Any]) -> Iterable[Any]:
    """Inputs batch by batch; one tensor alone is one batch."""
    return [inputs] if isinstance(inputs, torch.Tensor | PackedSequence) else inputs


def together(sequences: Iterable[torch.Tensor], size: int = 32) -> list[torch.Tensor]:
    """Sequences [1, T, ...] of one shape in batches [n, T, ...], n <= ``size``: a pass takes a fraction of the time."""
    found: dict[tuple[int, ...], list[torch.Tensor]] = {}
    for x in sequences:
        found.setdefault(tuple(x.shape[1:]), []).append(x)
    return [torch.cat(some[i : i + size]) for some in found.values() for i in range(0, len(some), size)]


def call(model: nn.Module, item: Any) -> Any:
    """The model's output for one input; a tuple or list holds several arguments."""
    if isinstance(item, tuple | list) and not isinstance(item, PackedSequence):
        return model(*item)
    return model(item)


def first_tensor(output: Any) -> torch.Tensor:
    """The first tensor in what a model returns.

    Raises:
        InputError: it is no float tensor.
    """
    found = output
    while isinstance(found, tuple | list) and len(found):
        found = found[0]
    if not (isinstance(found, torch.Tensor) and found.is_floating_point()):
        raise InputError(
            f"the model returned {type(output).__name__}, and its first element is no float tensor; say which output "
            "counts, for example output=lambda out: out['logits']"
        )
    return found


@contextmanager
def restored(lstms: Mapping[str, AdaptiveLSTM]) -> Iterator[None]:
    """Settings, last run and monitor are put back after the block, of which the monitor sees nothing."""
    kept = {n: (lstm.policy, lstm.quantize, lstm.pruned, lstm.monitor, lstm._last) for n, lstm in lstms.items()}
    try:
        for lstm in lstms.values():
            lstm.monitor = None
        yield
    finally:
        for name, lstm in lstms.items():
            policy, quantize, pruned, monitor, last = kept[name]
            lstm._pruned = pruned  # as it was, even if the parameters have changed since; the policy plans anew
            lstm.policy, lstm.quantize, lstm.monitor, lstm._last = policy, quantize, monitor, last  # policy: no monitor


@contextmanager
def standing_in(lstms: Mapping[str, AdaptiveLSTM], runners: Mapping[str, Runner]) -> Iterator[None]:
    """The LSTMs run on the given runners inside the block, whatever their policy and mode."""
    with restored(lstms):
        try:
            for name, runner in runners.items():
                lstm = lstms[name]
                lstm.forward = functools.partial(_forward, lstm, runner)  # type: ignore[method-assign]
            yield
        finally:
            for lstm in lstms.values():
                lstm.__dict__.pop("forward", None)


def _forward(lstm: AdaptiveLSTM, runner: Runner, x: Any, hx: Any = None) -> Any:
    return lstm._forward_adaptive(runner, x, hx)
