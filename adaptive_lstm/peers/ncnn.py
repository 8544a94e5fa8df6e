"""ncnn, by its own converter pnnx: float32, one sequence at a time, for the runtime has no batches of sequences."""

import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import UnsupportedError
from .contender import Engine, Order
from .onnxruntime_ import to_numpy
from .silence import silent

TRACED = ((1, 8), (1, 5))  # batch and length that the converter sees: a length that varies becomes a free one


def fp32(order: Order) -> Engine:
    lstm = order.model.lstm
    if lstm.proj_size:
        raise UnsupportedError("pnnx converts no LSTM with a projection (proj_size)")
    net = import_module("ncnn").Net()
    mat, net.opt.num_threads = import_module("ncnn").Mat, order.threads
    size = _load(net, order)

    def one(x: Any, h: Any, c: Any) -> list[Any]:
        """x [T, I], h and c [D * L, H]; the matrices look at these arrays, which must outlive the call."""
        extractor = net.create_extractor()
        for name, array in (("in0", x), ("in1", h), ("in2", c)):
            extractor.input(name, mat(array))
        return [np.array(extractor.extract(name)[1]) for name in ("out0", "out1", "out2")]

    def forward(x: Any, h: Any, c: Any) -> tuple[Any, Any, Any]:
        rows = [one(x[b], np.ascontiguousarray(h[:, b]), np.ascontiguousarray(c[:, b])) for b in range(len(x))]
        y, h_n, c_n = zip(*rows, strict=True)
        return np.stack(y), np.stack(h_n, 1).reshape(h.shape), np.stack(c_n, 1).reshape(c.shape)

    return Engine(to_numpy, forward, torch.as_tensor, size)


def _load(net: Any, order: Order) -> int:
    """Convert the stack and read it into the net; returns the size of its weights in bytes.

    Raises:
        UnsupportedError: the converter made nothing that the runtime reads.
    """
    lstm, pnnx = order.model.lstm, import_module("pnnx")
    state = torch.zeros(lstm.num_layers * (1 + lstm.bidirectional), 1, lstm.hidden_size)
    first, second = ((torch.zeros(*shape, lstm.input_size), state, state.clone()) for shape in TRACED)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lstm.pt"  # pnnx writes half a dozen files beside it
        with silent():
            pnnx.export(order.model, str(path), first, second, fp16=False)
            failed = net.load_param(str(path.with_suffix(".ncnn.param"))) or net.load_model(str(_weights(path)))
        if failed:
            raise UnsupportedError("pnnx has written nothing that ncnn reads")
        return _weights(path).stat().st_size


def _weights(path: Path) -> Path:
    return path.with_suffix(".ncnn.bin")
