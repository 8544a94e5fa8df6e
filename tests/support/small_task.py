"""A classifier small enough to calibrate in a second, whose head is trained in closed form: sequences of three classes.

There is no end to the sequences, so true risks can be estimated as well as one likes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

import adaptive_lstm as al
from adaptive_lstm.calibration.splits import split

from .helpers import assert_equal, infer, torch_lstm

T, I, C = 8, 3, 3  # noqa: E741 (the letter of the input size everywhere)
Pair = tuple[torch.Tensor, int]


class Classifier(nn.Module):
    """Logits [1, C] of x [1, T, I], from the top layer's final state."""

    def __init__(self, layers: int = 1, **options: Any):
        super().__init__()
        self.lstm = torch_lstm(I, 6, layers, batch_first=True, **options)
        self.head = nn.Linear(6, C)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The logits."""
        out: torch.Tensor = self.head(self.lstm(x)[1][0][-1])
        return out


def drawn(n: int, seed: int = 0, noise: float = 0.8) -> list[Pair]:
    """Sequences x [1, T, I] with their classes: noise around one of three directions."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, C, (n,), generator=generator)
    x = torch.randn(n, T, I, generator=generator) * noise + nn.functional.one_hot(y, I)[:, None]
    return [(x[i : i + 1], int(y[i])) for i in range(n)]


def adapted_classifier(layers: int = 1, **options: Any) -> Any:
    """An adapted classifier whose head is the ridge regression of the classes on final states."""
    model = Classifier(layers, **options).eval()
    with torch.no_grad():
        for parameter in model.lstm.parameters():
            parameter.mul_(2)
        data = drawn(400, seed=1000)
        states = model.lstm(torch.cat([x for x, _ in data]))[1][0][-1]
        z = torch.cat([states, torch.ones(len(states), 1)], dim=1)
        wanted = nn.functional.one_hot(torch.tensor([y for _, y in data]), C).float()
        solved = torch.linalg.solve(z.T @ z + 0.1 * torch.eye(z.shape[1]), z.T @ wanted)
        model.head.weight.copy_(6 * solved[:-1].T)
        model.head.bias.copy_(6 * solved[-1])
    return al.adapt(model)


def tensors(output: Any) -> list[torch.Tensor]:
    """The tensors in the output of a model."""
    return list(output.values()) if isinstance(output, dict) else [output]


OPTIONS: dict[str, Any] = {
    "loss": al.losses.disagreement,
    "max_loss": 0.1,
    "confidence": 0.9,
    "objective": "macs",
    "progress": False,
}
SHARES = (0.25, 0.25, 0.5)


def last_split(data: list[Any]) -> list[Any]:
    """The test split, in the order drawn."""
    return [data[i] for i in split(len(data), SHARES, seed=0).test]


def outputs(model: nn.Module, data: list[Pair], settings: dict[str, al.Policy] | None = None) -> torch.Tensor:
    """Logits [n, C] of a copy, in float32 with nothing skipped, or with some policies."""
    served = copy.deepcopy(model)
    for name, m in served.named_modules():
        if isinstance(m, al.AdaptiveLSTM):
            m.policy = settings[name] if settings else al.Dense()
            m.quantize = m.quantize if settings else al.Quantize()
    return torch.cat([infer(served, x) for x, _ in data])


def flips(model: nn.Module, data: list[Pair], settings: Any) -> np.ndarray:
    """0/1 losses [n] of the decisions."""
    different = outputs(model, data, settings).argmax(1) != outputs(model, data).argmax(1)
    return different.numpy().astype(np.float64)


class Calls:
    """How often a model was called."""

    count = 0


@contextmanager
def counted(model: nn.Module) -> Iterator[Calls]:
    """Counts the calls inside the block."""
    calls = Calls()

    def count(*_: Any) -> None:
        calls.count += 1

    handle = model.register_forward_pre_hook(count)
    try:
        yield calls
    finally:
        handle.remove()


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """After the block the model has the same settings, monitors and outputs, bit for bit."""
    lstms = [m for m in model.modules() if isinstance(m, al.AdaptiveLSTM)]
    x = drawn(1, seed=77)[0][0]
    before = infer(model, x) if lstms else None
    kept = [(m.policy, m.quantize, m.monitor, m.last_run) for m in lstms]
    watched = [m.monitor and m.monitor.status for m in lstms]
    yield
    for lstm, (policy, quantize, monitor, last_run), status in zip(lstms, kept, watched, strict=True):
        assert lstm.policy is policy
        assert lstm.quantize is quantize
        assert lstm.monitor is monitor
        assert lstm.last_run == last_run
        assert status == (lstm.monitor and lstm.monitor.status)
        assert "forward" not in vars(lstm)
    if before is not None:
        assert_equal(tensors(infer(model, x)), tensors(before))
