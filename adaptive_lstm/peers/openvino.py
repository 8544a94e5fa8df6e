"""OpenVINO: float32, bfloat16 if the processor has it, and int8 by the project's own quantizer, nncf."""

import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from ..errors import UnsupportedError
from .contender import BuildRequest, Engine, ExplicitStateLSTM
from .onnx_export import export
from .onnxruntime_ import to_numpy
from .silence import no_output

MAX_SHAPES = 8  # input shapes compiled separately, which is faster; all others share one graph of dynamic shapes
CALIBRATED = 128  # pieces of sequences that the int8 ranges are measured on
PIECE = 16  # timesteps of a piece


def fp32(request: BuildRequest) -> Engine:
    return _compiled(request, _graph(request.model), "f32")


def bf16(request: BuildRequest) -> Engine:
    if "BF16" not in import_module("openvino").Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise UnsupportedError("this processor has no bf16 instructions; OpenVINO would emulate them")
    return _compiled(request, _graph(request.model), "bf16")


def int8(request: BuildRequest) -> Engine:
    """``nncf.quantize``: 8-bit weights, x and h, with ranges measured on real inputs and their states.

    Two silent failures are avoided here. nncf finds weights only if the nodes that the exporter leaves between them and
    the LSTM are folded; otherwise everything stays float32. And the LSTM has one range for x and h: it reads and writes
    h in the range of x, which scales the states by the ratio of the two ranges unless they are made equal.

    Raises:
        UnsupportedError: no inputs to calibrate on, or the LSTM was left in float32.
    """
    if not request.inputs:
        raise UnsupportedError("OpenVINO int8 needs calibration: give inputs of the LSTM, inputs=[...]")
    nncf, passes = import_module("nncf"), import_module("openvino.passes")
    graph = _graph(request.model)
    folding = passes.Manager()
    folding.register_pass(passes.ConstantFolding())
    folding.run_passes(graph)
    pieces = list(_pieces(request))
    with no_output():  # it prints tables and progress bars
        graph = nncf.quantize(graph, nncf.Dataset(pieces), subset_size=len(pieces))
    _share_ranges(graph)
    constants = [node for node in graph.get_ops() if node.get_type_name() == "Constant"]
    if "i8" not in {str(node.get_element_type().get_type_name()) for node in constants}:
        raise UnsupportedError("nncf left the LSTM in float32")
    return _compiled(request, graph, "f32")


def _graph(model: ExplicitStateLSTM) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        return import_module("openvino").Core().read_model(export(model, Path(folder)).read_bytes(), b"")


def _compiled(request: BuildRequest, graph: Any, hint: str) -> Engine:
    core = import_module("openvino").Core()
    limits = {"INFERENCE_NUM_THREADS": request.threads, "INFERENCE_PRECISION_HINT": hint}
    requests: dict[tuple[int, ...], Any] = {}

    def infer_request_for(x: Any, h: Any, c: Any) -> Any:
        key = x.shape if len(requests) < MAX_SHAPES else ()
        if key not in requests:
            fixed = graph.clone()
            if key:
                fixed.reshape({"x": list(x.shape), "h": list(h.shape), "c": list(c.shape)})
            requests[key] = core.compile_model(fixed, "CPU", limits).create_infer_request()
        return requests[key]

    def forward(x: Any, h: Any, c: Any) -> tuple[Any, Any, Any]:
        infer_request = requests.get(x.shape) or infer_request_for(x, h, c)
        # Outputs must be copies: the next call reads this h and c while it overwrites the request's own memory.
        out = infer_request.infer((x, h, c), share_inputs=True)
        return out[0], out[1], out[2]

    size = sum(node.get_byte_size() for node in graph.get_ops() if node.get_type_name() == "Constant")
    return Engine(to_numpy, forward, torch.as_tensor, size)


def _pieces(request: BuildRequest) -> Iterator[dict[str, Any]]:
    """Pieces of the inputs with the float32 states before them, because one range serves h at every timestep.

    A sequence starts in its own final state: nncf averages over pieces, and zeros would halve the range of h.
    """
    lstm, per_sequence = request.model.lstm, -(-CALIBRATED // len(request.inputs))
    zeros = torch.zeros(lstm.num_layers * (1 + lstm.bidirectional), 1, lstm.hidden_size)
    with torch.no_grad():
        for x in request.inputs[:CALIBRATED]:
            _, h, c = request.model(x, zeros, zeros)
            for piece in x.split(PIECE, dim=1)[:per_sequence]:
                yield {name: to_numpy(value) for name, value in (("x", piece), ("h", h), ("c", c))}
                _, h, c = request.model(piece, h, c)


def _share_ranges(graph: Any) -> None:
    """Give the quantizers of x and h of every LSTM the wider of their two ranges."""
    for node in graph.get_ops():
        if node.get_type_name() == "LSTMSequence":
            both = [_quantizer(node.input_value(port).get_node()) for port in (0, 1)]
            narrow, wide = sorted(both, key=lambda one: float(one.input_value(2).get_node().get_data().max()))
            for bound in range(1, 5):  # low and high, of the input and of the output
                narrow.input(bound).replace_source_output(wide.input_value(bound))


def _quantizer(node: Any) -> Any:
    """The FakeQuantize behind a node's first input, past changes of layout."""
    while node.get_type_name() != "FakeQuantize":
        if not node.get_input_size():
            raise UnsupportedError("nncf left the LSTM in float32")
        node = node.input_value(0).get_node()
    return node
