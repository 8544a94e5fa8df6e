"""Files that others made, and every model of the zoo, exported and run: against ONNX Runtime and the torch model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

import adaptive_lstm as al
from adaptive_lstm.errors import ModelFileError
from eval import zoo as models
from eval.zoo import nakdimon, silero
from eval.zoo.base import first
from tests.onnx.models import exported
from tests.support.real_models import fetched, loaded

LSTMS = {"silero_vad": 4, "silero_vad_16k_op15": 2, "silero_vad_half": 2}  # of files with branches; the others have one
CELLS = "silero_vad_op18_ifless"  # whose LSTMs are written as products of matrices


@pytest.mark.slow
# Torch cannot export the frames that Silero's front end cuts; its own files are tested below.
@pytest.mark.parametrize("name", [name for name in models.NAMES if name != "silero"])
def test_every_model_of_the_zoo(name: str, zoo: Path, tmp_path: Path) -> None:
    if not all((zoo / folder).is_dir() for folder in models.FOLDERS):
        pytest.skip(f"not all models are in {zoo}")
    one = loaded(name, zoo)
    x = min(one.inputs, key=lambda x: x.numel())
    path = exported(one.model, (x,), tmp_path / "model.onnx", dynamic_axes={})
    session = al.onnx.Session(path)
    runtime = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feed = {"x": x.numpy()}
    for ours, theirs in zip(session.run(None, feed), runtime.run(None, feed), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * max(1.0, float(np.abs(theirs).max())))
    with torch.no_grad():
        wanted, got = first(one.model(x)), first(session.model(x))
    # Two float32 programs, neither of which is the truth: with AVX-512, torch is the farther one from float64.
    torch.testing.assert_close(got, wanted, rtol=0, atol=2e-5 * max(1.0, float(wanted.abs().max())))
    stacks = [m for m in one.model.modules() if isinstance(m, nn.LSTM)]
    layers = [lstm.num_layers for lstm in session.lstms.values()]
    assert sum(layers) == sum(lstm.num_layers for lstm in stacks)
    assert len(layers) <= len(stacks)


def given(session: al.onnx.Session, name: str, rate: int, rows: int) -> dict[str, np.ndarray]:
    """What a file of silero-vad takes for a frame of every row, or for as many frames of one."""
    rng = np.random.default_rng(rate + rows)
    samples = (silero.FRAME + silero.CONTEXT) * rate // silero.RATE
    feed = {"input": (rng.standard_normal((rows, samples)) * 0.1).astype(np.float32)}
    if name == "silero_vad_16k_sequence":
        return feed | {state: rng.standard_normal((1, 1, 128)).astype(np.float32) for state in "hc"}
    feed["state"] = rng.standard_normal((2, rows, 128)).astype(np.float32)
    return feed | ({"sr": np.array(rate, np.int64)} if "sr" in {v.name for v in session.get_inputs()} else {})


@pytest.mark.parametrize("name", [name for name in silero.FILES if name != CELLS])
def test_files_of_silero_vad(name: str, zoo_if_any: Path) -> None:
    """Branches, states and rates as the files take them."""
    path = fetched("silero", zoo_if_any) / f"{name}.onnx"
    lstms = al.onnx.load_lstms(path)
    assert len(lstms) == LSTMS.get(name, 1)
    assert {(m.input_size, m.hidden_size, m.num_layers) for m in lstms.values()} == {(128, 128, 1)}
    session = al.onnx.Session(path)
    runtime = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for rate in (16_000, 8_000) if name in LSTMS else (16_000,):
        for rows in (1,) if name == "silero_vad_openvino_16k" else (1, 3):
            feed = given(session, name, rate, rows)
            for ours, theirs in zip(session.run(None, feed), runtime.run(None, feed), strict=True):
                np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def test_compressed_file_of_silero_vad(zoo_if_any: Path, tmp_path: Path) -> None:
    """Its LSTMs in int8, in all branches, saved and loaded; the answer stays near that of the file."""
    path = fetched("silero", zoo_if_any) / "silero_vad.onnx"
    session, again = al.onnx.Session(path), al.onnx.Session(path)
    feed = given(session, "silero_vad", 16_000, 3)
    (want, _) = session.run(None, feed)
    al.compress(session.model, quantize=al.Quantize("int8"))
    al.save(session.model, tmp_path / "silero.alstm", weights=True)
    again.model = al.load(tmp_path / "silero.alstm", again.model)
    (got, _) = again.run(None, feed)
    np.testing.assert_array_equal(got, session.run(None, feed)[0])
    np.testing.assert_allclose(got, want, rtol=0, atol=0.02)
    assert all(lstm.quantize == al.Quantize("int8") for lstm in again.lstms.values())


@pytest.mark.parametrize("name", ["silero", "nakdimon"])
def test_cells_written_as_products(name: str, zoo_if_any: Path) -> None:
    """Of both files the refusal says what they hold instead of LSTM nodes: of one in an If, of one in a Loop."""
    path = fetched(name, zoo_if_any) / (f"{CELLS}.onnx" if name == "silero" else nakdimon.FILE)
    for reader in (al.onnx.load_lstms, al.onnx.Session):
        with pytest.raises(ModelFileError, match="no node of the kind LSTM; cells that an exporter wrote as products"):
            reader(path)
