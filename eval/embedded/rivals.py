"""Other runtimes with the same LSTM: what they are built from, and what a step of theirs takes. They are optional.

emx-onnx-cgen   from PyPI: C from ONNX; int8 as ``quantize_dynamic`` of ONNX Runtime leaves it
CMSIS-NN        a checkout with a library for every processor, build-m4/libcmsis-nn.a: its int8 LSTM, one layer a call
tflite-micro    a checkout with the release library of the target cortex_m_generic for every processor, where its own
                Makefile puts it, and reference kernels: its interpreter
"""

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from adaptive_lstm.errors import UnsupportedError
from adaptive_lstm.export.targets import TARGETS
from adaptive_lstm.peers.contender import ExplicitStateLSTM
from adaptive_lstm.peers.onnx_export import export
from adaptive_lstm.peers.silence import no_warnings
from eval.shared.common import TOLERANCE

from . import int8, tflite_model
from .board import FLAGS, HERE, emulate, flash, link, run, write_board
from .literals import golden

MICRO = {"m4": "cortex-m4+fp", "m7": "cortex-m7+fp", "m55": "cortex-m55"}  # as tflite-micro names them


@dataclass(frozen=True)
class Order:
    """One program to write: an LSTM and its inputs [T, I] in a precision, for a target, into a folder.

    ``source``: the checkout, where a rival needs one.
    """

    lstm: nn.LSTM
    x: np.ndarray
    precision: str
    target: str
    folder: str
    source: Path


@dataclass(frozen=True)
class Program:
    """Sources, objects and options for the linker; ``weights``: bytes of constants among them."""

    parts: tuple[str, ...]
    weights: int


def emx_onnx_cgen(order: Order) -> Program:
    """One timestep; states are inputs and outputs."""
    graph = export(ExplicitStateLSTM(order.lstm), Path(order.folder))
    if order.precision == "int8":
        floats, graph = graph, graph.with_suffix(".int8.onnx")
        quantization = import_module("onnxruntime.quantization")
        with no_warnings():
            quantization.quantize_dynamic(floats, graph, weight_type=quantization.QuantType.QInt8)
    for name, text in _generated(_of_one_step(graph)).items():
        (Path(order.folder) / name).write_text(text, encoding="utf-8")
    target = TARGETS[order.target]
    run([f"{target.compiler}gcc", *target.flags, *FLAGS, "-c", "model_data.c", "-o", "model_data.o"], order.folder)
    return Program(
        (str(HERE / "emx_onnx_cgen.c"), "model.c", "model_data.o"), flash(target, "model_data.o", order.folder)
    )


def _of_one_step(graph: Path) -> bytes:
    """The graph with the sizes of one batch row and one timestep; quantization leaves some of its outputs without."""
    onnx = import_module("onnx")
    model = onnx.load(graph)
    for value in (*model.graph.input, *model.graph.value_info, *model.graph.output):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param:
                size.dim_value = 1
    found: bytes = model.SerializeToString()
    return found


@cache
def _generated(graph: bytes) -> dict[str, str]:
    """The C files of a graph, which are the same for all targets."""
    options = ["--model-name", "model", "--emit-data-file", "--large-temp-threshold", "0",
               "--large-weight-threshold", "0"]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "model.onnx").write_bytes(graph)
        run([sys.executable, "-m", "emx_onnx_cgen", "compile", "model.onnx", "model.c", *options], folder)
        return {name: (Path(folder) / name).read_text(encoding="utf-8") for name in ("model.c", "model_data.c")}


def cmsis_nn(order: Order) -> Program:
    """One layer a call."""
    layers = int8.quantized(order.lstm, order.x)
    (Path(order.folder) / "int8.h").write_text(int8.header(layers), encoding="utf-8")
    source = order.source.resolve()
    library = _library("CMSIS-NN", source / f"build-{order.target}/libcmsis-nn.a")
    weights = sum(gate.nbytes for layer in layers for gate in layer)
    return Program((str(HERE / "cmsis_nn.c"), f"-I{source / 'Include'}", library), weights)


