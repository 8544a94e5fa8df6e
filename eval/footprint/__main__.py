"""How much memory does a runtime take, and how long until its first answer? Fresh processes, random weights, batch 1.

``python -m eval.footprint`` writes one stack in the form that each runtime loads in production (a state_dict, an ONNX
file, a saved adapted model), starts a process for every runtime, interleaved and in changing order, several times, and
takes medians:
import   the runtime and what it needs; load: the model, with quantizing, packing or compiling where it has to be done
first    the first sequence of 100 steps; second: the next one
process  all of it, with the start and the end of Python
weights  bytes as the runtime holds them, packed, for ours; for the others the bytes of the file it loads, for torch in
         int8 those of a file it could save
peak     of the resident memory of the process, and the part that loading and running added to importing
installed  what pip writes to disk for it: its packages and all that they require
"""

import argparse
import contextlib
import io
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import adaptive_lstm as al
from adaptive_lstm.bench import Timing, format_seconds, ratio
from adaptive_lstm.peers import Adaptive, Unavailable
from adaptive_lstm.peers.contender import ExplicitStateLSTM
from adaptive_lstm.peers.onnx_export import export
from adaptive_lstm.peers.silence import no_warnings
from eval.footprint.child import RUNTIMES, STAGES, VALUE
from eval.footprint.installed import installed
from eval.shared import common
from eval.shared.contenders import STEPS, Shape, publish, shape, stack
from eval.shared.targets import brief

Record = dict[str, Any]

SHAPES: tuple[Shape, ...] = ((40, 256, 3), (1024, 1024, 3))
REPEATS, QUICK_REPEATS = 9, 2
MOST_SECONDS = 300  # of one process
BASE = "torch"


def write(lstm: nn.LSTM, folder: Path) -> dict[str, int]:
    """Write the stack in every form; the bytes of the weights of every runtime whose form could be written."""
    sizes = {"I": lstm.input_size, "H": lstm.hidden_size, "L": lstm.num_layers, "T": STEPS}
    (folder / "shape.json").write_text(json.dumps(sizes), encoding="utf-8")
    torch.save(lstm.state_dict(), folder / "weights.pt")
    held = {"torch": (folder / "weights.pt").stat().st_size, "adaptive fp32": _packed(al.adapt(lstm))}
    int8 = al.adapt(lstm)
    al.compress(int8, quantize=al.Quantize("int8"))
    al.save(int8, folder / "int8.alstm")
    al.save(int8, folder / "whole.alstm", weights=True)
    ours = "adaptive int8", "adaptive int8 from file", "adaptive int8 without torch"
    held |= dict.fromkeys(ours, _packed(int8))
    quantized, file = import_module("torch.ao.quantization"), io.BytesIO()
    with no_warnings():
        torch.save(quantized.quantize_dynamic(nn.Sequential(lstm), {nn.LSTM}, torch.qint8).state_dict(), file)
    held["torch int8"] = file.tell()
    with contextlib.suppress(ImportError):  # runtimes that need these files are then unavailable, with the reason
        held |= _onnx(lstm, folder)
    return held


def _packed(model: nn.Module) -> int:
    assert isinstance(model, al.AdaptiveLSTM)
    size = Adaptive("", "fp32", model).nbytes
    if size is None:
        raise SystemExit("footprint needs the native extension: the reference executor has no packed weights")
    return size


def _onnx(lstm: nn.LSTM, folder: Path) -> dict[str, int]:
    tools = import_module("onnxruntime.quantization")
    fp32 = export(ExplicitStateLSTM(lstm), folder).rename(folder / "fp32.onnx")
    int8 = folder / "int8.onnx"
    with no_warnings():
        tools.quantize_dynamic(fp32, int8, weight_type=tools.QuantType.QInt8)
    size = fp32.stat().st_size
    return {"ORT": size, "OpenVINO": size, "ORT int8": int8.stat().st_size}


