"""A model that gives another output for the same input each time is named before the work starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import adaptive_lstm as al

RUNS: list[int] = []  # of any model: what a model counts on itself is put back
SEQUENCES = [torch.randn(1, 12, 4, generator=torch.Generator().manual_seed(n)) for n in range(80)]


class Reader(nn.Module):
    """Logits [1, 3] from the last state; ``before`` and ``after`` change its input and its output."""

    def __init__(self, before: Callable[[Any], Any] = lambda x: x, after: Callable[[Any], Any] = lambda y: y):
        super().__init__()
        torch.manual_seed(0)
        self.lstm, self.head, self.drop = nn.LSTM(4, 8, batch_first=True), nn.Linear(8, 3), nn.Dropout(0.5)
        self.before, self.after = before, after

    def forward(self, x: torch.Tensor) -> Any:
        RUNS.append(1)
        return self.after(self.head(self.drop(self.lstm(self.before(x))[0][:, -1])))


def crop(x: torch.Tensor) -> torch.Tensor:
    """Any eight timesteps."""
    start = int(torch.randint(0, 5, ()))
    return x[:, start : start + 8]


def sample(logits: torch.Tensor) -> torch.Tensor:
    """One class, drawn."""
    return nn.functional.one_hot(logits.softmax(-1).multinomial(1)[:, 0], 3).float()


def dropping(model: Reader) -> Reader:
    """With its dropout left on."""
    model.drop.train()
    return model


class Long(Reader):
    """Any number of the timesteps, each with its logits."""

    def forward(self, x: torch.Tensor) -> Any:
        RUNS.append(1)
        return self.head(self.lstm(x)[0])[:, : int(torch.randint(2, 12, ()))]


STOCHASTIC: dict[str, tuple[Callable[[], Reader], str]] = {
    "dropout": (lambda: dropping(Reader().eval()), "in training mode: drop"),
    "crop": (lambda: Reader(before=crop).eval(), "random crops"),
    "sampling": (lambda: Reader(after=sample).eval(), "sampling"),
    "noise": (lambda: Reader(before=lambda x: x + 0.1 * torch.randn_like(x)).eval(), "seed it inside forward"),
    "shape": (lambda: Long().eval(), "differ in shape"),
}

CALLS: dict[str, Callable[[nn.Module], object]] = {
    "calibrate": lambda m: al.calibrate(
        m, SEQUENCES, loss=al.losses.disagreement, max_loss=0.3, confidence=0.8, policies=[al.Delta], progress=False
    ),
    "compress_within": lambda m: al.compress_within(m, SEQUENCES[:8], 0.1),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(("make", "hint"), STOCHASTIC.values(), ids=STOCHASTIC)
def test_chance_is_named_before_the_work(make: Any, hint: str, call: Callable[[nn.Module], object]) -> None:
    torch.manual_seed(1)
    RUNS.clear()
    fast = al.adapt(make())
    with pytest.raises(al.AdaptiveLSTMError, match=f"two outputs for the same input.*{hint}|of a random length"):
        call(fast)
    assert len(RUNS) <= 32  # nothing long has begun
    assert fast.lstm.quantize.exact


class Remembers(Reader):
    """Goes on from where the last call ended."""

    state: Any = None

    def forward(self, x: torch.Tensor) -> Any:
        y, self.state = self.lstm(x, self.state)
        return self.head(y[:, -1])


def seeded(x: torch.Tensor) -> torch.Tensor:
    """The same noise every time."""
    return x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))


DETERMINISTIC: dict[str, Callable[[], Reader]] = {
    "plain": Reader,
    "remembers": Remembers,
    "seeded": lambda: Reader(before=seeded),
    "rounding": lambda: Reader(before=lambda x: x * (1 + 1e-7 * float(torch.rand(())))),
}


@pytest.mark.parametrize("make", DETERMINISTIC.values(), ids=DETERMINISTIC)
def test_what_repeats_itself_is_taken(make: Callable[[], Reader]) -> None:
    fast = al.adapt(make().eval())
    CALLS["calibrate"](fast)
    CALLS["compress_within"](fast)


def test_a_head_in_python_is_told_before_the_work() -> None:
    fast = al.adapt(Reader().eval())
    family = al.Family(al.ExitInTime, head=lambda h: fast.head(h))
    with pytest.warns(UserWarning, match="ExitInTime.head.*save.. will refuse"), pytest.raises(al.AdaptiveLSTMError):
        al.calibrate(fast, SEQUENCES[:5], loss=al.losses.disagreement, max_loss=0.3, confidence=0.8, policies=[family])
