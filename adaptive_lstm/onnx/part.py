"""What lies between the LSTMs of a graph: nodes that ONNX Runtime runs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from ..errors import UnsupportedError
from ..execution.threads import get_num_threads
from .packages import need
from .scope import Array

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto

OLDEST_IR = 8  # of the files that are made here
_QUIET = 3  # the log level of ONNX Runtime that leaves warnings out


class Part:
    """A graph of its own, run by ONNX Runtime with as many threads as ``adaptive_lstm.get_num_threads`` says.

    It never changes, so that copies of a model share it; pickled it is the graph.

    Args:
        data: the bytes of an ONNX file.
    """

    __slots__ = ("_data", "_sessions", "inputs", "outputs", "types")

    def __init__(self, data: bytes):
        self._data = data
        self._sessions: dict[int, Any] = {}
        session = self._session()
        self.inputs = tuple(one.name for one in session.get_inputs())
        self.outputs = tuple(one.name for one in session.get_outputs())
        self.types = {one.name: str(one.type) for one in session.get_outputs()}

    def run(self, values: Mapping[str, Any]) -> dict[str, Array]:
        """Its outputs; ``values`` holds at least its inputs, as arrays or tensors."""
        feed = {name: as_array(values[name]) for name in self.inputs}
        return dict(zip(self.outputs, self._session().run(self.outputs, feed), strict=True))

    def digest(self) -> bytes:
        """SHA-256 of the graph."""
        return hashlib.sha256(self._data).digest()

    def _session(self) -> Any:
        threads = get_num_threads()
        found = self._sessions.get(threads)
        if found is None:
            ort = need("onnxruntime")
            options = ort.SessionOptions()
            options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
            options.log_severity_level = _QUIET
            # Threads that wait in a loop would take the cores from the LSTMs.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            found = ort.InferenceSession(self._data, options, providers=["CPUExecutionProvider"])
            self._sessions[threads] = found
        return found

    def __deepcopy__(self, memo: dict[int, Any]) -> Part:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Part, (self._data,)


def as_array(value: Any) -> Any:
    """A tensor as an array; anything else as it is."""
    if not isinstance(value, torch.Tensor):
        return value
    return value.detach().numpy() if value.requires_grad else value.numpy()


def part_of(
    nodes: Sequence[NodeProto],
    inputs: Mapping[str, str],
    outputs: Sequence[str],
    constants: Sequence[TensorProto],
    opsets: Sequence[Any],
) -> Part:
    """The part that consists of some nodes.

    Args:
        nodes: in an order in which they can run.
        inputs: values that are given to them, with their types as ONNX Runtime writes them ("tensor(float)").
        outputs: values that they give.
        constants: values that are in the file.
        opsets: of the model.

    Raises:
        UnsupportedError: an input is no tensor.
    """
    helper = need("onnx.helper")
    given = [helper.make_tensor_value_info(name, element_type(name, kind), None) for name, kind in inputs.items()]
    wanted = [helper.make_empty_tensor_value_info(name) for name in outputs]
    graph = helper.make_graph(nodes, "part", given, wanted, constants)
    version = max(helper.find_min_ir_version_for(opsets, ignore_unknown=True), OLDEST_IR)
    return Part(helper.make_model(graph, opset_imports=opsets, ir_version=version).SerializeToString())


def element_type(name: str, kind: str) -> int:
    """The number of a type that ONNX Runtime writes as "tensor(float)".

    Raises:
        UnsupportedError: it is no type of tensors.
    """
    if not kind.startswith("tensor("):
        raise UnsupportedError(f"value {name}: got the type {kind}, expected tensors between the LSTMs of a graph")
    return int(need("onnx").TensorProto.DataType.Value(kind[len("tensor(") : -1].upper()))


def type_name(number: int) -> str:
    """As ONNX Runtime writes the type of tensors of this element type."""
    return f"tensor({need('onnx').TensorProto.DataType.Name(number).lower()})"
