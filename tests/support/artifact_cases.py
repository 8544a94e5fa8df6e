"""Models with every setting that a file can hold, and the settings to compare after loading one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import adaptive_lstm as al
from adaptive_lstm.artifact import container
from adaptive_lstm.artifact.policies import encode_policy
from adaptive_lstm.calibration.certificate import Certificate, policy_digest, quantization_digest
from adaptive_lstm.runtime.monitor import Range
from adaptive_lstm.types import StackShape
from adaptive_lstm.weights.fingerprint import model_digest, surroundings_digest, weights_digest
from adaptive_lstm.weights.layout import tensors_of
from adaptive_lstm.weights.replaced import ReplacedWeights

from .helpers import torch_lstm
from .policy_cases import SHAPES


def read_file(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Header and arrays of an artifact."""
    return container.read(path)


def write_file(path: Path, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """An artifact with these contents."""
    weights = any("weights" in one for one in header["lstms"].values())
    container.write(path, header, arrays, weights=weights)


def lstm_of(shape: StackShape, **options: Any) -> nn.LSTM:
    sizes = (shape.input_size, shape.hidden_size, shape.num_layers)
    return torch_lstm(*sizes, proj_size=shape.proj_size, bidirectional=shape.bidirectional, **options)


def prune(lstm: al.AdaptiveLSTM, share: float = 0.6) -> None:
    """Weights at random; and, without projection, the second unit of the first layer, which is constant at 0.25."""
    cells = []
    for cell, t in enumerate(tensors_of(lstm)):
        w_ih, w_hh, bias = (w.detach() * (torch.rand_like(w) > share) for w in (t.w_ih, t.w_hh, t.bias))
        live = constant = None
        if cell == 0 and not lstm.proj_size and not lstm.bidirectional:
            h = lstm.hidden_size
            w_ih[1::h], w_hh[1::h], bias[1::h], w_hh[:, 1] = 0.0, 0.0, 0.0, 0.0
            live, constant = torch.arange(h) != 1, torch.zeros(h)
            constant[1] = 0.25
        if cell == 1 and not lstm.proj_size and not lstm.bidirectional:
            w_ih[:, 1] = 0.0
        w_hr = None if t.w_hr is None else t.w_hr.detach() * 0.5
        cells.append(replace(t, w_ih=w_ih, w_hh=w_hh, bias=bias, w_hr=w_hr, live=live, constant=constant))
    lstm.replaced = ReplacedWeights(tuple(cells), weights_digest(lstm))


def settings(lstm: al.AdaptiveLSTM) -> Any:
    """All settings, in a form that can be compared."""
    arrays: dict[str, np.ndarray] = {}
    policy = encode_policy(lstm.policy, "policy", arrays)
    for cell, t in enumerate(lstm.replaced.cells if lstm.replaced else ()):
        kinds = {"w_ih": t.w_ih, "w_hh": t.w_hh, "bias": t.bias, "w_hr": t.w_hr, "live": t.live, "constant": t.constant}
        arrays |= {f"{kind}.{cell}": w.detach().numpy() for kind, w in kinds.items() if w is not None}
    contents = {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in arrays.items()}
    origin = lstm.replaced.origin if lstm.replaced else None
    return lstm.quantize, policy, contents, origin, lstm.monitor.expected if lstm.monitor else None


class Tagger(nn.Module):
    """Two LSTMs, one of them deep inside."""

    def __init__(self) -> None:
        super().__init__()
        self.below = nn.ModuleDict({"lstm": lstm_of(SHAPES["both ways"])})
        self.above = torch_lstm(18, 7, seed=3, bias=False)
        self.fc = nn.Linear(7, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.fc(self.above(self.below["lstm"](x)[0])[0])
        return y


def tagger() -> tuple[Tagger, nn.Module]:
    model = Tagger().eval()
    fast = al.adapt(model)
    below, above = fast.get_submodule("below.lstm"), fast.get_submodule("above")
    assert isinstance(below, al.AdaptiveLSTM)
    assert isinstance(above, al.AdaptiveLSTM)
    below.quantize, below.policy = al.Quantize("int8"), al.Delta.uniform(0.05)
    above.policy = al.Combined(al.Delta.uniform(0.02), al.ExitInTime(model.fc, threshold=0.4, check_every=2))
    rates = {"activity": Range(0.5, 0.1, 40), "exits": Range(1.0, 0.0, 2**31 - 1)}
    above.plan = replace(above.plan, expected_rates=rates)
    prune(below)
    return model, fast


def certificate_of(fast: nn.Module, **changes: Any) -> Certificate:
    lstms = {name: m for name, m in fast.named_modules() if isinstance(m, al.AdaptiveLSTM)}
    empty: dict[str, Any] = {key: {} for key in Certificate.__dataclass_fields__} | {
        "certified": True,
        "policy": "Delta(tau=0.1)",
        "losses": ({"name": "flips", "limit": 0.1, "test": "wsr", "mean": 0.01, "bound": 0.05},),
        "confidence": 0.95,
        "p_value": 0.01,
        "conditional": False,
        "sequences": {"test": {"count": 99, "sha256": "0"}},
        "savings": {"macs": 0.3, "time": 0.4, "time_quartiles": [0.3, 0.5]},
        "policy_digest": policy_digest({name: lstm.policy for name, lstm in lstms.items()}),
        "weights": model_digest(lstms),
        "surroundings": surroundings_digest(fast, lstms),
        "quantization": quantization_digest(lstms),
        "seconds": 1.5,
    }
    return Certificate(**empty | changes)
