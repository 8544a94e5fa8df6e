"""How many microphones does one core serve with Silero VAD? Its own files in ONNX Runtime against ours, exact and int8.

``python -m eval.silero --zoo PATH``, after ``python -m eval.zoo fetch silero``; a frame is 32 ms, a call advances all
streams by one frame, states carried along, real speech, one thread:

lstm   the LSTM alone. "runtime": its node and weights as a graph of their own; "quantized int8": that graph after ONNX
       Runtime's ``quantize_dynamic``, as no file of the package is; "torch": ``nn.LSTMCell``; "stream": ``al.stream``,
       on tensors; "deploy": that of ``adaptive_lstm.deploy``, on arrays as the runtime has them.
whole  audio to probability. "runtime FILE": a file of the package as it is; "session": one of them, that without
       branches for one stream, which it is made for, else that for 16 kHz, behind ``al.onnx.Session``.

Every contender must give the probabilities, or the outputs of the LSTM, of its rivals; int8 ones within INT8. Streams
per core: those that a core serves if every call takes its median. The bar for the LSTM alone is BAR times the runtime.
"""

import argparse
import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

import adaptive_lstm as al
from adaptive_lstm import deploy
from adaptive_lstm.bench import Timing, format_seconds, ratio
from eval import zoo
from eval.shared import common
from eval.zoo import silero
from eval.zoo.base import family

BAR = 3.0
ROWS = (1, 16, 64)  # streams of a call
FRAMES = 32  # different ones, in a circle
CHECKED = 16  # frames that contenders must agree on
EXACT, INT8 = 1e-5, 0.1  # largest differences; the second only catches what computes something else
ALONE, BRANCHES = "silero_vad_openvino_16k", "silero_vad_16k_op15"  # without branches, of one row; with, of any
SECONDS = silero.FRAME / silero.RATE  # of a frame
INPUT = silero.CONTEXT + silero.FRAME  # samples that a call is given for each stream

Floats = np.ndarray[Any, np.dtype[np.float32]]
Step = Callable[[Floats], Floats]  # a frame of every stream [B, I] -> what the contender makes of it [B, O]


