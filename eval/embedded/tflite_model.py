"""A stack as a model of TensorFlow Lite: one UNIDIRECTIONAL_SEQUENCE_LSTM per layer, of one timestep."""

from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
from torch import nn

from .int8 import CELL_POWER, GATES, HIDDEN_BITS, Gate

INPUTS = 24  # of the operator; most are optional and left out
OF_INPUT, OF_HIDDEN, BIAS, HIDDEN, CELL = 1, 5, 12, 18, 19  # where they begin among these
TANH, VERSION = 4, 3


class Writer:
    """Collects tensors and operators of a graph; ``schema``: the module that FlatBuffers made of the format."""

    def __init__(self, schema: ModuleType) -> None:
        self.schema = schema
        self.buffers: list[Any] = [schema.BufferT()]
        self.tensors: list[Any] = []
        self.operators: list[Any] = []

    def tensor(self, shape: tuple[int, ...], dtype: Any, scale: float | None, **more: Any) -> int:
        """The index of a new tensor without values."""
        kinds = {"float32": "FLOAT32", "int8": "INT8", "int16": "INT16", "int32": "INT32"}
        one = self.schema.TensorT()
        one.shape, one.type, one.buffer = list(shape), getattr(self.schema.TensorType, kinds[np.dtype(dtype).name]), 0
        one.name = f"t{len(self.tensors)}"
        if scale is not None:
            one.quantization = self.schema.QuantizationParametersT()
            one.quantization.scale, one.quantization.zeroPoint = [scale], [0]
        for key, value in more.items():
            setattr(one, key, value)
        self.tensors.append(one)
        return len(self.tensors) - 1

    def constant(self, values: np.ndarray, scale: float | None) -> int:
        """The index of a new tensor with values."""
        buffer = self.schema.BufferT()
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        self.buffers.append(buffer)
        return self.tensor(values.shape, values.dtype, scale, buffer=len(self.buffers) - 1)

    def lstm(self, inputs: dict[int, int], output: int) -> None:
        """An operator."""
        one, options = self.schema.OperatorT(), self.schema.UnidirectionalSequenceLSTMOptionsT()
        options.fusedActivationFunction, options.timeMajor = TANH, True
        one.inputs, one.outputs = [inputs.get(k, -1) for k in range(INPUTS)], [output]
        one.builtinOptionsType = self.schema.BuiltinOptions.UnidirectionalSequenceLSTMOptions
        one.builtinOptions = options
        self.operators.append(one)

    def bytes(self, given: int, output: int) -> bytes:
        """The file."""
        flatbuffers = import_module("flatbuffers")
        code, graph, model = self.schema.OperatorCodeT(), self.schema.SubGraphT(), self.schema.ModelT()
        code.builtinCode = code.deprecatedBuiltinCode = self.schema.BuiltinOperator.UNIDIRECTIONAL_SEQUENCE_LSTM
        code.version = VERSION
        graph.tensors, graph.operators, graph.inputs, graph.outputs = self.tensors, self.operators, [given], [output]
        model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], self.buffers
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def float_model(schema: ModuleType, lstm: nn.LSTM) -> bytes:
    """In float32."""
    writer = Writer(schema)
    given = x = writer.tensor((1, 1, lstm.input_size), np.float32, None)
    for layer in range(lstm.num_layers):
        w, u, b, d = (
            np.split(getattr(lstm, f"{name}_l{layer}").detach().numpy(), GATES)
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        matrices = [(w[k], None, u[k], None, b[k] + d[k], None) for k in range(GATES)]
        x = _layer(writer, x, lstm.hidden_size, matrices, (np.float32, None), (np.float32, None))
    return writer.bytes(given, x)


def int8_model(schema: ModuleType, layers: tuple[tuple[Gate, ...], ...]) -> bytes:
    """In int8."""
    writer = Writer(schema)
    first = layers[0][0]
    given = x = writer.tensor((1, 1, first.input.shape[1]), np.int8, first.x_scale)
    for layer in layers:
        matrices = [(g.input, g.input_scale, g.hidden, g.hidden_scale, g.bias, g.bias_scale) for g in layer]
        units = len(first.bias)
        x = _layer(writer, x, units, matrices, (np.int8, 2.0**-HIDDEN_BITS), (np.int16, 2.0**CELL_POWER))
    return writer.bytes(given, x)


def _layer(writer: Writer, x: int, units: int, gates: list[tuple[Any, ...]], h: tuple[Any, Any],
           c: tuple[Any, Any]) -> int:  # fmt: skip
    """The index of a layer's outputs; h, c: type and scale."""
    inputs = {0: x}
    for k, (w, w_scale, u, u_scale, bias, bias_scale) in enumerate(gates):
        inputs[OF_INPUT + k] = writer.constant(w, w_scale)
        inputs[OF_HIDDEN + k] = writer.constant(u, u_scale)
        inputs[BIAS + k] = writer.constant(bias, bias_scale)
    inputs[HIDDEN] = writer.tensor((1, units), *h, isVariable=True)
    inputs[CELL] = writer.tensor((1, units), *c, isVariable=True)
    y = writer.tensor((1, 1, units), *h)
    writer.lstm(inputs, y)
    return y
