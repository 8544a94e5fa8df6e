"""Every LSTM of the zoo that C can carry, exported with real inputs, gives the runtime's outputs and counts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import adaptive_lstm as al
from adaptive_lstm.types import FloatArray
from eval import zoo as real
from eval.zoo.base import ZooModel

from ..support.c_builds import run_golden
from ..support.real_models import loaded

STEPS = 32
INTEGER = al.Quantize("int8", raw="int8", raw_range="dynamic")


def given(model: ZooModel) -> Mapping[str, FloatArray]:
    """What the LSTMs of a model that go forwards only are first given for its first input, by module name; [T, I]."""
    found: dict[str, FloatArray] = {}

    def keep(name: str, args: tuple[Tensor, ...]) -> None:
        found.setdefault(name, args[0][0, :STEPS].numpy())

    for name, module in model.model.named_modules():
        if isinstance(module, nn.LSTM) and not module.bidirectional:
            assert module.batch_first
            module.register_forward_pre_hook(lambda _, args, name=name: keep(name, args))
    with torch.no_grad():
        model.model(model.inputs[0])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", real.NAMES)
def test_real_models(zoo: Path, tmp_path: Path, name: str) -> None:
    model = loaded(name, zoo)
    inputs = given(model)
    if not inputs:
        pytest.skip(f"C carries no LSTM of {name}: all are bidirectional")
    fast = al.adapt(model.model)
    for lstm, x in inputs.items():
        exported = fast.get_submodule(lstm)
        assert isinstance(exported, al.AdaptiveLSTM)
        exported.quantize, exported.policy = INTEGER, al.Delta.uniform(0.05)
        al.export_c(exported, tmp_path, name="real", inputs=x)
        said = run_golden(tmp_path, "real", ("-O2",))
        assert said.startswith("0 of "), said
        assert "passed" in said


@pytest.mark.slow
@pytest.mark.parametrize("name", ["turbofan", "beatnet"])
def test_real_models_in_floats(zoo: Path, tmp_path: Path, name: str) -> None:
    model = real.load(name, zoo)
    for lstm, x in given(model).items():
        al.export_c(model.model.get_submodule(lstm), tmp_path, name="real", inputs=x)
        assert "passed" in run_golden(tmp_path, "real", ("-O2",))