def tflite_micro(order: Order) -> Program:
    """The interpreter with one operator; weights: the model's file."""
    source = order.source.resolve()
    made = source / f"gen/cortex_m_generic_{MICRO[order.target]}_release_gcc"
    library = _library("tflite-micro", made / "lib/libtensorflow-microlite.a")
    schema = _module(source / "tensorflow/lite/python/schema_py_generated.py")
    if order.precision == "int8":
        model = tflite_model.int8_model(schema, int8.quantized(order.lstm, order.x))
    else:
        model = tflite_model.float_model(schema, order.lstm)
    values = ", ".join(map(str, model))
    text = f"const unsigned char tflite_model[] __attribute__((aligned(16))) = {{{values}}};\n"
    (Path(order.folder) / "tflite_model.c").write_text(text, encoding="utf-8")
    (Path(order.folder) / "tflite_micro.o").write_bytes(_interpreter(order.target, source))
    return Program(("tflite_micro.o", "tflite_model.c", library, "-lstdc++"), len(model))


@cache
def _interpreter(name: str, source: Path) -> bytes:
    """The object that calls tflite-micro, which is the same for all models."""
    target, downloads = TARGETS[name], source / "tensorflow/lite/micro/tools/make/downloads"
    places = (source, downloads / "flatbuffers/include", downloads / "gemmlowp", downloads / "ruy", HERE)
    language = ["-std=c++17", "-fno-exceptions", "-fno-rtti", "-fno-threadsafe-statics", "-DTF_LITE_STATIC_MEMORY",
                "-DTF_LITE_STRIP_ERROR_STRINGS", "-DNDEBUG"]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        run([f"{target.compiler}g++", *target.flags, *FLAGS, *language, *(f"-I{place}" for place in places),
             "-c", str(HERE / "tflite_micro.cc"), "-o", "out.o"], folder)  # fmt: skip
        return (Path(folder) / "out.o").read_bytes()


def _library(name: str, path: Path) -> str:
    if not path.exists():
        raise UnsupportedError(f"{name}: no library {path}; see eval/embedded/rivals.py")
    return str(path)


def _module(path: Path) -> Any:
    spec = spec_from_file_location("tflite_schema", path)
    if spec is None or spec.loader is None:
        raise UnsupportedError(f"tflite-micro: {path} is no module of Python")
    found = module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@dataclass(frozen=True)
class Rival:
    """How it is built, and the precisions in which it has an LSTM."""

    program: Callable[[Order], Program]
    precisions: tuple[str, ...]


RIVALS = {
    "CMSIS-NN": Rival(cmsis_nn, ("int8",)),
    "emx-onnx-cgen": Rival(emx_onnx_cgen, ("fp32", "int8")),
    "tflite-micro": Rival(tflite_micro, ("fp32", "int8")),
}


def present(checkouts: dict[str, Path | None]) -> dict[str, Path]:
    """The rivals that can be measured, and where their checkouts are."""
    found = {name: path for name, path in checkouts.items() if path is not None}
    installed = find_spec("emx_onnx_cgen") is not None
    return found | ({"emx-onnx-cgen": HERE} if installed else {})


def measured(name: str, lstm: nn.LSTM, x: np.ndarray, precision: str, target: str, source: Path) -> dict[str, Any]:
    """What a rival takes; its outputs must be near those of torch.

    Raises:
        UnsupportedError: they are not.
    """
    with tempfile.TemporaryDirectory() as folder:
        write_board(folder)
        with torch.no_grad():
            y = lstm(torch.from_numpy(x)[None])[0][0]
        (Path(folder) / "golden.h").write_text(golden(lstm, x, y), encoding="utf-8")
        program = RIVALS[name].program(Order(lstm, x, precision, target, folder, source))
        link(TARGETS[target], (str(HERE / "rival.c"), *program.parts), folder)
        link(TARGETS[target], (str(HERE / "rival.c"),), folder, "-DEMPTY", out="empty.elf")
        full, empty = (flash(TARGETS[target], elf, folder) for elf in ("measure.elf", "empty.elf"))
        found = emulate(TARGETS[target], folder)
    if not found["difference"] <= TOLERANCE[precision]:
        raise UnsupportedError(f"{name}, {precision}: outputs differ from torch's by {found['difference']:.3g}")
    return {**found, "weights": program.weights, "code": full - empty - program.weights}
