"""Losses that a certificate can bound: what one sequence loses by skipping, in [0, 1].

Each compares the output of the model as deployed with that of the original float32 model, or both with a target.
Of a model that returns a tuple, the first tensor is compared; ``Loss.reading``, or ``output`` of ``calibrate``, picks
another one. Shapes that can be read in two ways are refused.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from .codec import brief, is_number
from .errors import CalibrationError, InputError
from .model_io import first_tensor


@dataclass(frozen=True)
class Sizes:
    """What one sequence was: ``steps`` timesteps and ``rows`` batch rows, as the model's LSTMs saw them."""

    steps: int
    rows: int


@dataclass(frozen=True)
class Loss:
    """A loss of one sequence.

    Attributes:
        name: in certificates and messages.
        of: ``of(output, dense, target)`` gives a float in [0, 1]; ``dense`` is the output of the original model.
        binary: ``binary(dense)`` says whether the loss can only be 0 or 1 for a dense output like this, by its nature
            and not by the luck of a sample; such losses have an exact test.
        check: ``check(outputs, sizes)`` raises if the loss is meaningless for the dense outputs of all sequences, with
            one ``Sizes`` for each; empty where they are not known.
        one_tensor: whether it compares one tensor, which ``reading`` picks, instead of the whole output.
    """

    name: str
    of: Callable[[Any, Any, Any], float]
    binary: Callable[[Any], bool] = lambda dense: False
    check: Callable[[Sequence[Any], Sequence[Sizes]], None] = lambda outputs, sizes: None
    one_tensor: bool = False

    def reading(self, output: Callable[[Any], torch.Tensor]) -> Loss:
        """The same loss of what ``output`` picks; ``disagreement.reading(lambda out: out["logits"])`` for example.

        A loss that takes whole outputs stays as it is.
        """
        if not self.one_tensor or output is first_tensor:
            return self
        return Loss(
            self.name,
            lambda out, dense, target: self.of(output(out), output(dense), target),
            lambda dense: self.binary(output(dense)),
            lambda outputs, sizes: self.check([output(one) for one in outputs], sizes),
        )

    def checked(self, value: Any) -> float:
        """A value of this loss as a float.

        Raises:
            CalibrationError: it is no number, or lies outside [0, 1].
        """
        try:
            found = float(value)
        except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
            raise CalibrationError(
                f"{self.name}: got a loss of {brief(value)} ({error!s:.100}), expected one number in [0, 1]"
            ) from error
        if not 0 <= found <= 1:  # also catches NaN
            raise CalibrationError(
                f"{self.name}: got a loss of {found}, expected values in [0, 1]; scale and clip it, for example with "
                "adaptive_lstm.losses.clipped_error(scale)"
            )
        return found

    def unchecked(self) -> Loss:
        """The same loss without its check, for outputs that look like others but are what it takes them for."""
        return replace(self, check=lambda outputs, sizes: None)


def as_loss(loss: Loss | Callable[[Any, Any, Any], float]) -> Loss:
    """A ``Loss`` from one, or from a plain function of (output, dense, target), which counts as a bounded one.

    Raises:
        InputError: neither.
    """
    if isinstance(loss, Loss):
        return loss
    given: Any = loss
    if not callable(given) or isinstance(given, type) or not _takes_three(given):
        got = brief(given) if callable(given) else type(given).__name__
        raise InputError(f"loss: got {got}, expected a function of (output, dense_output, target)")
    return Loss(getattr(loss, "__name__", type(loss).__name__), loss)


def _takes_three(function: Callable[..., Any]) -> bool:
    """Whether a function can be called with three arguments, as far as that can be known."""
    try:
        inspect.signature(getattr(function, "forward", function)).bind(None, None, None)  # of a module
    except TypeError:
        return False
    except ValueError:  # of functions in C
        return True
    return True


def _single(output: Any) -> bool:
    return _decisions(output).numel() == 1


def _decisions(output: Any) -> torch.Tensor:
    """The class with the largest logit, along the last dimension; the sign of a single logit."""
    logits = first_tensor(output)
    return logits.argmax(-1) if logits.dim() and logits.shape[-1] > 1 else _signs(logits).reshape(logits.shape[:-1])


def _signs(output: Any) -> torch.Tensor:
    return first_tensor(output) > 0


def _one_sign(output: Any) -> bool:
    return first_tensor(output).numel() == 1


