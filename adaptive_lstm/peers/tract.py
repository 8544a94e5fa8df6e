"""tract: float32 on one thread, whatever is asked for, because its Python package starts no others."""

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

MAX_SHAPES = 8  # input shapes optimized separately, which makes steps faster; all others share one graph


def fp32(request: BuildRequest) -> Engine:
    """The state stays in tract's own tensors from step to step.

    Raises:
        UnsupportedError: tract cannot read the graph.
    """
    tract = import_module("tract")
    with tempfile.TemporaryDirectory() as folder:
        graph = export(request.model, Path(folder)).read_bytes()
    try:
        of_any_shape = _runnable(tract, graph)
    except tract.TractError as error:
        raise UnsupportedError(f"tract cannot read the graph: {str(error).splitlines()[0]}") from error
    of_shape: dict[tuple[int, ...], Any] = {}

    def runnable_for(x: Any) -> Any:
        if len(of_shape) == MAX_SHAPES:
            return of_any_shape
        of_shape[x.shape] = _runnable(tract, graph, B=x.shape[0], T=x.shape[1])
        return of_shape[x.shape]

    def forward(x: Any, h: Any, c: Any) -> tuple[Any, Any, Any]:
        runnable = of_shape.get(x.shape) or runnable_for(x)
        y, h, c = runnable.run([x, h, c])  # in a state of its own: a kept one goes on from the last call's h and c
        return y.to_numpy(), h, c

    return Engine(to_numpy, forward, _tensor, len(graph))


def _runnable(tract: Any, graph: bytes, **sizes: int) -> Any:
    """The graph, ready to run; ``sizes``: of the batch B and the length T, unless they may change from call to call."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lstm.onnx"
        path.write_bytes(graph)
        model = tract.onnx().load(path).into_model()
    if sizes:
        model.transform(tract.SetSymbols(sizes))
    return model.into_runnable()


def _tensor(value: Any) -> Tensor:
    return torch.as_tensor(value if isinstance(value, np.ndarray) else value.to_numpy())