def runtime(path: str | bytes) -> onnxruntime.InferenceSession:
    """ONNX Runtime on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def node_alone(path: Path) -> bytes:
    """The LSTM of the file for whole recordings as a graph of its own: X, h, c -> Y, hn, cn."""
    graph = onnx.load(path).graph
    (node,) = (node for node in graph.node if node.op_type == "LSTM")
    weights = [tensor for tensor in graph.initializer if tensor.name in node.input]
    alone = onnx.helper.make_node("LSTM", ["X", *node.input[1:4], "", "h", "c"], ["Y", "hn", "cn"], hidden_size=128)
    given = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1, None, 128]) for n in ("X", "h", "c")]
    made = [onnx.helper.make_empty_tensor_value_info(n) for n in ("Y", "hn", "cn")]
    graph = onnx.helper.make_graph([alone], "lstm", given, made, weights)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 16)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content


def quantized(graph: bytes) -> bytes:
    """A graph with weights in int8, as ONNX Runtime quantizes LSTMs."""
    logging.getLogger().setLevel(logging.ERROR)  # it advises to prepare the model, which changes nothing here
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "before.onnx", Path(folder) / "after.onnx"
        before.write_bytes(graph)
        import_module("onnxruntime.quantization").quantize_dynamic(str(before), str(after))
        return after.read_bytes()


def lstms(model: silero.SpeechDetector, folder: Path, rows: int) -> dict[str, Step]:
    """The LSTM alone; inputs and outputs [B, 128]."""
    alone = node_alone(folder / "silero_vad_16k_sequence.onnx")
    cell = nn.LSTMCell(128, 128)
    cell.load_state_dict({name.removesuffix("_l0"): one for name, one in model.lstm.state_dict().items()})
    hx = [torch.zeros(rows, 128)] * 2

    def by_torch(x: Floats) -> Floats:
        hx[:] = cell(torch.from_numpy(x), hx)
        return np.asarray(hx[0].numpy())

    found: dict[str, Step] = {
        "runtime": _by_node(runtime(alone), rows),
        "quantized int8": _by_node(runtime(quantized(alone)), rows),
        "torch": by_torch,
    }
    for precision in ("exact", "int8"):
        fast = al.adapt(model)
        if precision == "int8":
            al.compress(fast, quantize=al.Quantize("int8"))
        stream = al.stream(fast.get_submodule("lstm"), rows)  # type: ignore[arg-type]
        found[f"stream {precision}"] = partial(_on_tensors, stream)
        with tempfile.TemporaryDirectory() as place:
            al.save(fast, Path(place) / "silero.alstm", weights=True)
            found[f"deploy {precision}"] = deploy.load(Path(place) / "silero.alstm")["lstm"].stream(rows).step
    return found


def _by_node(session: onnxruntime.InferenceSession, rows: int) -> Step:
    zeros = np.zeros((1, rows, 128), np.float32)
    state = {"h": zeros, "c": zeros}

    def step(x: Floats) -> Floats:
        y, state["h"], state["c"] = session.run(None, {"X": x[None], **state})
        return np.asarray(y[0, 0])

    return step


def _on_tensors(stream: al.Stream, x: Floats) -> Floats:
    return np.asarray(stream.step(torch.from_numpy(x)).numpy())


def wholes(folder: Path, rows: int) -> dict[str, Step]:
    """Frames after their contexts [B, 576] -> probabilities [B, 1]."""
    ours = ALONE if rows == 1 else BRANCHES
    sessions: dict[str, Any] = {}
    for name in (ALONE, BRANCHES, "silero_vad"):
        if rows == 1 or name != ALONE:
            sessions[f"runtime {name}"] = runtime(str(folder / f"{name}.onnx"))
    sessions["session exact"] = al.onnx.Session(folder / f"{ours}.onnx")
    sessions["session int8"] = al.onnx.Session(folder / f"{ours}.onnx")
    al.compress(sessions["session int8"].model, quantize=al.Quantize("int8"))
    return {name: _carrying(session, rows) for name, session in sessions.items()}


def _carrying(session: Any, rows: int) -> Step:
    """A session that hands its state to its next call."""
    feed: dict[str, Any] = {"state": np.zeros((2, rows, 128), np.float32)}
    if "sr" in {one.name for one in session.get_inputs()}:
        feed["sr"] = np.array(silero.RATE, np.int64)

    def step(x: Floats) -> Floats:
        found, feed["state"] = session.run(None, {"input": x, **feed})
        return np.asarray(found)

    return step


def check(contenders: Mapping[str, Step], frames: Floats) -> None:
    """Every contender gives what the first gives; AssertionError names one that does not."""
    (first, lead), *others = contenders.items()
    wanted = [lead(frame) for frame in frames[:CHECKED]]
    for name, step in others:
        worst = max(float(np.abs(step(x) - want).max()) for x, want in zip(frames, wanted, strict=False))
        allowed = INT8 if "int8" in name else EXACT
        assert worst <= allowed, f"{name}: {worst:.2g} from {first}, expected at most {allowed:g}"


def timed(contenders: Mapping[str, Step], frames: Floats, *, quick: bool) -> dict[str, Timing]:
    """The time of a call, by contender."""
    check(contenders, frames)
    calls = {name: common.in_turn(step, list(frames)) for name, step in contenders.items()}
    return common.race(calls, quick=quick, prime=2)


def heard(folder: Path, rows: int) -> torch.Tensor:
    """The same frames of as many places in real speech, each after its context [FRAMES, B, 576]."""
    audio = torch.cat(list(silero.recordings(folder).values()))
    windows = audio.unfold(0, INPUT, silero.FRAME)
    starts = torch.linspace(0, len(windows) - FRAMES, rows).long()
    return torch.stack([windows[starts + t] for t in range(FRAMES)])


def examine(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One record per group and number of streams."""
    model = zoo.load("silero", options.zoo).model
    assert isinstance(model, silero.SpeechDetector)
    folder = family(options.zoo, silero.FOLDER)
    for rows in ROWS:
        frames = heard(options.zoo, rows)
        given = {"lstm": torch.stack([model.encoded(frame) for frame in frames]).numpy(), "whole": frames.numpy()}
        made = {"lstm": lstms(model, folder, rows), "whole": wholes(folder, rows)}
        for group, contenders in made.items():
            seconds = timed(contenders, given[group], quick=options.quick)
            yield {
                "group": group,
                "case": f"{rows} stream{'s' if rows > 1 else ''}",
                "rows": rows,
                "seconds": {name: timing.as_dict() for name, timing in seconds.items()},
                "streams": {name: rows * SECONDS / timing.median for name, timing in seconds.items()},
                **_against(seconds),
            }


def _against(seconds: Mapping[str, Timing]) -> dict[str, Any]:
    """Our fastest against the fastest file of the package."""
    theirs = [timing for name, timing in seconds.items() if name.startswith("runtime")]
    ours = [timing for name, timing in seconds.items() if name.startswith(("stream", "deploy", "session"))]
    peer, best = (min(some, key=lambda timing: timing.median) for some in (theirs, ours))
    return {"peer": peer.name, "ours": best.name, "speed": asdict(ratio(peer, best))}


def main(arguments: list[str] | None = None) -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--zoo", type=Path, required=True, help="folder of pretrained models; see eval/zoo")
    options = parser.parse_args(arguments)
    if reason := zoo.absent("silero", options.zoo):
        parser.error(reason)
    with common.inference(options.threads):
        common.headline(options)
        records = list(examine(options))
    common.save(options, "silero", records)
    if options.json:
        print("\n".join(map(json.dumps, records)))
        return
    for record in records:
        rows = [
            [name, format_seconds(timing["median"]), f"{record['streams'][name]:,.0f}"]
            for name, timing in record["seconds"].items()
        ]
        print(common.table(f"{record['group']}, {record['case']}", ["contender", "call", "streams per core"], rows))
        bar = f" (bar {BAR:g})" if record["group"] == "lstm" else ""
        print(f"{record['ours']} against {record['peer']}: {record['speed']['median']:.2f}{bar}")


if __name__ == "__main__":
    main()
