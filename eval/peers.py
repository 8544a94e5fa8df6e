"""What users have today: builders of a stacked LSTM in torch, ONNX Runtime and OpenVINO, as contenders for a race.

A peer runs a whole sequence ([B, T, I], zero start state) or a streaming step ([B, 1, I], state carried by the caller,
as each of these runtimes asks for). Arrays are converted to the peer's own kind before the clock starts.
A peer whose package is missing, or whose precision the processor lacks, is reported as absent.
"""

import itertools
import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from eval.common import quiet
from eval.contenders import Absent, Contender

Forward = Callable[[Any, Any, Any], tuple[Any, Any, Any]]  # x, h, c -> y, h, c


@dataclass(frozen=True)
class Peer:
    """A runtime that is called with (x, h, c) and returns (y, h, c), all batch-first except the states [L, B, H].

    native: tensor -> the runtime's own array, outside the clock.
    """

    name: str
    precision: str
    layers: int
    hidden: int
    native: Callable[[Tensor], Any]
    forward: Forward

    def whole(self, x: Tensor) -> Callable[[], Any]:
        feed, h, c = self.native(x), self._zeros(x), self._zeros(x)
        return lambda: self.forward(feed, h, c)[0]

    def stream(self, x: Tensor) -> Callable[[], Any]:
        frames = itertools.cycle([self.native(x[:, t : t + 1]) for t in range(x.shape[1])])
        h, c = self._zeros(x), self._zeros(x)

        def step() -> Any:
            nonlocal h, c
            y, h, c = self.forward(next(frames), h, c)
            return y

        return step

    def _zeros(self, x: Tensor) -> Any:
        return self.native(torch.zeros(self.layers, x.shape[0], self.hidden))


class Carried(nn.Module):
    """An ``nn.LSTM`` with its state as plain arguments: the form that exporters and quantizers understand."""

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        self.lstm = lstm

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, (h, c) = self.lstm(x, (h, c))
        return y, h, c


def build(lstm: nn.LSTM, names: Iterable[str], *, threads: int) -> tuple[list[Contender], list[Absent]]:
    """Build the named peers of ``lstm`` (batch-first, unidirectional, no projection); see PEERS for the names."""
    if not lstm.batch_first or lstm.bidirectional or lstm.proj_size:
        raise ValueError(f"peers are built for batch-first unidirectional stacks without projection, got {lstm}")
    present: list[Contender] = []
    absent: list[Absent] = []
    for name in names:
        try:
            precision, builder = PEERS[name]
            native, forward = builder(Carried(lstm).eval(), threads)
            present.append(Peer(name, precision, lstm.num_layers, lstm.hidden_size, native, forward))
        except (ImportError, Unsupported) as error:
            absent.append(Absent(name, str(error)))
    return present, absent


class Unsupported(RuntimeError):
    """This machine or this version cannot run the peer as it should be run."""


def _torch_fp32(model: Carried, threads: int) -> tuple[Callable[[Tensor], Any], Forward]:
    del threads  # torch has one number of threads per process; the script sets it
    return lambda tensor: tensor.clone(), model


def _torch_int8(model: Carried, threads: int) -> tuple[Callable[[Tensor], Any], Forward]:
    del threads
    with quiet():
        # Quantize the wrapper: a bare nn.LSTM would be left in fp32 without a word.
        quantized = import_module("torch.ao.quantization").quantize_dynamic(model, {nn.LSTM}, torch.qint8)
    if isinstance(quantized.lstm, nn.LSTM):
        raise Unsupported("quantize_dynamic left the LSTM in fp32")
    return lambda tensor: tensor.clone(), quantized


def _ort(model: Carried, threads: int, **int8: Any) -> tuple[Callable[[Tensor], Any], Forward]:
    """ONNX Runtime; ``int8`` holds the options of quantize_dynamic, empty for fp32."""
    ort = import_module("onnxruntime")
    with tempfile.TemporaryDirectory() as folder:
        path = _export(model, Path(folder))
        if int8:
            with _no_log():
                import_module("onnxruntime.quantization").quantize_dynamic(path, path.with_suffix(".int8"), **int8)
            path = path.with_suffix(".int8")
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = threads
        options.log_severity_level = 3
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def forward(x: Any, h: Any, c: Any) -> tuple[Any, Any, Any]:
        y, h, c = session.run(None, {"x": x, "h": h, "c": c})
        return y, h, c

    return _to_numpy, forward


def _ort_int8(model: Carried, threads: int, *, per_channel: bool) -> tuple[Callable[[Tensor], Any], Forward]:
    weight_type = import_module("onnxruntime.quantization").QuantType.QInt8
    return _ort(model, threads, weight_type=weight_type, per_channel=per_channel)


def _openvino(model: Carried, threads: int, *, hint: str) -> tuple[Callable[[Tensor], Any], Forward]:
    ov = import_module("openvino")
    core = ov.Core()
    if hint == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise Unsupported("this processor has no bf16 instructions; OpenVINO would emulate them")
    with tempfile.TemporaryDirectory() as folder:
        graph = core.read_model(_export(model, Path(folder)).read_bytes(), b"")
    compiled: dict[tuple[int, ...], Any] = {}  # static shapes run faster, so one compilation per shape

    def forward(x: Any, h: Any, c: Any) -> tuple[Any, Any, Any]:
        request = compiled.get(x.shape)
        if request is None:
            fixed = graph.clone()
            fixed.reshape({"x": list(x.shape), "h": list(h.shape), "c": list(c.shape)})
            limits = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": hint}
            request = compiled[x.shape] = core.compile_model(fixed, "CPU", limits).create_infer_request()
        # Outputs are copies: the next call reads this h and c while it overwrites the request's own memory.
        out = request.infer((x, h, c), share_inputs=True)
        return out[0], out[1], out[2]

    return _to_numpy, forward


def _to_numpy(tensor: Tensor) -> Any:
    return np.array(tensor.numpy(), order="C")


def _export(model: Carried, folder: Path) -> Path:
    """Write the ONNX graph of ``model`` (free batch size and length) and return its path."""
    lstm, path = model.lstm, folder / "lstm.onnx"
    state = torch.zeros(lstm.num_layers, 1, lstm.hidden_size)
    free = {"x": {0: "B", 1: "T"}, "h": {1: "B"}, "c": {1: "B"}}
    import_module("onnx")  # the exporter needs it and names it less clearly
    with quiet():
        torch.onnx.export(
            model,
            (torch.zeros(1, 2, lstm.input_size), state, state.clone()),
            str(path),
            input_names=["x", "h", "c"],
            output_names=["y", "hn", "cn"],
            dynamic_axes=free,
            dynamo=False,
        )
    return path


@contextmanager
def _no_log() -> Iterator[None]:
    """quantize_dynamic advises a preprocessing step that changes nothing for an LSTM, at warning level."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


Builder = Callable[[Carried, int], tuple[Callable[[Tensor], Any], Forward]]
PEERS: dict[str, tuple[str, Builder]] = {
    "torch": ("fp32", _torch_fp32),
    "torch int8": ("int8", _torch_int8),
    "ORT": ("fp32", _ort),
    "ORT int8": ("int8", lambda model, threads: _ort_int8(model, threads, per_channel=False)),
    "ORT int8/channel": ("int8", lambda model, threads: _ort_int8(model, threads, per_channel=True)),
    "OpenVINO": ("fp32", lambda model, threads: _openvino(model, threads, hint="f32")),
    "OpenVINO bf16": ("bf16", lambda model, threads: _openvino(model, threads, hint="bf16")),
}
