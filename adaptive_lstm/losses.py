"""Losses that a certificate can bound: what one sequence loses by skipping, in [0, 1].

Each compares the output of the model as deployed with that of the original float32 model, or both with a target.
Of a model that returns a tuple, the first tensor is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .errors import InputError
from .model_io import first_tensor


@dataclass(frozen=True)
class Loss:
    """A loss of one sequence.

    Attributes:
        name: in certificates and messages.
        of: ``of(output, dense, target)`` gives a float in [0, 1]; ``dense`` is the output of the original model.
        binary: ``binary(dense)`` says whether the loss can only be 0 or 1 for a dense output like this, by its nature
            and not by the luck of a sample; such losses have an exact test.
        check: ``check(outputs)`` raises if the loss is meaningless for the dense outputs of all sequences.
    """

    name: str
    of: Callable[[Any, Any, Any], float]
    binary: Callable[[Any], bool] = lambda dense: False
    check: Callable[[Sequence[Any]], None] = lambda outputs: None


def as_loss(loss: Loss | Callable[[Any, Any, Any], float]) -> Loss:
    """A ``Loss`` from one, or from a plain function of (output, dense, target), which counts as a bounded one.

    Raises:
        InputError: neither.
    """
    if isinstance(loss, Loss):
        return loss
    if not callable(loss):
        raise InputError(f"loss: got {type(loss).__name__}, expected a function of (output, dense_output, target)")
    return Loss(getattr(loss, "__name__", type(loss).__name__), loss)


def _decisions(output: Any) -> torch.Tensor:
    """The class with the largest logit, along the last dimension; the sign of a single logit."""
    logits = first_tensor(output)
    return logits.argmax(-1) if logits.shape[-1] > 1 else (logits > 0).squeeze(-1)


def _single(output: Any) -> bool:
    return _decisions(output).numel() == 1


def _refuse_probabilities(outputs: Sequence[Any]) -> None:
    tensors = [first_tensor(output) for output in outputs]
    if all(t.shape[-1] == 1 and bool(((t >= 0) & (t <= 1)).all()) for t in tensors):
        raise InputError(
            "the model gives one output per decision, and all of them lie in 0..1: these are probabilities, whose sign "
            "decides nothing. Calibrate on logits, or write the loss with your own threshold: losses.Loss('flips', "
            "lambda out, dense, target: float((out > 0.5) != (dense > 0.5)), binary=lambda dense: True)"
        )


def _disagreement(output: Any, dense: Any, target: Any) -> float:
    return float((_decisions(output) != _decisions(dense)).double().mean())


def _accuracy_drop(output: Any, dense: Any, target: Any) -> float:
    if target is None:
        raise InputError("accuracy_drop compares with labels: give every sequence as (inputs, target)")
    decisions = _decisions(dense)
    try:
        right = torch.as_tensor(target).reshape(decisions.shape)
    except (RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"target: got {target!r}, expected one class for each of the {decisions.numel()} decisions: a number or an "
            f"array of shape {tuple(decisions.shape)}"
        ) from error
    lost = (decisions == right) & (_decisions(output) != right)
    return float(lost.double().mean())


def _cosine(output: Any, dense: Any, target: Any) -> float:
    cosine = torch.nn.functional.cosine_similarity(first_tensor(output), first_tensor(dense), dim=-1)
    return float((1 - cosine).clamp(0, 1).double().mean())


disagreement = Loss("disagreement", _disagreement, _single, _refuse_probabilities)
"""Share of the decisions that differ from those of the original model. A decision is the largest logit along the last
dimension, or the sign of a single logit."""

accuracy_drop = Loss("accuracy_drop", _accuracy_drop, _single, _refuse_probabilities)
"""Share of the decisions that are right in the original model and wrong in the adapted one; needs targets, integers."""

cosine_distance = Loss("cosine_distance", _cosine)
"""1 - cosine between the outputs along the last dimension, at most 1; the mean over all other dimensions."""


def clipped_error(scale: float) -> Loss:
    """Mean absolute difference of the outputs, in units of ``scale`` and at most 1.

    Raises:
        InputError: scale is not positive and finite.
    """
    if not 0 < scale < float("inf"):
        raise InputError(f"scale: got {scale}, expected a finite number > 0, in units of the output")

    def error(output: Any, dense: Any, target: Any) -> float:
        difference = (first_tensor(output) - first_tensor(dense)).abs().double().mean() / scale
        return float(difference.clamp(max=1))

    return Loss(f"clipped_error({scale:g})", error)
