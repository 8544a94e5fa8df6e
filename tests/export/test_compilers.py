"""What compilers and exporters of torch make of an adapted model: packages of AOTInductor, and ONNX files."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.export import Dim

import adaptive_lstm as al

from ..support.helpers import always_native, assert_equal, infer, signal
from .test_in_graphs import SETTINGS, I, Model, model_with

X = signal(5, 2, I).transpose(0, 1)
LONG = signal(9, 3, I, seed=1).transpose(0, 1)

pytestmark = pytest.mark.filterwarnings(  # of torch's own code
    "ignore:.*treespec:FutureWarning",
    "ignore:_check_is_size:FutureWarning",
    "ignore:.*torch.jit:DeprecationWarning",
    "ignore:The tensor attributes:UserWarning",
    "ignore::torch.jit.TracerWarning",
)


class Every(nn.Module):
    """One model per setting side by side, so that they are compiled at once."""

    def __init__(self) -> None:
        super().__init__()
        self.models = nn.ModuleList([model_with(use) for use in SETTINGS.values()])

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(model(x) for model in self.models)


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A C++ compiler that torch finds, a cache of its own, and calls that no race decides."""
    from torch._inductor import cpp_builder, exc

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler:
        pytest.skip("torch finds no C++ compiler: install g++ or set CXX")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    torch._dynamo.reset()
    with always_native():
        yield
    torch._dynamo.reset()


@pytest.mark.slow
def test_a_package_compiled_ahead_is_the_model(compiler: None, tmp_path: Path) -> None:
    every, package = Every(), str(tmp_path / "every.pt2")
    shapes = ({0: Dim("batch", min=1), 1: Dim("time", min=1)},)
    with torch.no_grad():
        program = torch.export.export(every, (X,), dynamic_shapes=shapes)
    torch._inductor.aoti_compile_and_package(program, package_path=package)
    want = infer(every, LONG)
    assert not torch.equal(want[0], want[3]), "a policy that skips shows in the outputs"
    assert_equal(infer(torch._inductor.aoti_load_package(package), LONG), want)
    torch.save([LONG, want], tmp_path / "want.pt")
    code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).resolve().parents[2])!r})
import torch
import adaptive_lstm
x, want = torch.load("want.pt")
got = torch._inductor.aoti_load_package({package!r})(x)
torch.testing.assert_close(got, want, rtol=0, atol=1e-6)  # a race decides here who serves what is exact
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.slow
def test_the_default_compiler_keeps_every_setting(compiler: None) -> None:
    every = Every()
    compiled = torch.compile(every, fullgraph=True, dynamic=True)
    for x in (X, LONG):
        assert_equal(infer(compiled, x), infer(every, x))


def onnx_export(model: nn.Module, path: Path, *, dynamo: bool) -> Any:
    """The outputs of the file for LONG, in ONNX Runtime."""
    runtime = pytest.importorskip("onnxruntime", reason="ONNX files need pip install 'adaptive-lstm[onnx]'")
    if dynamo and importlib.util.find_spec("onnxscript") is None:
        pytest.skip("torch's newer ONNX exporter needs pip install onnxscript")
    names = {0: "B", 1: "T"}
    free: dict[str, Any] = {"dynamic_axes": {"x": names}}
    if dynamo:
        free = {"dynamic_shapes": (names,), "verbose": False}
    with torch.no_grad():
        torch.onnx.export(model, (X,), str(path), dynamo=dynamo, input_names=["x"], **free)
    return runtime.InferenceSession(str(path)).run(None, {"x": np.array(LONG)})[0]


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore:Exporting a model to ONNX with a batch_size:UserWarning"
)
@pytest.mark.parametrize("dynamo", [False, True])
def test_an_onnx_file_holds_the_plain_lstm(dynamo: bool, tmp_path: Path) -> None:
    plain = Model().eval()
    fast = al.adapt(plain)
    SETTINGS["delta"](fast)
    with pytest.warns(UserWarning, match="nn.LSTM itself served this call"):
        got = onnx_export(fast, tmp_path / "model.onnx", dynamo=dynamo)
    assert got.shape == (3, 9, 3)
    np.testing.assert_allclose(got, infer(plain, LONG), atol=1e-6)
    assert not np.allclose(got, infer(fast, LONG), atol=1e-4)
