"""Graphs made node by node, and what ONNX Runtime or the reference implementation of ONNX computes for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

Array = np.ndarray[Any, Any]
FLOAT = onnx.TensorProto.FLOAT
T, B, I, H = 7, 3, 5, 8  # noqa: E741 (the letter of the input size)


def uniform(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, shape).astype(np.float32)


def weights(directions: int, width: int, hidden: int, seed: int = 0) -> dict[str, Array]:
    """W, R and B of a node."""
    sizes = {"W": (directions, 4 * hidden, width), "R": (directions, 4 * hidden, hidden), "B": (directions, 8 * hidden)}
    return {kind: uniform(*shape, seed=seed + n) for n, (kind, shape) in enumerate(sizes.items())}


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[int | str | None]],
    outputs: Sequence[str],
    initializers: Mapping[str, Array],
    *,
    types: Mapping[str, int] | None = None,
    opset: int = 22,
) -> bytes:
    """The bytes of an ONNX file; inputs are float32 where ``types`` says nothing else."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, (types or {}).get(name, FLOAT), shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, (types or {}).get(name, FLOAT), None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in initializers.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return bytes(made.SerializeToString())


def one_node(
    direction: str = "forward",
    *,
    layout: int = 0,
    biases: bool = True,
    states: bool = False,
    lengths: bool = False,
    outputs: Sequence[str] = ("Y", "Y_h", "Y_c"),
    name: str = "rnn",
    seed: int = 0,
    **attributes: Any,
) -> bytes:
    """A file of one LSTM node with the inputs X and, if wanted, lengths, h and c."""
    d = 2 if direction == "bidirectional" else 1
    if layout:
        attributes["layout"] = layout
    values = weights(d, I, H, seed)
    if not biases:
        del values["B"]
    given = ["X", "W", "R", "B" if biases else "", "lengths" if lengths else "", *(("h", "c") if states else ())]
    node = helper.make_node(
        "LSTM",
        given,
        [kind if kind in outputs else "" for kind in ("Y", "Y_h", "Y_c")],
        name=name,
        hidden_size=H,
        direction=direction,
        **attributes,
    )
    inputs: dict[str, Sequence[int | str | None]] = {"X": ("batch", "time", I) if layout else ("time", "batch", I)}
    if lengths:
        inputs["lengths"] = ("batch",)
    if states:
        inputs |= dict.fromkeys(("h", "c"), ("batch", d, H) if layout else (d, "batch", H))
    types = {"lengths": int(onnx.TensorProto.INT32)}
    return model([node], inputs, outputs, values, types=types)


def feed_of(data: bytes, seed: int = 5) -> dict[str, Array]:
    """Inputs for a file of ``one_node``, of T timesteps and B rows."""
    sizes: dict[str | int, int] = {"batch": B, "time": T}
    feed: dict[str, Array] = {}
    for n, one in enumerate(onnx.load_model_from_string(data).graph.input):
        shape = [sizes[d.dim_param] if d.dim_param else d.dim_value for d in one.type.tensor_type.shape.dim]
        feed[one.name] = uniform(*shape, seed=seed + n) * 2
    if "lengths" in feed:
        feed["lengths"] = np.array([T, 2, 4], np.int32)
    return feed


def by_runtime(data: bytes, feed: Mapping[str, Array], names: Sequence[str] | None = None) -> list[Array]:
    """What ONNX Runtime computes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return list(session.run(names, dict(feed)))


def by_reference(data: bytes, feed: Mapping[str, Array]) -> list[Array]:
    """What the reference implementation of ONNX computes: it knows layout 1, but no lengths."""
    return list(ReferenceEvaluator(onnx.load_model_from_string(data)).run(None, dict(feed)))
