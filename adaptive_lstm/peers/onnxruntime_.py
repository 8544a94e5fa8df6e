"""ONNX Runtime: float32, and dynamic int8 with one scale per matrix or one per output channel."""

import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .contender import BuildRequest, Engine
from .onnx_export import export
from .processor import multiplies_bytes_exactly
from .silence import no_warnings


def fp32(request: BuildRequest) -> Engine:
    """All graph optimizations, the default."""
    return _session(request)


def int8(request: BuildRequest, *, per_channel: bool) -> Engine:
    """``quantize_dynamic``: int8 weights, 8-bit activations with a range computed at every call.

    Weights of 7 bits where this processor would add products of 8 bits with saturation.
    """
    weight_type = import_module("onnxruntime.quantization").QuantType.QInt8
    reduced = not multiplies_bytes_exactly()
    return _session(request, weight_type=weight_type, per_channel=per_channel, reduce_range=reduced)


def _session(request: BuildRequest, **int8: Any) -> Engine:
    """``int8``: the options of quantize_dynamic, empty for float32."""
    ort = import_module("onnxruntime")
    with tempfile.TemporaryDirectory() as folder:
        path = export(request.model, Path(folder))
        if int8:
            with no_warnings():
                import_module("onnxruntime.quantization").quantize_dynamic(path, path.with_suffix(".int8"), **int8)
            path = path.with_suffix(".int8")
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = request.threads
        options.log_severity_level = 3
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        size = path.stat().st_size

    def forward(x: Any, h: Any, c: Any) -> tuple[Any, Any, Any]:
        y, h, c = session.run(None, {"x": x, "h": h, "c": c})
        return y, h, c

    return Engine(to_numpy, forward, torch.as_tensor, size)


def to_numpy(tensor: Tensor) -> Any:
    """A float32 array of its own, in C order."""
    return np.array(tensor.detach().clone().numpy(), dtype=np.float32, order="C")
