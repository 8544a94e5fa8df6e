"""The model's own head, and how sure it is: the confidence that exits are decided by.

A linear head is plain data (``LinearHead``), which the native kernels can run; anything else that maps states to
logits is a Python callable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import nn

from ..errors import PolicyError
from .affine import Affine

Activation = Literal["softmax", "sigmoid"]
Measure = Literal["margin", "max", "entropy"]
MEASURES = ("margin", "max", "entropy")


@dataclass(frozen=True, eq=False)
class LinearHead(Affine):
    """``logits = weight @ state + bias``: weight [C, P] float32, bias [C].

    ``activation``: "softmax" over C >= 2 exclusive classes, or "sigmoid" for C independent yes/no answers.

    Raises:
        PolicyError: shapes that do not fit, values that are not finite, or softmax over one class.
    """

    activation: Activation = "softmax"

    _NAME: ClassVar[str] = "head"
    _SHAPES: ClassVar[str] = "[C, P] and [C]"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.activation not in ("softmax", "sigmoid"):
            raise PolicyError(f"head: got activation {self.activation!r}, expected 'softmax' or 'sigmoid'")
        if self.activation == "softmax" and len(self.weight) < 2:
            raise PolicyError("head: softmax over one class is always sure; use activation='sigmoid'")


Head = LinearHead | Callable[[torch.Tensor], torch.Tensor]


def as_head(head: object) -> Head:
    """A head as exits use it.

    Args:
        head: an ``nn.Linear``, alone or in an ``nn.Sequential`` with dropout, ``Identity`` and a final ``Softmax``,
            ``LogSoftmax`` or ``Sigmoid``; a ``LinearHead``; or any callable from states [n, P] to logits [n, C]. One
            logit is read as a sigmoid's.

    Raises:
        PolicyError: not callable.
    """
    if isinstance(head, LinearHead):
        return head
    layers = [m for m in (head if isinstance(head, nn.Sequential) else [head]) if not _idle(m)]
    linear = layers[0] if layers else None
    end = layers[1:]
    if isinstance(linear, nn.Linear) and (not end or (len(end) == 1 and isinstance(end[0], _ENDS))):
        weight = linear.weight.detach().cpu().float().numpy()
        given: torch.Tensor | None = linear.bias  # annotated as always there, which it is not
        bias = np.zeros(len(weight), np.float32) if given is None else given.detach().cpu().float().numpy()
        sigmoid = isinstance(end[0], nn.Sigmoid) if end else len(weight) == 1
        return LinearHead(weight.copy(), bias.copy(), "sigmoid" if sigmoid else "softmax")
    if not callable(head):
        raise PolicyError(
            f"head: got {type(head).__name__}, expected a linear module or a callable from states [n, P] to logits"
        )
    return head


_ENDS = (nn.Softmax, nn.LogSoftmax, nn.Sigmoid)


def resolved(
    head: object | None, threshold: object, measure: Measure, parts: int, named: str
) -> tuple[Head | None, tuple[float, ...]]:
    """The head and one threshold for each of ``parts`` places (``named`` in errors) from the settings of an exit.

    No threshold means never: with a head confidence must exceed it, without a head a change must stay below it.

    Raises:
        PolicyError: another number of thresholds, negative ones, an unknown measure, or a head that is not callable.
    """
    if threshold is None:
        threshold = float("inf") if head is not None else 0.0
    each = tuple(float(t) for t in (threshold if isinstance(threshold, tuple | list) else (threshold,)))
    if len(each) == 1:
        each *= parts
    if len(each) != parts:
        raise PolicyError(f"threshold: got {len(each)} values for {parts} {named}")
    if not all(t >= 0 for t in each):
        raise PolicyError(f"threshold: got {threshold}, expected numbers >= 0")
    if measure not in MEASURES:
        raise PolicyError(f"measure: got {measure!r}, expected one of {', '.join(MEASURES)}")
    return (None if head is None else as_head(head)), each


def can_exit(head: Head | None, thresholds: tuple[float, ...]) -> bool:
    """Whether any of the thresholds lets anything leave."""
    return any(t < 1 for t in thresholds) if head is not None else any(thresholds)


def _idle(module: object) -> bool:
    return isinstance(module, nn.Identity | nn.Dropout)


def confidence(head: Head, state: torch.Tensor, measure: Measure) -> torch.Tensor:
    """How sure a head is of its answer for states [n, P]: [n], 1 if entirely.

    "margin": the largest probability minus the second; "max": the largest; "entropy": 1 - entropy / log C. For a
    sigmoid head the same of each answer as a choice of two, and then the least sure one.
    """
    with torch.no_grad():
        logits = head(state)
    if logits.dim() != 2 or len(logits) != len(state):
        raise PolicyError(f"head: returned shape {tuple(logits.shape)} for {len(state)} states, expected [n, C]")
    activation = head.activation if isinstance(head, LinearHead) else "sigmoid" if logits.shape[1] == 1 else "softmax"
    if activation == "sigmoid":
        p = torch.stack([torch.sigmoid(logits), torch.sigmoid(-logits)], dim=-1)
        return _sureness(p, measure).min(dim=1).values
    return _sureness(torch.softmax(logits, dim=1), measure)


def _sureness(p: torch.Tensor, measure: Measure) -> torch.Tensor:
    """Of probabilities along the last dimension."""
    if measure == "max":
        return p.max(dim=-1).values
    if measure == "margin":
        top = p.topk(2, dim=-1).values
        return top[..., 0] - top[..., 1]
    entropy = -(p * p.clamp_min(1e-30).log()).sum(-1)
    return 1 - entropy / float(np.log(p.shape[-1]))