def _same_shape(output: Any, dense: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Both tensors.

    Raises:
        InputError: they have other shapes, so nothing would be compared with its own.
    """
    a, b = first_tensor(output), first_tensor(dense)
    if a.shape != b.shape:
        raise InputError(
            f"the model returned shape {tuple(a.shape)}, and {tuple(b.shape)} for the same sequence with nothing "
            "skipped; expected one shape to compare: outputs of a random length cannot be"
        )
    return a, b


def _check_classes(outputs: Sequence[Any], sizes: Sequence[Sizes]) -> None:
    """Raise ``InputError`` where the last dimension may be time or batch instead of classes or features."""
    tensors = [first_tensor(output) for output in outputs]
    last = {t.shape[-1] if t.dim() else 1 for t in tensors}
    if len(last) > 1:
        raise InputError(
            f"the last dimension of the model's outputs has sizes from {min(last)} to {max(last)}, expected as many "
            f"classes or features for every sequence; it may be time. {_ADVICE}"
        )
    if sizes and all(_ambiguous(t.shape, size) for t, size in zip(tensors, sizes, strict=True)):
        raise InputError(
            f"got outputs of shape {tuple(tensors[0].shape)} for {sizes[0].rows} x {sizes[0].steps} timesteps: the "
            f"last dimension may be time or batch rows, or classes. {_ADVICE}"
        )


_ADVICE = (
    "Name it: losses.sign_disagreement compares the sign of every value (one yes/no decision each); "
    "losses.clipped_error(scale) compares values; losses.disagreement.unchecked() says that these are classes"
)


def _ambiguous(shape: torch.Size, size: Sizes) -> bool:
    """Whether the last dimension has the size of time or batch, and no other dimension accounts for those."""
    if not shape or shape[-1] == 1:
        return False
    *others, classes = shape
    if size.rows in others:
        others.remove(size.rows)
    elif size.rows == classes:
        return True
    return size.steps == classes and size.steps not in others


def _check_decisions(outputs: Sequence[Any], sizes: Sequence[Sizes]) -> None:
    _check_classes(outputs, sizes)
    if all(t.dim() == 0 or t.shape[-1] == 1 for t in map(first_tensor, outputs)):
        _refuse_probabilities(outputs, sizes)


def _refuse_probabilities(outputs: Sequence[Any], sizes: Sequence[Sizes]) -> None:
    if all(bool(((t >= 0) & (t <= 1)).all()) for t in map(first_tensor, outputs)):
        raise InputError(
            "the model gives one output per decision, and all of them lie in 0..1: these are probabilities, whose sign "
            "decides nothing. Calibrate on logits, or write the loss with your own threshold: losses.Loss('flips', "
            "lambda out, dense, target: float((out > 0.5) != (dense > 0.5)), binary=lambda dense: True)"
        )


def _check_features(outputs: Sequence[Any], sizes: Sequence[Sizes]) -> None:
    _check_classes(outputs, sizes)
    if all(t.dim() == 0 or t.shape[-1] == 1 for t in map(first_tensor, outputs)):
        raise InputError(
            "cosine_distance: the last dimension of the model's outputs has size 1, and the cosine of single numbers "
            "is their sign; expected features there, or use losses.clipped_error(scale)"
        )


def _disagreement(output: Any, dense: Any, target: Any) -> float:
    output, dense = _same_shape(output, dense)
    return float((_decisions(output) != _decisions(dense)).double().mean())


def _sign_disagreement(output: Any, dense: Any, target: Any) -> float:
    output, dense = _same_shape(output, dense)
    return float((_signs(output) != _signs(dense)).double().mean())


def _accuracy_drop(output: Any, dense: Any, target: Any) -> float:
    if target is None:
        raise InputError("accuracy_drop compares with labels: give every sequence as (inputs, target)")
    output, dense = _same_shape(output, dense)
    decisions = _decisions(dense)
    try:
        right = torch.as_tensor(target, device=decisions.device).reshape(decisions.shape)
    except (RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"target: got {brief(target)}, expected one class for each of the {decisions.numel()} decisions: a number "
            f"or an array of shape {tuple(decisions.shape)}"
        ) from error
    lost = (decisions == right) & (_decisions(output) != right)
    return float(lost.double().mean())


def _cosine(output: Any, dense: Any, target: Any) -> float:
    cosine = torch.nn.functional.cosine_similarity(*_same_shape(output, dense), dim=-1)
    return float((1 - cosine).clamp(0, 1).double().mean())


disagreement = Loss("disagreement", _disagreement, _single, _check_decisions, one_tensor=True)
"""Share of the decisions that differ from those of the original model. A decision is the largest logit along the last
dimension, or the sign of a single logit. Outputs whose last dimension may be time are refused."""

sign_disagreement = Loss("sign_disagreement", _sign_disagreement, _one_sign, _refuse_probabilities, one_tensor=True)
"""Share of the values whose sign differs from that of the original model: every value is a logit of one yes/no
decision, as in outputs [1, T]."""

accuracy_drop = Loss("accuracy_drop", _accuracy_drop, _single, _check_decisions, one_tensor=True)
"""Share of the decisions that are right in the original model and wrong in the adapted one; needs targets, integers."""

cosine_distance = Loss("cosine_distance", _cosine, check=_check_features, one_tensor=True)
"""1 - cosine between the outputs along the last dimension, at most 1; the mean over all other dimensions."""


def clipped_error(scale: float) -> Loss:
    """Mean absolute difference of the outputs, in units of ``scale`` and at most 1.

    Raises:
        InputError: scale is not positive and finite.
    """
    if not (is_number(scale) and 0 < scale < float("inf")):
        raise InputError(f"scale: got {brief(scale)}, expected a finite number > 0, in units of the output")

    def error(output: Any, dense: Any, target: Any) -> float:
        output, dense = _same_shape(output, dense)
        difference = (output - dense).abs().double().mean() / scale
        return float(difference.clamp(max=1))

    return Loss(f"clipped_error({scale:g})", error, one_tensor=True)
