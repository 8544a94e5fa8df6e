"""Models from packages: rebuilt, they decide as the files that their makers run. Skipped where nobody fetched them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import adaptive_lstm as al
from adaptive_lstm.bench import pinned_threads
from eval.zoo import nakdimon, silero, tesseract
from eval.zoo.base import first
from eval.zoo.traineddata import Layer, network

from ..support.helpers import infer
from ..support.real_models import fetched, loaded


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """As in ``test_zoo``."""
    with pinned_threads(1):
        yield


def runtime(path: Path) -> onnxruntime.InferenceSession:
    """ONNX Runtime on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def as_its_makers_run_it(session: Any, audio: Tensor) -> Tensor:
    """Silero's probabilities for a recording [samples], a frame per call, as its package calls its ONNX file; [T]."""
    found, state = [], np.zeros((2, 1, 128), np.float32)
    context = np.zeros((1, silero.CONTEXT), np.float32)
    for frame in audio.view(-1, 1, silero.FRAME).numpy():
        given = np.concatenate([context, frame], axis=1)
        p, state = session.run(None, {"input": given, "state": state, "sr": np.array(silero.RATE, np.int64)})
        context = given[:, -silero.CONTEXT :]
        found.append(float(p[0, 0]))
    return torch.tensor(found)


@pytest.mark.slow
def test_silero_decides_as_its_own_file(zoo: Path) -> None:
    """On every recording: the model in torch, adapted, and its own file behind ``al.onnx.Session``."""
    model = loaded("silero", zoo)
    file = fetched("silero", zoo) / "silero_vad.onnx"
    theirs, session, fast = runtime(file), al.onnx.Session(file), al.adapt(model.model)
    spoke = 0
    for name, audio in silero.recordings(zoo).items():
        want = as_its_makers_run_it(theirs, audio)
        ours = [infer(one, audio[None])[0] for one in (model.model, fast)]
        for got in (*ours, as_its_makers_run_it(session, audio)):
            torch.testing.assert_close(got, want, rtol=0, atol=1e-4)
            assert torch.equal(got > silero.THRESHOLD, want > silero.THRESHOLD), name
        spoke += int((want > silero.THRESHOLD).sum())
    assert spoke > 1000


def test_silero_for_whole_recordings(zoo: Path) -> None:
    """The file of the package for many frames at once, one LSTM node over all of them, behind ``al.onnx.Session``."""
    model = loaded("silero", zoo)
    audio = model.inputs[0]
    frames = nn.functional.pad(audio, (silero.CONTEXT, 0)).unfold(1, silero.CONTEXT + silero.FRAME, silero.FRAME)[0]
    zeros = np.zeros((1, 1, 128), np.float32)
    session = al.onnx.Session(fetched("silero", zoo) / "silero_vad_16k_sequence.onnx")
    (got,) = session.run(["speech_probs"], {"input": frames.numpy(), "h": zeros, "c": zeros})
    torch.testing.assert_close(torch.from_numpy(got), infer(model.model, audio)[0], rtol=0, atol=1e-5)


def test_nakdimon_decides_as_its_own_file(zoo_if_any: Path) -> None:
    model = loaded("nakdimon", zoo_if_any)
    theirs = runtime(fetched("nakdimon", zoo_if_any) / nakdimon.FILE)
    fast = al.adapt(model.model)
    can = model.model.get_buffer("can")
    for x in model.inputs:
        outputs = theirs.run(None, {"input": x.numpy().astype(np.int32)})
        want = torch.from_numpy(np.concatenate(outputs, axis=-1)) * can[x]
        for got in (infer(model.model, x), infer(fast, x)):
            torch.testing.assert_close(got, want, rtol=0, atol=1e-4)  # of logits up to 20
            assert torch.equal(nakdimon.marks(got), nakdimon.marks(want))


def cells(layer: Layer, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A layer of a .traineddata file [T, I] -> [T, H], in float64 from its integers, as Tesseract's lstm.cpp does."""
    cell, entering, forget, leaving = (m.integers.astype(np.float64) * m.scales[:, None] for m in layer.matrices)
    h, c, found = np.zeros(layer.outputs), np.zeros(layer.outputs), []
    for frame in x:
        given = np.concatenate([frame, h, [1.0]])
        enters, forgets, leaves = (1 / (1 + np.exp(-(m @ given))) for m in (entering, forget, leaving))
        c = forgets * c + enters * np.tanh(cell @ given)
        h = leaves * np.tanh(c)
        found.append(h)
    return np.array(found)


@pytest.mark.parametrize("own", [False, True], ids=["torch", "adapted"])
def test_tesseract_runs_the_weights_of_its_file(zoo: Path, own: bool) -> None:
    """Each LSTM on what it is given in the model, and all of them in a row, the second from the right to the left."""
    model = loaded("tesseract", zoo)
    root, description = network((fetched("tesseract", zoo) / tesseract.FILE).read_bytes())
    assert description == "[1,36,0,1Ct3,3,16Mp3,3Lfys48Lfx96Lrx96Lfx192O1c1]"
    runner = al.adapt(model.model) if own else model.model
    given: dict[str, Tensor] = {}
    for name in tesseract.LSTMS:
        hook = lambda _, args, name=name: given.setdefault(name, args[0])  # noqa: E731
        model.model.get_submodule(name).register_forward_pre_hook(hook)
    infer(model.model, model.inputs[0])
    for name, stored in tesseract.LSTMS.items():
        x = given[name][:1]
        got = first(infer(runner.get_submodule(name), x))[0]
        np.testing.assert_allclose(got.numpy(), cells(root.find(stored), x[0].double().numpy()), rtol=0, atol=2e-6)
    row = given["lstm1"][0].double().numpy()
    row = cells(root.find("Lfx96"), row)
    row = cells(root.find("Lrx96"), row[::-1])[::-1]
    row = cells(root.find("Lfx192"), row)
    (output,) = root.find("Output").matrices
    want = row @ (output.integers[:, :-1] * output.scales[:, None]).T + output.integers[:, -1] * output.scales
    torch.testing.assert_close(infer(runner, model.inputs[0])[0].double(), torch.from_numpy(want), rtol=0, atol=1e-3)


def test_tesseract_reads(zoo: Path) -> None:
    assert loaded("tesseract", zoo).measure(loaded("tesseract", zoo).model, 4)["character error"] < 0.05
