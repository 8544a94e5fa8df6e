"""OpenVINO: float32, bfloat16 where the processor has it, and int8 by the quantizer of its own project, nncf."""

import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from ..errors import UnsupportedError
from .contender import Carried, Engine, Order
from .onnx_export import export
from .onnxruntime_ import to_numpy
from .silence import silent

SHAPES = 8  # input shapes compiled for themselves, which is faster; all others share one graph of free shapes
CALIBRATED = 128  # pieces of sequences that int8 takes its ranges from
PIECE = 16  # timesteps in one of them


def fp32(order: Order) -> Engine:
    return _compiled(order, _graph(order.model), "f32")


def bf16(order: Order) -> Engine:
    if "BF16" not in import_module("openvino").Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise UnsupportedError("this processor has no bf16 instructions; OpenVINO would emulate them")
    return _compiled(order, _graph(order.model), "bf16")


def int8(order: Order) -> Engine:
    """``nncf.quantize``: 8-bit weights, x and h, with ranges from real inputs and the states that they lead to.

    Two things go wrong without a word unless they are seen to. nncf finds weights only where the nodes are folded that
    the exporter leaves between them and the LSTM; else all of it stays in float32. And the LSTM knows one range for x
    and h: it reads and writes h in that of x, so states come out too small by the ratio of both unless they are equal.

    Raises:
        UnsupportedError: there are no inputs to calibrate on, or the LSTM was left in float32.
    """
    if not order.inputs:
        raise UnsupportedError("int8 in OpenVINO is calibrated: give inputs of the LSTM, inputs=[...]")
    nncf, passes = import_module("nncf"), import_module("openvino.passes")
    graph = _graph(order.model)
    folding = passes.Manager()
    folding.register_pass(passes.ConstantFolding())
    folding.run_passes(graph)
    pieces = list(_pieces(order))
    with silent():  # it draws tables and progress bars
        graph = nncf.quantize(graph, nncf.Dataset(pieces), subset_size=len(pieces))
    _share_ranges(graph)
    if "i8" not in {_type(node) for node in graph.get_ops() if node.get_type_name() == "Constant"}:
        raise UnsupportedError("nncf left the LSTM in float32")
    return _compiled(order, graph, "f32")


def _graph(model: Carried) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        return import_module("openvino").Core().read_model(export(model, Path(folder)).read_bytes(), b"")


def _compiled(order: Order, graph: Any, hint: str) -> Engine:
    core = import_module("openvino").Core()
    limits = {"INFERENCE_NUM_THREADS": order.threads, "INFERENCE_PRECISION_HINT": hint}
    requests: dict[tuple[int, ...], Any] = {}

    def request_for(x: Any, h: Any, c: Any) -> Any:
        key = x.shape if len(requests) < SHAPES else ()
        if key not in requests:
            fixed = graph.clone()
            if key:
                fixed.reshape({"x": list(x.shape), "h": list(h.shape), "c": list(c.shape)})
            requests[key] = core.compile_model(fixed, "CPU", limits).create_infer_request()
        return requests[key]

    def forward(x: Any, h: Any, c: Any) -> tuple[Any, Any, Any]:
        request = requests.get(x.shape) or request_for(x, h, c)
        # Outputs are copies: the next call reads this h and c while it overwrites the request's own memory.
        out = request.infer((x, h, c), share_inputs=True)
        return out[0], out[1], out[2]

    size = sum(node.get_byte_size() for node in graph.get_ops() if node.get_type_name() == "Constant")
    return Engine(to_numpy, forward, torch.as_tensor, size)


def _pieces(order: Order) -> Iterator[dict[str, Any]]:
    """Pieces of the inputs with the states in which float32 comes to them: one range serves h at every timestep.

    A sequence begins in the state that it ends in: nncf averages over pieces, and zeros would halve the range of h.
    """
    lstm, each = order.model.lstm, -(-CALIBRATED // len(order.inputs))
    zeros = torch.zeros(lstm.num_layers * (1 + lstm.bidirectional), 1, lstm.hidden_size)
    with torch.no_grad():
        for x in order.inputs[:CALIBRATED]:
            _, h, c = order.model(x, zeros, zeros)
            for piece in x.split(PIECE, dim=1)[:each]:
                yield {name: to_numpy(value) for name, value in (("x", piece), ("h", h), ("c", c))}
                _, h, c = order.model(piece, h, c)


def _share_ranges(graph: Any) -> None:
    """Give the quantizers of x and of h of every LSTM the wider of their two ranges."""
    for node in graph.get_ops():
        if node.get_type_name() == "LSTMSequence":
            pair = [_quantizer(node.input_value(port).get_node()) for port in (0, 1)]
            narrow, wide = sorted(pair, key=lambda one: float(one.input_value(2).get_node().get_data().max()))
            for bound in range(1, 5):  # low and high, of the input and of the output
                narrow.input(bound).replace_source_output(wide.input_value(bound))


def _quantizer(node: Any) -> Any:
    """The FakeQuantize that a node's first input comes from, past changes of layout."""
    while node.get_type_name() != "FakeQuantize":
        if not node.get_input_size():
            raise UnsupportedError("nncf left the LSTM in float32")
        node = node.input_value(0).get_node()
    return node


def _type(node: Any) -> str:
    return str(node.get_element_type().get_type_name())
