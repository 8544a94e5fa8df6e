"""One fresh process of ``eval.footprint``: load one runtime and one model, run it twice, print time and memory as JSON.

``python -m eval.footprint.child KIND FOLDER THREADS``; FOLDER is written by ``eval.footprint``. At its start this
file imports only the standard library: every runtime pays for its own imports alone.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

VALUE = 0.1  # of every input


def _torch(folder: Path, threads: int, shape: dict[str, int], kind: str) -> Iterator[Any]:
    import torch

    if "adaptive" in kind:
        import adaptive_lstm as al
    torch.set_num_threads(threads)
    yield None
    lstm = torch.nn.LSTM(shape["I"], shape["H"], shape["L"], batch_first=True).eval()
    lstm.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
    model: Any = lstm
    if kind == "torch int8":
        import warnings

        from torch.ao.quantization import quantize_dynamic

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = quantize_dynamic(torch.nn.Sequential(lstm), {torch.nn.LSTM}, torch.qint8)[0]
    elif kind == "adaptive int8 from file":
        model = al.load(folder / "int8.alstm", lstm)
    elif "adaptive" in kind:
        model = al.adapt(lstm)
        if kind == "adaptive int8":
            al.compress(model, quantize=al.Quantize("int8"))
    del lstm
    yield None
    x = torch.full((1, shape["T"], shape["I"]), VALUE)
    while True:
        with torch.no_grad():
            yield model(x)[0][0, -1].tolist()


def _deploy(folder: Path, threads: int, shape: dict[str, int], kind: str) -> Iterator[Any]:
    import numpy as np

    from adaptive_lstm import deploy

    yield None
    lstm = deploy.load(folder / "whole.alstm").lstm
    yield None
    x = np.full((shape["T"], shape["I"]), VALUE, np.float32)
    while True:
        yield lstm.run(x).y[-1].tolist()


def _ort(folder: Path, threads: int, shape: dict[str, int], kind: str) -> Iterator[Any]:
    import numpy as np
    import onnxruntime as ort

    yield None
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    options.log_severity_level = 3
    path = folder / ("int8.onnx" if kind == "ORT int8" else "fp32.onnx")
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    yield None
    x = np.full((1, shape["T"], shape["I"]), VALUE, np.float32)
    zeros = np.zeros((shape["L"], 1, shape["H"]), np.float32)
    while True:
        yield session.run(None, {"x": x, "h": zeros, "c": zeros})[0][0, -1].tolist()


def _openvino(folder: Path, threads: int, shape: dict[str, int], kind: str) -> Iterator[Any]:
    import numpy as np
    import openvino as ov

    yield None
    graph = ov.Core().read_model(folder / "fp32.onnx")
    state = [shape["L"], 1, shape["H"]]
    graph.reshape({"x": [1, shape["T"], shape["I"]], "h": state, "c": state})
    limits = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    request = ov.Core().compile_model(graph, "CPU", limits).create_infer_request()
    yield None
    x = np.full((1, shape["T"], shape["I"]), VALUE, np.float32)
    zeros = np.zeros(state, np.float32)
    while True:
        yield request.infer((x, zeros, zeros))[0][0, -1].tolist()


RUNTIMES: dict[str, Callable[[Path, int, dict[str, int], str], Iterator[Any]]] = {
    "torch": _torch,
    "torch int8": _torch,
    "ORT": _ort,
    "ORT int8": _ort,
    "OpenVINO": _openvino,
    "adaptive fp32": _torch,
    "adaptive int8": _torch,
    "adaptive int8 from file": _torch,
    "adaptive int8 without torch": _deploy,
}
STAGES = ("import", "load", "first", "second")


def resident() -> dict[str, int]:
    """Bytes resident now and at most so far.

    From /proc on Linux: there ``ru_maxrss`` of ``getrusage`` survives exec, so that a child of a large process starts
    with the size of its parent.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
        return {"now": int(lines["VmRSS"].split()[0]) * 1024, "peak": int(lines["VmHWM"].split()[0]) * 1024}
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak *= 1 if sys.platform == "darwin" else 1024
    return {"now": peak, "peak": peak}


def main() -> None:
    kind, folder, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    shape = json.loads((folder / "shape.json").read_text(encoding="utf-8"))
    found: dict[str, Any] = {"seconds": {}, "memory": {"start": resident()}}
    stages = RUNTIMES[kind](folder, threads, shape, kind)
    for stage in STAGES:
        start = time.perf_counter()
        found["output"] = next(stages)
        found["seconds"][stage] = time.perf_counter() - start
        found["memory"][stage] = resident()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
