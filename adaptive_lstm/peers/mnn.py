"""MNN, by its own converter: float32, and int8 weights with one scale per row that it expands as it computes."""

import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import UnsupportedError
from .contender import BuildRequest, Engine
from .onnx_export import export
from .onnxruntime_ import to_numpy
from .silence import no_output


def fp32(request: BuildRequest) -> Engine:
    return _module(request, {"precision": "high"})


def int8(request: BuildRequest) -> Engine:
    """``weightQuantBits 8``; ``memory: low`` lets it multiply bytes where it can."""
    return _module(request, {"precision": "low", "memory": "low"}, "--weightQuantBits", "8")


def _module(request: BuildRequest, hints: dict[str, str], *options: str) -> Engine:
    """``options``: of the converter."""
    with tempfile.TemporaryDirectory() as folder, no_output():
        nn, expr = import_module("MNN.nn"), import_module("MNN.expr")
        path = _converted(request, Path(folder), options)
        size = path.stat().st_size
        manager = nn.create_runtime_manager(({"backend": expr.Backend.CPU, "numThread": request.threads, **hints},))
        net = nn.load_module_from_file(str(path), ["x", "h", "c"], ["y", "hn", "cn"], runtime_manager=manager)

    def native(tensor: Tensor) -> Any:
        return expr.const(to_numpy(tensor), list(tensor.shape), expr.NCHW)

    def forward(x: Any, h: Any, c: Any) -> tuple[Any, Any, Any]:
        y, h, c = net.forward([x, h, c])
        return _array(y), h, c

    return Engine(native, forward, lambda value: torch.as_tensor(_array(value)), size)


def _converted(request: BuildRequest, folder: Path, options: tuple[str, ...]) -> Path:
    """The file that MNN loads.

    The converter behind the command ``mnnconvert`` is called, because the command installs a package with pip and
    reports over the network that it was used.
    """
    source, target = export(request.model, folder), folder / "lstm.mnn"
    names = ("--modelFile", str(source), "--MNNModel", str(target), "--bizCode", "MNN")
    import_module("_tools").mnnconvert(["mnnconvert", "-f", "ONNX", *names, *options])
    if not target.exists():
        raise UnsupportedError("MNN's converter cannot read the graph")
    return target


def _array(value: Any) -> Any:
    """A copy: MNN lends its memory until the value is gone."""
    return value if isinstance(value, np.ndarray) else np.array(value.read())
