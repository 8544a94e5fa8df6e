"""ncnn, by its own converter pnnx: float32, one sequence at a time, because it has no batches of sequences."""

import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import UnsupportedError
from .contender import BuildRequest, Engine
from .onnxruntime_ import to_numpy
from .silence import no_output

TRACED = ((1, 8), (1, 5))  # batch and length of two example inputs: a dimension that differs becomes dynamic


def fp32(request: BuildRequest) -> Engine:
    lstm = request.model.lstm
    if lstm.proj_size:
        raise UnsupportedError("pnnx cannot convert an LSTM with a projection (proj_size)")
    net = import_module("ncnn").Net()
    mat, net.opt.num_threads = import_module("ncnn").Mat, request.threads
    size = _load(net, request)

    def one(x: Any, h: Any, c: Any) -> list[Any]:
        """x [T, I], h and c [D * L, H]; ncnn's matrices are views of these arrays, which must outlive the call."""
        extractor = net.create_extractor()
        for name, array in (("in0", x), ("in1", h), ("in2", c)):
            extractor.input(name, mat(array))
        return [np.array(extractor.extract(name)[1]) for name in ("out0", "out1", "out2")]

    def forward(x: Any, h: Any, c: Any) -> tuple[Any, Any, Any]:
        rows = [one(x[b], np.ascontiguousarray(h[:, b]), np.ascontiguousarray(c[:, b])) for b in range(len(x))]
        y, h_n, c_n = zip(*rows, strict=True)
        return np.stack(y), np.stack(h_n, 1).reshape(h.shape), np.stack(c_n, 1).reshape(c.shape)

    return Engine(to_numpy, forward, torch.as_tensor, size)


def _load(net: Any, request: BuildRequest) -> int:
    """Convert the stack and load it into the net; returns the bytes of its weights.

    Raises:
        UnsupportedError: the runtime cannot read what the converter wrote.
    """
    lstm, pnnx = request.model.lstm, import_module("pnnx")
    state = torch.zeros(lstm.num_layers * (1 + lstm.bidirectional), 1, lstm.hidden_size)
    first, second = ((torch.zeros(*shape, lstm.input_size), state, state.clone()) for shape in TRACED)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lstm.pt"  # pnnx writes half a dozen files beside it
        with no_output():
            pnnx.export(request.model, str(path), first, second, fp16=False)
            failed = net.load_param(str(path.with_suffix(".ncnn.param"))) or net.load_model(str(_weights(path)))
        if failed:
            raise UnsupportedError("ncnn cannot read what pnnx wrote")
        return _weights(path).stat().st_size


def _weights(path: Path) -> Path:
    return path.with_suffix(".ncnn.bin")
