"""What ``calibrate`` refuses: every mistake is named before any long work, and the model is as it was."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import adaptive_lstm as al
from adaptive_lstm.calibration.splits import split

from ..support.helpers import infer, torch_lstm
from ..support.small_task import I, Pair, T, adapted_classifier, counted, drawn, unchanged

OPTIONS: dict[str, Any] = {"loss": al.losses.disagreement, "max_loss": 0.1, "confidence": 0.9, "progress": False}
SKIPS = [al.SkipTimesteps]
AT_ONCE, ONE, FIRST = 0, 1, 5  # calls of the model: none; one; the first sequence, dense and with two policies


class Two(nn.Module):
    """Two LSTMs."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = torch_lstm(I, 4), torch_lstm(4, 3)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The second on the first."""
        out: torch.Tensor = self.b(self.a(x)[0])[1][0][-1]
        return out


def refused(model: nn.Module, error: str, message: str, calls: int, sequences: Any = None, **arguments: Any) -> None:
    """``calibrate`` raises this after at most so many calls of the model, which is unchanged."""
    sequences = drawn(100) if sequences is None else sequences
    with unchanged(model), counted(model) as count:
        with pytest.raises(getattr(al.errors, error), match=message):
            al.calibrate(model, sequences, **(OPTIONS | arguments))
        assert count.count <= calls


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"max_loss": 0.0}, "InputError", "max_loss: got 0.0"),
        ({"max_loss": 1}, "InputError", "max_loss: got 1"),
        ({"max_loss": math.nan}, "InputError", "max_loss: got nan"),
        ({"max_loss": None}, "InputError", "max_loss: got None"),
        ({"max_loss": "1%"}, "InputError", "max_loss: got '1%'"),
        ({"max_loss": [0.1, 0.1]}, "InputError", "1 losses and 2 values of max_loss"),
        ({"loss": []}, "InputError", "0 losses"),
        ({"loss": [al.losses.disagreement] * 2}, "InputError", "2 losses and 1 values"),
        ({"loss": "disagreement"}, "InputError", "loss: got str"),
        ({"confidence": 0.05}, "InputError", "confidence: got 0.05, expected a number above 0.5"),
        ({"confidence": 95}, "InputError", "confidence: got 95"),
        ({"confidence": [0.9]}, "InputError", "confidence: got"),
        ({"objective": "energy"}, "InputError", "objective: got 'energy'"),
        ({"shares": (1, 1, 0)}, "CalibrationError", "shares"),
        ({"shares": (0.5, 0.5)}, "CalibrationError", "shares"),
        ({"shares": (1, math.inf, 1)}, "CalibrationError", "shares"),
        ({"shares": 0.5}, "CalibrationError", "shares: got 0.5"),
        ({"shares": "1:1"}, "CalibrationError", "shares: got '1:1'"),
        ({"seed": -1}, "InputError", "seed: got -1, expected a whole number from 0"),
        ({"seed": "0"}, "InputError", "seed: got '0'"),
        ({"output": 0}, "InputError", "output: got 0, expected a function"),
        ({"policies": []}, "InputError", "policies: got"),
        ({"policies": al.Delta}, "InputError", "expected a list"),
        ({"policies": [nn.LSTM]}, "InputError", "policies: got <class"),
        (
            {"policies": [al.Delta()]},
            "InputError",
            r"got Delta\(...\), a policy with fixed settings; write Family\(Delta\)",
        ),
        ({"policies": [al.Dense()]}, "InputError", "policies: got Dense"),
        ({"policies": [al.Delta, al.SkipTimesteps, al.Family(al.Delta)]}, "InputError", "more than one Delta"),
        ({"policies": [al.SkipTimesteps, al.Delta(h=(0.1, 0.1))]}, "InputError", "fixed settings"),
        ({"policies": [al.HoldLayers]}, "PolicyError", "one layer"),
        ({"policies": [al.ExitInDepth]}, "UnsupportedError", "one layer"),
        ({"policies": [al.Family(al.ExitInTime, head=nn.Linear(5, 3))]}, "PolicyError", "width 5, expected 6"),
        ({"policies": [al.Family(al.ExitInTime, head=nn.Bilinear(5, 5, 3))]}, "PolicyError", "head"),
        (
            {"policies": [al.Family(al.ExitInTime, head=lambda h: nn.Linear(5, 3)(h))]},
            "PolicyError",
            "head: .* shape \\(1, 6\\)",
        ),
        ({"policies": [al.Family(al.ExitInTime, head=lambda h: h[0])]}, "PolicyError", "expected \\[n, C\\]"),
        ({"conditional": True, "policies": SKIPS}, "InputError", "expected an ExitInTime"),
    ],
)
def test_impossible_arguments(arguments: dict[str, Any], error: str, message: str) -> None:
    refused(adapted_classifier(), error, message, AT_ONCE, **arguments)


