"""OpenCV's dnn module, since version 5, whose engine for ONNX takes states and free lengths: float32."""

import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from ..errors import UnsupportedError
from .contender import BuildRequest, Engine, ExplicitStateLSTM
from .onnx_export import export
from .onnxruntime_ import to_numpy
from .silence import no_output
from .torch_ import with_bias


def fp32(request: BuildRequest) -> Engine:
    """Its number of threads is one per process: that of the stack built last.

    Raises:
        UnsupportedError: this OpenCV cannot read the graph.
    """
    cv2 = import_module("cv2")
    engine = getattr(cv2.dnn, "ENGINE_NEW", None)
    if engine is None:
        raise UnsupportedError(f"OpenCV {cv2.__version__} reads no LSTM of free length with states, OpenCV 5 does")
    model = ExplicitStateLSTM(with_bias(request.model.lstm)).eval()  # without biases its LSTM fails when it runs
    with tempfile.TemporaryDirectory() as folder:
        path = export(model, Path(folder))
        try:
            with no_output():
                net = cv2.dnn.readNetFromONNX(str(path), engine)
        except cv2.error as error:
            raise UnsupportedError(f"OpenCV {cv2.__version__} cannot read the graph: {error.err}") from error
        size = path.stat().st_size
    cv2.setNumThreads(request.threads)

    def forward(x: Any, h: Any, c: Any) -> tuple[Any, Any, Any]:
        for name, value in (("x", x), ("h", h), ("c", c)):
            net.setInput(value, name)
        y, h, c = net.forward(("y", "hn", "cn"))
        return y, h, c

    return Engine(to_numpy, forward, torch.as_tensor, size)
