"""One sequence that stands many times in the calibration data is refused, whatever it is wrapped in."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import adaptive_lstm as al
from adaptive_lstm.calibration.input_digest import fingerprint

BASE = torch.randn(1, 12, 4, generator=torch.Generator().manual_seed(0))
BASE[0, :, 0] = 0.0


class Net(nn.Module):
    """Logits [1, 3]; what it is given is unwrapped first."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm, self.fc = nn.LSTM(4, 16, batch_first=True), nn.Linear(16, 3)

    def forward(self, x: Any) -> Any:
        if isinstance(x, dict):
            x = next(one for one in x.values() if isinstance(one, torch.Tensor) and one.numel() > 1)
        x = x.data if hasattr(x, "note") else x
        return self.fc(self.lstm(x.float().to_dense())[0][:, -1])


class Wrapped:
    """An object of the user's own."""

    def __init__(self, data: torch.Tensor, note: Any = None):
        self.data, self.note = data, note


@dataclasses.dataclass(slots=True)
class Noted:
    """An input with a label."""

    data: torch.Tensor
    note: str


Pair = collections.namedtuple("Pair", "data note")


def signed(i: int) -> torch.Tensor:
    """Zeros with signs of their own."""
    y = BASE.clone()
    y[0, :, 0] = torch.tensor([-0.0 if i >> b & 1 else 0.0 for b in range(12)])
    return y


FORMS = (
    lambda x: x.half().double(),
    lambda x: x.half(),
    lambda x: x.half().to_sparse(),
    lambda x: x.half().float().transpose(0, 1).contiguous().transpose(0, 1),
)

HIDDEN: dict[str, Callable[[int], Any]] = {
    "signs of zero": signed,
    "objects": lambda i: Wrapped(BASE.clone()),
    "labelled objects": lambda i: Wrapped(BASE.clone(), [{"nested": str(i)}, i]),
    "labelled dataclasses": lambda i: Noted(BASE.clone(), str(i)),
    "labels in dicts": lambda i: {"x": BASE.clone(), "id": i},
    "labels in tensors": lambda i: {"x": BASE.clone(), "id": torch.tensor([i])},
    "labels as names": lambda i: {f"utterance {i}": BASE.clone()},
    "dicts": lambda i: {"x": signed(i)},
    "dtypes and layouts": lambda i: FORMS[i % len(FORMS)](BASE),
}


@pytest.mark.parametrize("made", HIDDEN.values(), ids=HIDDEN)
def test_hidden_duplicates_are_refused(made: Callable[[int], Any]) -> None:
    fast = al.adapt(Net().eval())
    with pytest.raises(al.AdaptiveLSTMError, match="are equal, expected all sequences to differ"):
        al.calibrate(
            fast, [made(i) for i in range(300)], loss=al.losses.disagreement, max_loss=0.1, confidence=0.9,
            policies=[al.Delta], objective="macs",
        )  # fmt: skip


TIMES = np.linspace(0.0, 1.0, 7)
LABELLED: dict[str, Callable[[int], Any]] = {
    "named tuple": lambda i: Pair(TIMES, f"{i}"),
    "list": lambda i: [TIMES, i, None if i else "none"],
    "labels of several parts": lambda i: {"x": TIMES, "of": {"speaker": "ab"[i], "take": i, "bytes": bytes([i])}},
    "one label more": lambda i: {"x": TIMES, **({"id": 3} if i else {})},
    "lists in lists": lambda i: {"x": [[t] for t in TIMES.tolist()], "id": i},
    "fields of records": lambda i: np.array([(t, str(i)) for t in TIMES], dtype=[("t", "f8"), ("id", "U1")]),
    "mixed columns": lambda i: np.array([[t, str(i)] for t in TIMES], dtype=object),
}


@pytest.mark.parametrize("made", LABELLED.values(), ids=LABELLED)
def test_labels_beside_arrays_do_not_count(made: Callable[[int], Any]) -> None:
    assert fingerprint(made(0)) == fingerprint(made(1))


NUMBERS: dict[str, Callable[[int], Any]] = {
    "lists in lists": lambda i: {"x": [[t + i] for t in TIMES.tolist()], "id": 0},
    "lists of unequal lengths": lambda i: {"x": [[1.0, 2.0 + i], [3.0]], "id": 0},
    "a second array": lambda i: (TIMES, [1, i]),
    "order of arrays": lambda i: [TIMES, 2 * TIMES][:: 1 - 2 * i],
    "bytes alone": lambda i: {"x": bytes([i, 1, 2])},
    "mixed columns": lambda i: [TIMES, np.array([["a", t + i] for t in TIMES], dtype=object)],
    "fields of records": lambda i: np.array([(t + i, "a") for t in TIMES], dtype=[("t", "f8"), ("id", "U1")]),
    "texts alone": lambda i: {"text": "ab"[i]},
    "numbers alone": lambda i: {"a": 1, "b": i},
    "one frame": lambda i: (torch.full((1, 1, 1), i), "a"),
}


@pytest.mark.parametrize("made", NUMBERS.values(), ids=NUMBERS)
def test_other_numbers_make_another_sequence(made: Callable[[int], Any]) -> None:
    assert fingerprint(made(0)) != fingerprint(made(1))
    assert fingerprint(made(1)) == fingerprint(made(1))