def twice() -> list[Pair]:
    data = drawn(100)
    return [*data, (data[7][0].clone(), 0)]


def half_used() -> al.Splits[Any]:
    used: Any = iter([])
    return al.Splits(drawn(30), used, drawn(50, seed=1))


def shared() -> al.Splits[Pair]:
    data = drawn(100)
    return al.Splits(data[:30], data[30:50], data[49:])


@pytest.mark.parametrize(
    ("sequences", "message"),
    [
        (list, "got none"),
        (lambda: iter([]), "used up"),
        (half_used, "used up"),
        (lambda: [(x, y, 0) for x, y in drawn(100)], "tuple of 3"),
        (lambda: [[x] for x, _ in drawn(100)], "list of 1"),
        (lambda: drawn(2), "got 2"),
        (twice, r"sequences\[7\] and sequences\[100\] are equal"),
        (shared, r"search\[19\] and test\[0\] are equal"),
    ],
)
def test_impossible_sequences(sequences: Callable[[], Any], message: str) -> None:
    refused(adapted_classifier(), "CalibrationError", message, AT_ONCE, sequences())


def test_models_that_cannot_be_calibrated() -> None:
    refused(Two(), "InputError", "no AdaptiveLSTM", AT_ONCE)
    refused(adapted_classifier().train(), "InputError", "training mode", AT_ONCE)
    half = adapted_classifier().train()
    half.lstm.eval()
    refused(half, "InputError", "training mode", AT_ONCE)
    refused(adapted_classifier(bidirectional=True), "UnsupportedError", "backward", AT_ONCE, policies=[al.ExitInTime])
    refused(al.adapt(Two()), "InputError", "2 LSTMs", AT_ONCE, policies=[al.Delta, al.ExitInTime])
    refused(adapted_classifier(2), "UnsupportedError", "two layers", AT_ONCE, policies=[al.ExitInDepth])


@pytest.mark.parametrize(
    ("limits", "kind", "least"), [(0.01, "disagreement", 230), (0.2, "cosine_distance", 100), (0.05, "own", 100)]
)
def test_too_few_sequences(limits: float, kind: str, least: int) -> None:
    own: Any = {"own": lambda out, dense, target: 0.0}
    loss = own.get(kind) or getattr(al.losses, kind)
    n = 100 if kind == "disagreement" else 12
    with pytest.raises(al.errors.CalibrationError) as caught:
        al.calibrate(adapted_classifier(), drawn(n), **(OPTIONS | {"loss": loss, "max_loss": limits}))
    text = str(caught.value)
    assert f"the test split has {n // 2}" in text
    if kind == "disagreement":
        assert f"needs at least {least} without any loss" in text
        assert f"Give at least {2 * least} sequences" in text
    refused(adapted_classifier(), "CalibrationError", "too few", ONE, drawn(n), loss=loss, max_loss=limits)


def unclipped(out: torch.Tensor, dense: torch.Tensor, target: Any) -> float:
    return float((out - dense).abs().max()) * 100


@pytest.mark.parametrize(
    ("loss", "error", "message"),
    [
        (lambda out, dense, target: 1.5, "CalibrationError", "got a loss of 1.5"),
        (lambda out, dense, target: -0.1, "CalibrationError", "got a loss of -0.1"),
        (lambda out, dense, target: math.nan, "CalibrationError", "got a loss of nan"),
        (unclipped, "CalibrationError", "unclipped: got a loss of .*clipped_error"),
        ([al.losses.disagreement, unclipped], "CalibrationError", "unclipped"),
    ],
)
def test_losses_out_of_range_show_at_the_first_sequence(loss: Any, error: str, message: str) -> None:
    limit = [0.1, 0.1] if isinstance(loss, list) else 0.1
    refused(adapted_classifier(), error, message, FIRST, drawn(400), loss=loss, max_loss=limit)


