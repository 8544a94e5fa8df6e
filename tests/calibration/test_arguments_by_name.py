"""Inputs as dicts: arguments by name, wherever a model is run, or one argument that is a dict."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import adaptive_lstm as al

X = [torch.randn(1, 10, 4, generator=torch.Generator().manual_seed(n)) for n in range(80)]


class ByName(nn.Module):
    """Takes its inputs by name only; logits [1, 3]."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm, self.head = nn.LSTM(4, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, *, features: torch.Tensor, scale: float = 1.0) -> Any:
        return self.head(self.lstm(features * scale)[0][:, -1])


class OneDict(ByName):
    """Takes one dict."""

    def forward(self, batch: Any) -> Any:  # type: ignore[override]
        return super().forward(features=batch["x"])


class Anything(ByName):
    """Takes any names."""

    def forward(self, **given: Any) -> Any:
        return super().forward(features=given["features"])


WAYS: dict[str, tuple[Callable[[], nn.Module], Callable[[torch.Tensor], Any]]] = {
    "names": (ByName, lambda x: {"features": x, "scale": 0.5}),
    "another mapping": (ByName, lambda x: UserDict(features=x)),
    "one dict": (OneDict, lambda x: {"x": x}),
    "any names": (Anything, lambda x: {"features": x}),
}

CALLS: dict[str, Callable[[Any, list[Any]], object]] = {
    "calibrate": lambda m, xs: al.calibrate(
        m, [(x, 0) for x in xs], loss=al.losses.disagreement, max_loss=0.3, confidence=0.8, policies=[al.Delta]
    ),
    "compress": lambda m, xs: al.compress(m, xs[:4], prune=al.Prune("unit", 0.25), rounding="compensated"),
    "compress_within": lambda m, xs: al.compress_within(m, xs[:4], 0.5),
    "measure_sensitivity": lambda m, xs: al.measure_sensitivity(m, xs[:2]),
    "measure_sensitivities": lambda m, xs: al.measure_sensitivities(m, xs[0]),  # one dict alone is one batch
    "fit_translators": lambda m, xs: al.fit_translators(m, xs[:40]),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(("make", "wrap"), WAYS.values(), ids=WAYS)
def test_dicts_are_taken_everywhere(make: Any, wrap: Any, call: Callable[[Any, list[Any]], object]) -> None:
    call(al.adapt(make().eval()), [wrap(x) for x in X])


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(
    ("wrap", "got"),
    [
        (lambda x: x, "a Tensor"),
        (lambda x: (x, 1.0), "a tuple of 2"),
        (lambda x: {"feature": x}, "a dict with feature"),
    ],
)
def test_what_does_not_fit_is_said(wrap: Any, got: str, call: Callable[[Any, list[Any]], object]) -> None:
    fast = al.adapt(ByName().eval())
    expected = rf"got {got}, expected what ByName.forward\(\*, features.*'features': ..., 'scale': ..."
    inputs = [wrap(x) for x in X]
    if isinstance(inputs[0], tuple) and call is CALLS["measure_sensitivities"]:
        return  # a tuple alone is a row of batches
    with pytest.raises(al.AdaptiveLSTMError, match=expected):
        call(fast, inputs)


def test_errors_from_inside_the_model_stay_what_they_are() -> None:
    class Broken(ByName):
        def forward(self, x: Any) -> Any:  # type: ignore[override]
            return self.lstm(x) + 1

    with pytest.raises(TypeError, match=r"unsupported operand|can only concatenate"):
        al.measure_sensitivity(al.adapt(Broken().eval()), X[:1])


@pytest.mark.parametrize("sequences", [X[0], {"features": X[0]}])
def test_one_input_is_no_list_of_sequences(sequences: Any) -> None:
    with pytest.raises(al.AdaptiveLSTMError, match=f"got one {type(sequences).__name__}"):
        al.calibrate(al.adapt(ByName().eval()), sequences, loss=al.losses.disagreement, max_loss=0.3, confidence=0.8)
