"""The LSTMs that are exported, with the sequence that each runs."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

import adaptive_lstm as al
from eval import zoo as real

SIZES = {"1 x 32": (16, 32, 1), "2 x 64": (14, 64, 2), "2 x 150": (32, 150, 2)}
ACTIVITIES = (1.0, 0.5, 0.2)
STEPS, SMOOTH, RANGE = 64, 0.9, 4.0
HALVINGS = 12
FLASH = 512 << 10  # bytes on the boards


@dataclass(frozen=True)
class Model:
    """``lstm``: batch first; ``x``: [T, I]; ``reach``: the largest input that int8 holds."""

    name: str
    lstm: nn.LSTM
    x: np.ndarray
    reach: float

    def settings(self) -> list[tuple[str, float]]:
        """Precisions, and shares of columns to compute; float32 only where the weights leave room in flash."""
        floats = sum(one.nbytes for one in self.lstm.parameters()) < FLASH
        return [*([("fp32", 1.0)] if floats else []), *(("int8", share) for share in ACTIVITIES)]

    def exported(self, precision: str, share: float) -> al.AdaptiveLSTM:
        """The LSTM in a precision (int8: with activations of 8 bits), with the policy that computes this share."""
        fast = al.AdaptiveLSTM.from_lstm(self.lstm).eval()
        if precision == "int8":
            raw = (self.reach,) * self.lstm.input_size
            fast.quantize = al.Quantize("int8", raw="int8", raw_scale=raw, raw_levels=127, levels=127, input_levels=127)
        if share < 1:
            steer(fast, self.x, share)
        return fast


def random_model(name: str) -> Model:
    """Random weights, on a random walk around zero."""
    torch.manual_seed(0)
    lstm = nn.LSTM(*SIZES[name], batch_first=True).eval()
    return Model(name, lstm, inputs(lstm.input_size), RANGE)


def models(names: tuple[str, ...], zoo: Path | None) -> Iterator[Model]:
    """Those of ``SIZES``, and from the zoo the LSTM that estimates the life of jet engines, on one engine's record."""
    yield from map(random_model, names)
    if zoo is not None:
        found = real.load("turbofan", zoo)
        lstm, x = found.model.get_submodule("lstm"), found.inputs[0][0].numpy()
        assert isinstance(lstm, nn.LSTM)
        yield Model("turbofan 2 x 64", lstm, x, float(np.abs(x).max()))


def inputs(width: int) -> np.ndarray:
    """A random walk around zero [STEPS, width]."""
    noise = np.random.default_rng(0).standard_normal((STEPS, width))
    x = noise.copy()
    for t in range(1, STEPS):
        x[t] = SMOOTH * x[t - 1] + (1 - SMOOTH) * noise[t]
    return x.astype(np.float32)


def activity(fast: al.AdaptiveLSTM, x: np.ndarray) -> float:
    """Of a stream over x [T, I]."""
    with al.stream(fast) as stream:
        stream.run(torch.from_numpy(x)[None])
        return stream.stats.activity


def steer(fast: al.AdaptiveLSTM, x: np.ndarray, wanted: float) -> None:
    """Set the threshold of all columns at which this share of them is computed."""
    low, high = 0.0, 2.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        fast.policy = al.Delta(h=middle, x=(middle,) * fast.num_layers)
        low, high = (middle, high) if activity(fast, x) > wanted else (low, middle)