def test_targets() -> None:
    model, data, drop = adapted_classifier(), drawn(100), {"loss": al.losses.accuracy_drop, "policies": SKIPS}
    refused(model, "InputError", r"\(inputs, target\)", ONE, [x for x, _ in data], **drop)
    refused(model, "InputError", r"target: got \[0, 1\].*1 decision", ONE, [(x, [0, 1]) for x, _ in data], **drop)
    refused(model, "InputError", "target: got 'dog'", ONE, [(x, "dog") for x, _ in data], **drop)
    last = split(100, (0.25, 0.25, 0.5), seed=0).test[-1]
    one_missing = [(x, None if i == last else y) for i, (x, y) in enumerate(data)]
    refused(model, "InputError", r"\(inputs, target\)", FIRST + 100, one_missing, **drop)  # dense runs only


def test_outputs_that_are_not_finite() -> None:
    model = adapted_classifier()
    with torch.no_grad():
        model.head.bias[0] = math.nan
    with counted(model) as calls, pytest.raises(al.errors.NonFiniteError, match="original model returns NaN"):
        al.calibrate(model, drawn(100), **OPTIONS)
    assert calls.count == 1
    data = drawn(100)
    data[3] = (torch.full((1, T, I), math.inf), 0)
    refused(adapted_classifier(), "NonFiniteError", "finite|NaN", FIRST + 100, data, policies=[*SKIPS, al.ExitInTime])


class Wrapped(nn.Module):
    """What a classifier returns, changed."""

    def __init__(self, change: Callable[[torch.Tensor], Any], **kwargs: Any):
        super().__init__()
        self.inner, self.change = adapted_classifier(**kwargs), change
        self.eval()

    def forward(self, x: torch.Tensor) -> Any:
        """Changed logits."""
        return self.change(self.inner(x))


def test_outputs_that_no_loss_can_read() -> None:
    refused(Wrapped(lambda y: {"y": y}), "InputError", "choose one", ONE)
    refused(Wrapped(lambda y: y.argmax(-1)), "InputError", "no float tensor", ONE)
    refused(Wrapped(lambda y: y[:, :1].sigmoid()), "InputError", "probabilities", FIRST + 100)
    model = Wrapped(lambda y: {"y": y})
    same: Any = lambda out, dense, target: float(out["y"].argmax() != dense["y"].argmax())  # noqa: E731
    found = al.calibrate(
        model, drawn(120), **(OPTIONS | {"loss": same, "policies": SKIPS, "output": lambda out: out["y"]})
    )
    assert found.certificate.losses[0]["test"] == "wsr"


class Idle(nn.Module):
    """Holds an LSTM and does not call it."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = torch_lstm(I, 4)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Sums."""
        return x.sum(1)


def test_what_the_first_sequence_tells() -> None:
    refused(al.adapt(Idle()), "InputError", "without calling", ONE)
    pairs = [(torch.cat([x, x + 1]), None) for x, _ in drawn(100)]
    exits = [al.ExitInTime]
    refused(Wrapped(lambda y: y), "InputError", r"\[2\] batch rows", ONE, pairs, conditional=True, policies=exits)


def test_an_interruption_leaves_no_trace() -> None:
    model = adapted_classifier()
    model.lstm.policy = al.Delta.uniform(0.01)
    infer(model, drawn(1)[0][0])
    for after in (3, 130, 400):
        left = iter(range(after))

        def loss(out: Any, dense: Any, target: Any, left: Any = left) -> float:
            if next(left, None) is None:
                raise KeyboardInterrupt
            return 0.0

        with unchanged(model), pytest.raises(KeyboardInterrupt):
            al.calibrate(model, drawn(200), **(OPTIONS | {"loss": loss, "policies": SKIPS}))
