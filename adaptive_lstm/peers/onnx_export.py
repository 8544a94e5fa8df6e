"""The way into ONNX Runtime and OpenVINO: one ONNX graph with a free batch size and length."""

from importlib import import_module
from pathlib import Path

import torch

from ..errors import UnsupportedError
from .contender import Carried
from .silence import quiet


def export(model: Carried, folder: Path) -> Path:
    """Write the graph with inputs x, h, c and outputs y, hn, cn; returns its path.

    Raises:
        UnsupportedError: the stack has a projection, which ONNX's LSTM has not.
    """
    lstm, path = model.lstm, folder / "lstm.onnx"
    if lstm.proj_size:
        raise UnsupportedError("the LSTM of ONNX has no projection (proj_size)")
    state = torch.zeros(lstm.num_layers * (1 + lstm.bidirectional), 1, lstm.hidden_size)
    import_module("onnx")  # the exporter needs it and names it less clearly
    with quiet():
        torch.onnx.export(
            model,
            (torch.zeros(1, 2, lstm.input_size), state, state.clone()),
            str(path),
            input_names=["x", "h", "c"],
            output_names=["y", "hn", "cn"],
            dynamic_axes={"x": {0: "B", 1: "T"}, "h": {1: "B"}, "c": {1: "B"}},
            dynamo=False,
        )
    return path
