"""How any user's model is called, batch by batch, and which of its outputs is compared."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from .errors import InputError

Model = TypeVar("Model", bound=nn.Module)


def as_batches(inputs: Iterable[Any]) -> Iterable[Any]:
    """Inputs batch by batch; one tensor alone is one batch."""
    return [inputs] if isinstance(inputs, torch.Tensor | PackedSequence) else inputs


def batch_by_shape(sequences: Iterable[torch.Tensor], size: int = 32) -> list[torch.Tensor]:
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
            f"the model returned {type(output).__name__}, and its first element is no float tensor; choose one, "
            "for example output=lambda out: out['logits']"
        )
    return found


def copied(model: Model) -> Model:
    """A deep copy, also of a pruned or weight-normed model: its computed weights are copied as they are now."""
    memo: dict[int, Any] = {}
    for module in model.modules():
        for value in (*module.__dict__.values(), *getattr(module, "_flat_weights", ())):
            if isinstance(value, torch.Tensor) and not value.is_leaf:  # torch copies leaves only
                memo[id(value)] = value.detach().clone()
    return copy.deepcopy(model, memo)
