"""What the package does with a torch model, on a session's model: compress, skip, calibrate, stream, save, load."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

import adaptive_lstm as al
from adaptive_lstm.errors import ModelFileError
from tests.onnx.models import Tagger, exported
from tests.support.helpers import assert_close, assert_equal, infer, signal


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(Tagger(), (torch.zeros(1, 2, 12),), tmp_path_factory.mktemp("onnx") / "tagger.onnx")


@pytest.fixture
def session(path: Path) -> al.onnx.Session:
    return al.onnx.Session(path)


def frames(rows: int, steps: int = 20, seed: int = 0) -> torch.Tensor:
    """[rows, steps, 12], moving slowly in time."""
    return signal(steps, rows, 12, seed=seed).transpose(0, 1).contiguous()


def test_int8_and_skipping_are_those_of_the_torch_model(session: al.onnx.Session) -> None:
    """The same settings on both, and the same LSTMs: equal outputs and counts."""
    tagger = al.adapt(Tagger())
    names = dict(zip(session.lstms, ("low", "high"), strict=True))
    policy = al.Delta.uniform(0.02)
    for name, lstm in session.lstms.items():
        for one in (lstm, tagger.get_submodule(names[name])):
            assert isinstance(one, al.AdaptiveLSTM)
            one.quantize, one.policy = al.Quantize("int8"), policy
    x = frames(2)
    got, wanted = session.run(None, {"x": x.numpy()}), infer(tagger, x)
    for ours, theirs in zip(got, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), atol=2e-2)
    for name, lstm in session.lstms.items():
        other = tagger.get_submodule(names[name])
        assert isinstance(other, al.AdaptiveLSTM)
        assert lstm.last_run is not None
        assert other.last_run is not None
        assert lstm.last_run.activity == pytest.approx(other.last_run.activity, abs=0.02)
        assert lstm.last_run.activity < 0.9


@pytest.mark.parametrize("saliency", ["auto", "second-order"])
def test_compress_with_inputs(session: al.onnx.Session, saliency: str) -> None:
    report = al.compress(
        session.model,
        [frames(4)],
        prune=al.Prune("unstructured", 0.5, saliency=saliency),  # type: ignore[arg-type]
        quantize=al.Quantize("int8"),
        progress=False,
    )
    assert len(report.lstms) == 2
    assert all(lstm.replaced is not None for lstm in session.lstms.values())
    (logits, *_), (dense, *_) = session.run(None, {"x": frames(4).numpy()}), infer(Tagger(), frames(4))
    assert 0 < np.abs(logits - dense.numpy()).mean() < np.abs(dense.numpy()).mean()
    al.restore(session.model)
    assert all(lstm.replaced is None for lstm in session.lstms.values())


def test_calibrate_save_and_load(session: al.onnx.Session, path: Path, tmp_path: Path) -> None:
    inputs = [{"x": row} for row in frames(120).split(1)]
    found = al.calibrate(
        session.model,
        inputs,
        loss=al.losses.disagreement,
        max_loss=0.2,
        confidence=0.9,
        policies=[al.Delta],
        objective="macs",
        progress=False,
    )
    found.apply(session.model, force=True)  # whether so small a model gains time is chance
    assert any(isinstance(lstm.policy, al.Delta) for lstm in session.lstms.values())
    al.save(session.model, tmp_path / "tagger.alstm", certificate=found.certificate)
    wanted = session.run(None, {"x": frames(2, seed=9).numpy()})

    again = al.onnx.Session(path)
    again.model = al.load(tmp_path / "tagger.alstm", again.model)
    assert {name: lstm.policy for name, lstm in again.lstms.items()} == {
        name: lstm.policy for name, lstm in session.lstms.items()
    }
    for ours, before in zip(again.run(None, {"x": frames(2, seed=9).numpy()}), wanted, strict=True):
        assert np.array_equal(ours, before)
    assert al.load_certificate(tmp_path / "tagger.alstm") == found.certificate


def test_a_certificate_is_of_what_lies_around_the_lstms_too(session: al.onnx.Session, tmp_path: Path) -> None:
    tagger = Tagger()
    with torch.no_grad():
        tagger.head.weight.add_(1)
    other = al.onnx.Session(exported(tagger, (torch.zeros(1, 2, 12),), tmp_path / "other.onnx"))
    assert not torch.equal(other.model.around, session.model.around)
    al.save(session.model, tmp_path / "settings.alstm")
    al.load(tmp_path / "settings.alstm", other.model)  # the LSTMs are the same
    with torch.no_grad():
        tagger.high.get_parameter("bias_ih_l0").add_(1)
    third = al.onnx.Session(exported(tagger, (torch.zeros(1, 2, 12),), tmp_path / "third.onnx"))
    with pytest.raises(ModelFileError, match="parameters differ"):
        al.load(tmp_path / "settings.alstm", third.model)


def test_streams_of_its_lstms(session: al.onnx.Session) -> None:
    lstm = next(iter(session.lstms.values()))
    x = torch.randn(1, 6, 8)
    opened = al.stream(lstm)
    steps = torch.cat([opened.step(x[:, t]) for t in range(6)])
    assert_close(steps, infer(lstm, x.transpose(0, 1))[0][:, 0], "fp32")


def test_sensitivity_is_that_of_the_outputs_of_each_lstm(session: al.onnx.Session) -> None:
    """ONNX Runtime gives no gradients: the model's output and any other pick measure the same."""
    x = [frames(4)]
    first = al.measure_sensitivities(session.model, x, progress=False)
    last = al.measure_sensitivities(session.model, x, output=lambda out: out[2], progress=False)
    for name, one in first.items():
        assert all(np.array_equal(a, b) for a, b in zip(one.rows, last[name].rows, strict=True))
        assert all(rows.any() for rows in one.rows)


def test_in_a_model_of_torch(path: Path) -> None:
    """As one module among others; parameters want no gradients, and outputs carry none."""
    model = nn.Sequential(al.onnx.Session(path).model).eval()
    logits, *_ = model(frames(2))
    assert not logits.requires_grad
    assert not any(p.requires_grad for p in model.parameters())
    runtime = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert_close(logits, torch.from_numpy(runtime.run(None, {"x": frames(2).numpy()})[0]), "fp32")
    assert_equal(logits, model(frames(2))[0])
