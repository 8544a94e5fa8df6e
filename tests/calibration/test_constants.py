"""A certificate covers what a model holds outside its parameters and no call changes, and nothing that calls change."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import adaptive_lstm as al

SEQUENCES = [torch.randn(1, 8, 4, generator=torch.Generator().manual_seed(n)) for n in range(100)]


@dataclass(slots=True)
class Scales:
    """Factors in an object."""

    all: torch.Tensor


class Holds(nn.Module):
    """A head with factors in many places, and a memory in many others."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm, self.norm, self.head = nn.LSTM(4, 12, batch_first=True), nn.BatchNorm1d(12), nn.Linear(12, 3)
        self.register_buffer("buffer", torch.ones(3), persistent=False)
        self.register_buffer("calls", torch.zeros(1), persistent=False)
        self.tensor, self.array, self.factor = torch.ones(3), np.ones(3, np.float32), 1.0
        self.buffer: torch.Tensor
        self.deep: dict[str, Any] = {"list": [torch.ones(3), (torch.ones(3), None)]}
        self.scales = Scales(torch.ones(3))
        self.parts = [nn.Linear(3, 3)]
        self.state: Any = None
        self.last = torch.zeros(1, 12)
        self.mean, self.smooth = np.zeros(12), 0.5
        self.history: list[torch.Tensor] = [torch.zeros(12)]
        self.table: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, self.state = self.lstm(x)
        y = y[:, -1]
        if self.table is None or len(self.table) < x.shape[1]:
            self.table = torch.arange(x.shape[1]) * 1.0
        self.last.copy_(y[:1].detach())
        self.mean[:] = y[0].detach().numpy()
        self.calls: torch.Tensor = self.calls + 1
        self.smooth = self.smooth * 0.9
        self.history.append(y.detach())
        factor = self.buffer * self.tensor * torch.from_numpy(self.array) * self.factor
        factor = factor * self.deep["list"][0] * self.deep["list"][1][0] * self.scales.all
        return torch.as_tensor(self.parts[0](self.head(self.norm(y)) * factor))


def in_place(tensor: torch.Tensor) -> None:
    with torch.no_grad():
        tensor.mul_(-1)


CHANGES: dict[str, Callable[[Any], object]] = {
    "buffer": lambda m: in_place(m.buffer),
    "tensor": lambda m: setattr(m, "tensor", -m.tensor),
    "array": lambda m: m.array.__imul__(-1),
    "deep['list'][0]": lambda m: in_place(m.deep["list"][0]),
    "deep['list'][1][0]": lambda m: in_place(m.deep["list"][1][0]),
    "scales.all": lambda m: setattr(m.scales, "all", -m.scales.all),
    "parts[0].weight": lambda m: in_place(m.parts[0].weight),
    "lstm.batch_first": lambda m: setattr(m.lstm, "batch_first", False),
}


@pytest.fixture(scope="module")
def calibrated() -> tuple[nn.Module, nn.Module, al.Calibration]:
    """The original, the adapted model as it was calibrated, and what was found."""
    model = Holds().eval()
    fast = al.adapt(model)
    with torch.no_grad():
        fast(SEQUENCES[0])  # what it remembers is not empty
    found = al.calibrate(
        fast, SEQUENCES, loss=al.losses.disagreement, max_loss=0.3, confidence=0.8, policies=[al.Delta],
        objective="macs", progress=False,
    )  # fmt: skip
    return model, fast, found


@pytest.mark.parametrize("where", CHANGES)
def test_another_constant_is_refused(calibrated: Any, where: str, tmp_path: Path) -> None:
    model, fast, found = calibrated
    at, name = f"another value in {where} than".replace("[", r"\[").replace("]", r"\]"), tmp_path / "model"
    other = copy.deepcopy(fast)
    CHANGES[where](other)
    with pytest.raises(al.errors.InputError, match=at):
        found.apply(other, force=True)
    good = found.apply(copy.deepcopy(fast), force=True)
    al.save(good, name, certificate=found.certificate)
    CHANGES[where](good)
    with pytest.raises(al.errors.InputError, match=at):
        al.save(good, tmp_path / "other", certificate=found.certificate)
    original = copy.deepcopy(model)
    al.load(name, original)
    CHANGES[where](original)
    with pytest.raises(al.errors.ModelFileError, match=at):
        al.load(name, original)


def test_what_calls_change_is_not_covered(calibrated: Any, tmp_path: Path) -> None:
    model, fast, found = calibrated
    assert not {"last", "mean", "calls", "smooth", "state[0]", "history[0]"} & found.certificate.constants.keys()
    again = found.apply(copy.deepcopy(fast), force=True)
    with torch.no_grad():
        for n in (4, 30):
            again(torch.randn(2, n, 4))
    al.save(again, tmp_path / "model", certificate=found.certificate)
    loaded = al.load(tmp_path / "model", model)  # which was never called: its table is None
    with torch.no_grad():
        loaded(SEQUENCES[3])
    al.save(loaded, tmp_path / "again", certificate=al.load_certificate(tmp_path / "model"))


def test_settings_of_training_are_not_covered(calibrated: Any) -> None:
    _, fast, found = calibrated
    other = copy.deepcopy(fast)
    other.norm.momentum, other.factor, other.name = 0.9, 1, "another"
    found.apply(other, force=True)


def test_older_certificates_stay_valid(calibrated: Any, tmp_path: Path) -> None:
    model, fast, found = calibrated
    old = replace(found.certificate, constants=None)
    text = old.to_json().replace(',\n  "constants": null', "")
    assert "constants" not in text
    assert type(old).from_json(text) == old
    al.save(found.apply(copy.deepcopy(fast), force=True), tmp_path / "model", certificate=old)
    original = copy.deepcopy(model)
    CHANGES["tensor"](original)
    al.load(tmp_path / "model", original)


@pytest.mark.parametrize("constants", ["[1]", '{"a": 1}', '"a"'])
def test_a_certificate_with_other_constants_is_none(calibrated: Any, constants: str) -> None:
    _, _, found = calibrated
    text = (
        replace(found.certificate, constants=None).to_json().replace('"constants": null', f'"constants": {constants}')
    )
    with pytest.raises(al.errors.InputError, match="got no certificate"):
        type(found.certificate).from_json(text)
