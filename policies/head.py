"""The model's own head, and its confidence, by which exits are decided.

A linear head is plain data (``LinearHead``), which the native core can run; anything else that maps states to logits is
a Python callable.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from ..codec import brief, is_one_of, short_repr
from ..errors import PolicyError
from .affine import Affine
from .translators import Map

if TYPE_CHECKING:
    import torch

    HeadFunction = Callable[[torch.Tensor], torch.Tensor]
else:  # read as a type hint at run time, where torch may be missing
    HeadFunction = Callable

Activation = Literal["softmax", "sigmoid"]
Measure = Literal["margin", "max", "entropy"]
MEASURES = ("margin", "max", "entropy")


@short_repr
@dataclass(frozen=True, eq=False)
class LinearHead(Affine):
    """``logits = weight @ state + bias``: weight [C, P] float32, bias [C].

    ``activation``: "softmax" over C >= 2 exclusive classes, or "sigmoid" for C independent yes/no decisions.

    Raises:
        PolicyError: shapes that do not fit, values that are not finite, or softmax over one class.
    """

    activation: Activation = "softmax"

    _NAME: ClassVar[str] = "head"
    _SHAPES: ClassVar[str] = "[C, P] and [C]"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_one_of(self.activation, ("softmax", "sigmoid")):
            raise PolicyError(f"head: got activation {brief(self.activation)}, expected 'softmax' or 'sigmoid'")
        if not len(self.weight):
            raise PolicyError(f"head: got weight {self.weight.shape}, which has no classes, expected [C, P] with C > 0")
        if self.activation == "softmax" and len(self.weight) < 2:
            raise PolicyError("head: softmax over one class is always confident; use activation='sigmoid'")

    def after(self, translator: Map) -> Map:
        """This head on a translated state as one map to logits, multiplied in float64."""
        weight, bias = self.weight.astype(np.float64), self.bias.astype(np.float64)
        return Map(
            (weight @ translator.weight.astype(np.float64)).astype(np.float32),
            (weight @ translator.bias.astype(np.float64) + bias).astype(np.float32),
        )


Head = LinearHead | HeadFunction


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
    from torch import nn

    layers = [m for m in (head if isinstance(head, nn.Sequential) else [head]) if not _no_op(m)]
    linear = layers[0] if layers else None
    end = layers[1:]
    last = (nn.Softmax, nn.LogSoftmax, nn.Sigmoid)
    if isinstance(linear, nn.Linear) and (not end or (len(end) == 1 and isinstance(end[0], last))):
        weight = linear.weight.detach().cpu().float().clone().numpy()
        given: torch.Tensor | None = linear.bias  # annotated as always there, which it is not
        bias = np.zeros(len(weight), np.float32) if given is None else given.detach().cpu().float().clone().numpy()
        sigmoid = isinstance(end[0], nn.Sigmoid) if end else len(weight) == 1
        return LinearHead(weight, bias, "sigmoid" if sigmoid else "softmax")
    if not callable(head):
        raise PolicyError(
            f"head: got {type(head).__name__}, expected a linear module or a callable from states [n, P] to logits"
        )
    return head


def _no_op(module: object) -> bool:
    """Whether a module does nothing in eval mode."""
    from torch import nn

    return isinstance(module, nn.Identity | nn.Dropout)


def check_width(head: Head | None, width: int) -> None:
    """Raise ``PolicyError`` if a linear head does not take states of this width."""
    if isinstance(head, LinearHead) and head.weight.shape[1] != width:
        raise PolicyError(
            f"head: it takes states of width {head.weight.shape[1]}, expected {width}, the width of the LSTM's output"
        )


def confidence(head: Head, state: torch.Tensor, measure: Measure) -> torch.Tensor:
    """Confidence of a head for states [n, P]: [n], in 0..1.

    "margin": the largest probability minus the second; "max": the largest; "entropy": 1 - entropy / log C. A sigmoid
    head takes C decisions between two choices; its confidence is that of the least certain one.

    Raises:
        PolicyError: the head does not return [n, C].
    """
    import torch

    with torch.no_grad():
        logits = head(state)
    if not (isinstance(logits, torch.Tensor) and logits.is_floating_point()):  # type: ignore[redundant-expr]
        shown = logits.dtype if isinstance(logits, torch.Tensor) else type(logits).__name__  # type: ignore[redundant-expr]
        raise PolicyError(f"head: returned {shown}, expected a float tensor of logits [n, C]")
    if logits.dim() != 2 or logits.shape[0] != state.shape[0] or not logits.shape[1]:
        raise PolicyError(f"head: returned shape {tuple(logits.shape)} for {len(state)} states, expected [n, C], C > 0")
    activation = head.activation if isinstance(head, LinearHead) else "sigmoid" if logits.shape[1] == 1 else "softmax"
    if activation == "sigmoid":
        p = torch.stack([torch.sigmoid(logits), torch.sigmoid(-logits)], dim=-1)
        return _confidence_of(p, measure).min(dim=1).values
    return _confidence_of(torch.softmax(logits, dim=1), measure)


def _confidence_of(p: torch.Tensor, measure: Measure) -> torch.Tensor:
    """Confidence of probabilities along the last dimension."""
    if measure == "max":
        return p.max(dim=-1).values
    if measure == "margin":
        first, second = p.topk(2, dim=-1).values.unbind(-1)
        return first - second
    entropy = -(p * p.clamp_min(1e-30).log()).sum(-1)
    return 1 - entropy / math.log(p.shape[-1])
