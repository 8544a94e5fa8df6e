"""One sequence that stands many times in the calibration data is refused, whatever it is wrapped in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import adaptive_lstm as al

BASE = torch.randn(1, 12, 4, generator=torch.Generator().manual_seed(0))
BASE[0, :, 0] = 0.0


class Net(nn.Module):
    """Logits [1, 3]; what it is given is unwrapped first."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm, self.fc = nn.LSTM(4, 16, batch_first=True), nn.Linear(16, 3)

    def forward(self, x: Any) -> Any:
        x = x["x"] if isinstance(x, dict) else x.data if isinstance(x, Wrapped) else x
        return self.fc(self.lstm(x.float().to_dense())[0][:, -1])


class Wrapped:
    """An object of the user's own."""

    def __init__(self, data: torch.Tensor):
        self.data = data


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
