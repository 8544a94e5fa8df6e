"""Every model of the zoo, exported and run, against the torch model and ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

import adaptive_lstm as al
from eval import zoo as models
from eval.zoo.base import first
from tests.onnx.models import exported


@pytest.mark.slow
@pytest.mark.parametrize("name", models.NAMES)
def test_every_model_of_the_zoo(name: str, zoo: Path, tmp_path: Path) -> None:
    if not all((zoo / folder).is_dir() for folder in models.FOLDERS):
        pytest.skip(f"not all models are in {zoo}")
    one = models.load(name, zoo)
    x = min(one.inputs, key=lambda x: x.numel())
    path = exported(one.model, (x,), tmp_path / "model.onnx", dynamic_axes={})
    session = al.onnx.Session(path)
    runtime = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feed = {"x": x.numpy()}
    for ours, theirs in zip(session.run(None, feed), runtime.run(None, feed), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * max(1.0, float(np.abs(theirs).max())))
    with torch.no_grad():
        wanted, got = first(one.model(x)), first(session.model(x))
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5 * max(1.0, float(wanted.abs().max())))
    stacks = [m for m in one.model.modules() if isinstance(m, nn.LSTM)]
    layers = [lstm.num_layers for lstm in session.lstms.values()]
    assert sum(layers) == sum(lstm.num_layers for lstm in stacks)
    assert len(layers) <= len(stacks)
