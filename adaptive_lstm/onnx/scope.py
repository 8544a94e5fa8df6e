"""What the names in a graph mean: which node makes each value, and which values are constants."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ModelFileError, UnsupportedError
from .packages import need

if TYPE_CHECKING:
    from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

Array = np.ndarray[Any, Any]

MOVES = frozenset({"Identity", "Squeeze", "Unsqueeze", "Transpose", "Reshape", "Flatten"})
"""Operators that put the values of their first input elsewhere and change none."""

_FOLDED = frozenset(
    {"Add", "Sub", "Mul", "Div", "Equal", "Cast", "Constant", "ConstantOfShape", "DequantizeLinear", "Concat", "Expand"}
    | {"Gather", "Slice", "Split", "Tile"}
    | MOVES
)
_SPREAD = MOVES | {"Cast", "Expand", "Slice", "Split", "Tile", "Gather"}  # of zeros they make zeros


def read(path: str | os.PathLike[str] | bytes) -> ModelProto:
    """The model in a file, or in the bytes of one, with its local functions written out.

    Raises:
        UnsupportedError: the package onnx is missing.
        ModelFileError: it cannot be read, or holds no graph.
    """
    onnx, decode_error = need("onnx"), need("google.protobuf.message").DecodeError
    name = "the bytes given" if isinstance(path, bytes) else os.fspath(path)
    try:
        model: ModelProto = onnx.load_model_from_string(path) if isinstance(path, bytes) else onnx.load(name)
    except OSError as error:
        raise ModelFileError(f"{name} cannot be read: {error.strerror or error}") from error
    except (decode_error, ValueError) as error:
        raise ModelFileError(f"{name} is no ONNX file: {error}") from error
    if not model.graph.node:
        raise ModelFileError(f"{name} is no ONNX file with a graph: it holds no node")
    return need("onnx.inliner").inline_local_functions(model) if model.functions else model


class Scope:
    """A graph, inside the graphs around it.

    Args:
        graph: the main graph, or the body of an If, a Loop or a Scan.
        opsets: of the model.
        outer: the scope around it; None: this is the main graph.
    """

    def __init__(self, graph: GraphProto, opsets: Iterable[Any], outer: Scope | None = None):
        self.graph, self.opsets, self.outer = graph, list(opsets), outer
        if graph.sparse_initializer:
            raise UnsupportedError(f"graph {graph.name!r}: sparse initializers are not supported, expected dense ones")
        self.initializers: dict[str, TensorProto] = {t.name: t for t in graph.initializer}
        self.makers: dict[str, NodeProto] = {name: node for node in graph.node for name in node.output if name}
        self.inputs = {i.name for i in graph.input} - self.initializers.keys()
        self._constants: dict[str, Array | None] = {}

    def home(self, name: str) -> Scope | None:
        """The innermost scope that has a value of this name."""
        if name in self.initializers or name in self.makers or name in self.inputs:
            return self
        return None if self.outer is None else self.outer.home(name)

    def constant(self, name: str) -> Array | None:
        """The value of a name that is the same in every run; None if it is not."""
        home = self.home(name)
        if home is not self:
            return None if home is None else home.constant(name)
        if name not in self._constants:
            self._constants[name] = self._folded(name)
        return self._constants[name]

    def _folded(self, name: str) -> Array | None:
        if name in self.initializers:
            return need("onnx.numpy_helper").to_array(self.initializers[name])  # type: ignore[no-any-return]
        node = self.makers.get(name)
        if node is None or node.domain not in ("", "ai.onnx") or node.op_type not in _FOLDED:
            return None
        given = {i: self.constant(i) for i in node.input if i}
        if any(value is None for value in given.values()):
            return None
        return evaluate([node], given, name, self.opsets)

    def initializer(self, name: str) -> TensorProto | None:
        """A value that the graphs state as it is; None if they compute or receive it."""
        home = self.home(name)
        if home is not self:
            return None if home is None else home.initializer(name)
        if name in self.initializers:
            return self.initializers[name]
        maker = self.makers.get(name)
        if maker is None or maker.op_type != "Constant":
            return None
        return need("onnx.numpy_helper").from_array(self.constant(name), name)  # type: ignore[no-any-return]

    def zero(self, name: str) -> bool:
        """Whether a value is zero everywhere in every run, whatever its size."""
        home = self.home(name)
        if home is not self:
            return home is not None and home.zero(name)
        node = self.makers.get(name)
        if node is not None and node.op_type == "ConstantOfShape":
            return not any(need("onnx.numpy_helper").to_array(a.t).any() for a in node.attribute if a.name == "value")
        if node is not None and node.op_type in _SPREAD and self.zero(node.input[0]):
            return True
        if node is not None and node.op_type == "Concat" and all(self.zero(i) for i in node.input):
            return True
        value = self.constant(name)
        return value is not None and not value.any()

    @functools.cached_property
    def fixed_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the values of this graph for which the file states nothing but numbers."""
        stated = {v.name: v.type.tensor_type.shape.dim for v in (*self.graph.value_info, *self.graph.output)}
        return {
            name: tuple(d.dim_value for d in dims)
            for name, dims in stated.items()
            if dims and all(d.HasField("dim_value") and d.dim_value > 0 for d in dims)
        }

    @functools.cached_property
    def inner(self) -> list[tuple[NodeProto, Scope]]:
        """The scopes of the bodies in this graph, each with the node that holds it."""
        found = [(node, body) for node in self.graph.node for a in node.attribute for body in bodies(a)]
        return [(node, Scope(body, self.opsets, self)) for node, body in found]


def evaluate(nodes: Iterable[NodeProto], given: Any, name: str, opsets: Iterable[Any]) -> Array:
    """One output of some nodes, in order, computed by the reference implementation of the onnx package."""
    helper, reference = need("onnx.helper"), need("onnx.reference")
    nodes = list(nodes)
    inputs = [helper.make_empty_tensor_value_info(i) for i in given]
    graph = helper.make_graph(nodes, "part", inputs, [helper.make_empty_tensor_value_info(name)])
    model = helper.make_model(graph, opset_imports=opsets)
    return np.asarray(reference.ReferenceEvaluator(model).run([name], given)[0])


def bodies(attribute: AttributeProto) -> list[GraphProto]:
    """The graphs that an attribute holds."""
    return [attribute.g, *attribute.graphs] if attribute.HasField("g") else list(attribute.graphs)


def reads(node: NodeProto) -> set[str]:
    """The values that a node reads, those around it that its bodies read included."""
    found = {name for name in node.input if name}
    for attribute in node.attribute:
        for body in bodies(attribute):
            found |= captured(body)
    return found


def captured(body: GraphProto) -> set[str]:
    """The values that a body reads from the graphs around it."""
    made = {i.name for i in body.input} | {t.name for t in body.initializer}
    found = {name for node in body.node for name in reads(node)} | {o.name for o in body.output}
    return found - made - {name for node in body.node for name in node.output}
