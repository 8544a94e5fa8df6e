"""What does an exported LSTM cost on a Cortex-M? Random weights, emulated boards; every run is checked bit for bit.

``python -m eval.embedded``: per model, processor and setting, on a sequence that moves little by little,
instructions   of a step, counted by QEMU (``-icount``); a real processor takes more cycles than instructions
activity       share of the columns that were computed, steered by the thresholds of ``Delta``
code, weights  bytes of flash: of the engine, and of the constants
state, stack   bytes of RAM of a stream, and at the deepest point of a step
With ``--cmsis-nn`` the int8 LSTM of CMSIS-NN stands beside it, stacked by hand: one layer a call, the same sizes.
Needs arm-none-eabi-gcc with newlib and qemu-system-arm (Debian: gcc-arm-none-eabi, libnewlib-arm-none-eabi,
qemu-system-arm).
"""

import argparse
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import adaptive_lstm as al
from adaptive_lstm.errors import UnsupportedError
from adaptive_lstm.export.targets import TARGETS, Target
from adaptive_lstm.export.templates import template
from eval.shared import common

HERE = Path(__file__).resolve().parent
PROCESSORS = {"m4": "Cortex-M4", "m7": "Cortex-M7", "m55": "Cortex-M55"}
MODELS = {"1 x 32": (16, 32, 1), "2 x 64": (14, 64, 2), "2 x 150": (32, 150, 2)}
ACTIVITIES = (1.0, 0.5, 0.2)
STEPS, SMOOTH, RANGE = 64, 0.9, 4.0
SHIFT = 2  # an instruction takes 2^2 ns of QEMU's time
HALVINGS = 12
FLAGS = ("-std=gnu99", "-O2", "-ffp-contract=off", "-ffunction-sections", "-fdata-sections")


def inputs(width: int) -> np.ndarray:
    """A random walk around zero [STEPS, width]."""
    noise = np.random.default_rng(0).standard_normal((STEPS, width))
    x = noise.copy()
    for t in range(1, STEPS):
        x[t] = SMOOTH * x[t - 1] + (1 - SMOOTH) * noise[t]
    return x.astype(np.float32)


def model(sizes: tuple[int, int, int], precision: str) -> al.AdaptiveLSTM:
    """Random weights; int8 with activations of 8 bits."""
    torch.manual_seed(0)
    fast = al.AdaptiveLSTM.from_lstm(nn.LSTM(*sizes)).eval()
    if precision == "int8":
        raw = (RANGE,) * sizes[0]
        fast.quantize = al.Quantize("int8", raw="int8", raw_scale=raw, raw_levels=127, levels=127, input_levels=127)
    return fast


def activity(fast: al.AdaptiveLSTM, x: np.ndarray) -> float:
    """Of a stream over x [T, I]."""
    with al.stream(fast) as stream:
        stream.run(torch.from_numpy(x)[:, None])
        return stream.stats.activity


def steer(fast: al.AdaptiveLSTM, x: np.ndarray, wanted: float) -> None:
    """Set the threshold of all columns at which this share of them is computed; 1: no policy."""
    if wanted == 1:
        return
    low, high = 0.0, 2.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        fast.policy = al.Delta(h=middle, x=(middle,) * fast.num_layers)
        low, high = (middle, high) if activity(fast, x) > wanted else (low, middle)


def emulated(fast: al.AdaptiveLSTM, x: np.ndarray, name: str) -> dict[str, Any]:
    """Export, build, run under QEMU."""
    target = TARGETS[name]
    with tempfile.TemporaryDirectory() as folder:
        al.export_c(fast, folder, name="vad", target=name, inputs=x)
        found = measured(target, ["vad.c", "vad_weights.c", str(HERE / "measure.c")], folder)
        run([f"{target.compiler}gcc", *target.flags, *FLAGS, "-c", "vad.c", "-o", "vad.o"], folder)
        code = int(run([f"{target.compiler}size", "vad.o"], folder).splitlines()[1].split()[0])
        macs = json.loads((Path(folder) / "vad.json").read_text(encoding="utf-8"))["macs_per_step"]
    return {**found, "code": code, "macs": macs}