def child(kind: str, folder: Path, threads: int) -> dict[str, Any]:
    """The output of one fresh process; ChildProcessError with its last line if it failed."""
    command = [sys.executable, "-m", "eval.footprint.child", kind, str(folder), str(threads)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["OMP_NUM_THREADS"] = str(threads)
    start = time.perf_counter()
    done = subprocess.run(
        command, cwd=common.ROOT.parent, env=environment, capture_output=True, text=True, timeout=MOST_SECONDS
    )
    took = time.perf_counter() - start
    if done.returncode:
        raise ChildProcessError((done.stderr.strip().splitlines() or ["it ended without a message"])[-1])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    found["seconds"]["process"] = took
    return found


def processes(
    kinds: Sequence[str], folder: Path, expected: np.ndarray, options: argparse.Namespace
) -> tuple[dict[str, list[dict[str, Any]]], list[Unavailable]]:
    """The outputs of all processes; a runtime that fails or has a wrong result is left out, with the reason."""
    runs: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}
    unavailable: list[Unavailable] = []
    for turn in range(1 + (QUICK_REPEATS if options.quick else REPEATS)):
        for kind in random.sample(list(runs), len(runs)):
            try:
                found = child(kind, folder, options.threads)
            except ChildProcessError as error:
                unavailable.append(Unavailable(kind, str(error)))
                del runs[kind]
                continue
            off, allowed = np.abs(np.array(found["output"]) - expected).max(), common.TOLERANCE[_precision(kind)]
            if not off <= allowed:  # NaN is not <= anything
                unavailable.append(Unavailable(kind, f"differs from torch fp32 by {off:.2g}; allowed {allowed:g}"))
                del runs[kind]
                continue
            if turn:  # the first process compiles what pip compiles when it installs
                runs[kind].append(found)
    return runs, unavailable


def _precision(kind: str) -> str:
    return "int8" if "int8" in kind else "fp32"


def measured(of: Shape, options: argparse.Namespace) -> Iterator[tuple[Record, list[str]]]:
    """A record and a row of the table for every runtime."""
    lstm = stack(of)
    expected = lstm(torch.full((1, STEPS, of[0]), VALUE))[0][0, -1].numpy()
    with tempfile.TemporaryDirectory() as name:
        held = write(lstm, Path(name))
        runs, unavailable = processes(options.runtimes, Path(name), expected, options)
    timings = {
        kind: {s: Timing(kind, tuple(r["seconds"][s] for r in mine), 1, 0) for s in (*STAGES, "process")}
        for kind, mine in runs.items()
    }
    for kind, mine in runs.items():
        memory = {
            "peak": float(np.median([r["memory"]["second"]["peak"] for r in mine])),
            "now": float(np.median([r["memory"]["second"]["now"] for r in mine])),
            "after_import": float(np.median([r["memory"]["import"]["now"] for r in mine])),
            "python": float(np.median([r["memory"]["start"]["now"] for r in mine])),
        }
        speed = ratio(timings[BASE]["process"], timings[kind]["process"]) if BASE in timings else None
        record = {
            "group": "footprint",
            "case": f"{of} {kind}",
            "contender": kind,
            "precision": _precision(kind),
            "ours": kind.startswith("adaptive"),
            **dict(zip("IHL", of, strict=True)),
            "batch": 1,
            "T": STEPS,
            "threads": options.threads,
            "seconds": {stage: timing.as_dict() for stage, timing in timings[kind].items()},
            "speed": {} if speed is None else {BASE: speed.as_dict()},
            "weights": held[kind],
            "installed": installed(kind),
            "memory": {**memory, "added": memory["peak"] - memory["after_import"]},
            "unavailable": [vars(one) for one in unavailable],
        }
        seconds = [format_seconds(timings[kind][stage].median) for stage in (*STAGES, "process")]
        megabytes = [
            f"{n / 1e6:.1f} MB" for n in (held[kind], memory["peak"], record["memory"]["added"], record["installed"])
        ]
        yield record, [kind, *seconds, "" if speed is None else brief(speed), *megabytes]


HEADER = ["runtime", *STAGES, "process", f"against {BASE}", "weights", "peak", "of it added", "installed"]


def main(argv: Sequence[str] | None = None) -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--shapes", type=shape, nargs="+", default=SHAPES, metavar="I,H,L", help="stacks to measure")
    parser.add_argument("--runtimes", type=common.one_of(*RUNTIMES), default=tuple(RUNTIMES), help="default: all")
    options = parser.parse_args(argv)
    random.seed(0)
    with common.inference(options.threads):
        common.headline(options)
        for of in options.shapes:
            publish(options, "footprint", str(of), HEADER, measured(of, options))


if __name__ == "__main__":
    main()
