"""Export to ONNX, for ONNX Runtime and OpenVINO: one graph with a dynamic batch size and length."""

from importlib import import_module
from pathlib import Path

import torch

from ..errors import UnsupportedError
from .contender import ExplicitStateLSTM
from .silence import no_warnings


def export(model: ExplicitStateLSTM, folder: Path) -> Path:
    """Write the graph with inputs x, h, c and outputs y, hn, cn into a folder; returns its path.

    Raises:
        UnsupportedError: the stack has a projection; ONNX's LSTM has none.
    """
    lstm, path = model.lstm, folder / "lstm.onnx"
    if lstm.proj_size:
        raise UnsupportedError("the LSTM of ONNX has no projection (proj_size)")
    state = torch.zeros(lstm.num_layers * (1 + lstm.bidirectional), 1, lstm.hidden_size)
    import_module("onnx")  # the exporter needs it; its own message is less clear
    with no_warnings():
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