def rival(sizes: tuple[int, int, int], name: str, cmsis_nn: Path) -> dict[str, Any]:
    """The LSTM of a checkout of CMSIS-NN."""
    target, source = TARGETS[name], cmsis_nn / "Source"
    patterns = ("LSTMFunctions/*_s8.c", "NNSupportFunctions/*lstm*s8*.c", "NNSupportFunctions/*vec_mat_mul_result*.c",
                "NNSupportFunctions/arm_nntables.c", "ActivationFunctions/*_s16.c", "BasicMathFunctions/*mul*_s16*.c",
                "BasicMathFunctions/*mul_acc_s16.c")  # fmt: skip
    parts = sorted({str(path.resolve()) for pattern in patterns for path in source.glob(pattern)})
    defined = [f"-D{key}={size}" for key, size in zip(("INPUTS", "UNITS", "LAYERS"), sizes, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        for part in ("board.c", "board.ld"):
            (Path(folder) / part).write_text(template(part), encoding="utf-8")
        include = f"-I{(cmsis_nn / 'Include').resolve()}"
        return measured(target, [*parts, str(HERE / "cmsis_nn.c"), include, f"-I{HERE}", *defined], folder)


def measured(target: Target, sources: Sequence[str], folder: str) -> dict[str, Any]:
    """What a program prints, linked for the board of a target and run."""
    linked = ["-T", "board.ld", "-nostartfiles", "--specs=rdimon.specs", "-Wl,--gc-sections"]
    gcc = [f"{target.compiler}gcc", *target.flags, *FLAGS, f"-I{folder}"]
    run([*gcc, *sources, "board.c", *linked, "-o", "measure.elf"], folder)
    command = [*target.emulator[:-1], "-icount", f"shift={SHIFT}", target.emulator[-1], "measure.elf"]
    found: dict[str, Any] = json.loads(run(command, folder))
    return found


def run(command: Sequence[str], folder: str) -> str:
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=120).stdout


def missing(target: Target) -> list[str]:
    """The tools of a target that are not installed."""
    return [tool for tool in (f"{target.compiler}gcc", target.emulator[0]) if shutil.which(tool) is None]


def settings() -> list[tuple[str, float]]:
    return [("fp32", 1.0), *(("int8", share) for share in ACTIVITIES)]


def case(name: str, processors: Sequence[str], cmsis_nn: Path | None) -> Iterator[dict[str, Any]]:
    """The records of a model."""
    sizes = MODELS[name]
    rivals: dict[str, float] = (
        {} if cmsis_nn is None else {p: rival(sizes, p, cmsis_nn)["instructions"] for p in processors}
    )
    x = inputs(sizes[0])
    for precision, wanted in settings():
        if precision == "fp32" and name == "2 x 150":
            continue  # the weights alone are larger than the boards' flash
        fast = model(sizes, precision)
        steer(fast, x, wanted)
        for target in processors:
            yield {
                "group": name,
                "case": f"{target} {precision} {wanted:g}",
                "processor": PROCESSORS[target],
                "precision": precision,
                "wanted": wanted,
                **emulated(fast, x, target),
                "cmsis_nn": rivals.get(target) if precision == "int8" else None,
            }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--models", type=common.one_of(*MODELS), default=tuple(MODELS), help="default: all")
    parser.add_argument("--processors", type=common.one_of(*PROCESSORS), default=tuple(PROCESSORS), help="default: all")
    parser.add_argument("--cmsis-nn", type=Path, help="checkout of github.com/ARM-software/CMSIS-NN to compare with")
    options: argparse.Namespace = parser.parse_args(arguments)
    lacking = sorted({tool for name in options.processors for tool in missing(TARGETS[name])})
    if lacking:
        raise UnsupportedError(f"not installed: {', '.join(lacking)}; see python -m eval.embedded --help")
    with common.inference(options.threads):
        common.headline(options)
        for name in options.models:
            records = list(case(name, options.processors, options.cmsis_nn))
            common.save(options, "embedded", records)
            if options.json:
                print("\n".join(map(json.dumps, records)), flush=True)
            else:
                header = ["", "activity", "instructions", "per MAC", "code", "weights", "state", "stack", "exact",
                          "of CMSIS-NN"]  # fmt: skip
                print(common.table(f"LSTM {name}", header, map(_cells, records)), flush=True)


def _cells(r: dict[str, Any]) -> list[object]:
    return [
        r["case"], f"{r['activity']:.0%}", f"{r['instructions']:,.0f}", f"{r['instructions'] / r['macs']:.2f}",
        *(f"{r[key]:,}" for key in ("code", "weights", "state", "stack")), r["exact"],
        f"{r['instructions'] / r['cmsis_nn']:.2f}" if r["cmsis_nn"] else "",
    ]  # fmt: skip


if __name__ == "__main__":
    main()
