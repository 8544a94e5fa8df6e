"""What does an exported LSTM cost on a Cortex-M? Emulated boards; every run is checked bit for bit.

``python -m eval.embedded``: per model, processor and setting, on a sequence that moves little by little,
instructions   of a step, counted by QEMU (``-icount``); a real processor takes more cycles than instructions
activity       share of the columns that were computed, steered by the thresholds of ``Delta``
code, weights  bytes of flash: of the engine, and of the constants
state, stack   bytes of RAM of a stream, and at the deepest point of a step
Other runtimes with the same LSTM and inputs stand beside it where they are at hand, each checked against torch: see
``eval/embedded/rivals.py``. Those that are not are named.
Needs arm-none-eabi-gcc with newlib and qemu-system-arm (Debian: gcc-arm-none-eabi, libnewlib-arm-none-eabi,
qemu-system-arm).
"""

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import adaptive_lstm as al
from adaptive_lstm.errors import UnsupportedError
from adaptive_lstm.export.targets import TARGETS
from eval.shared import common

from . import rivals
from .board import FLAGS, HERE, emulate, flash, link, missing, run
from .models import SIZES, Model, models
from .verdict import OURS, Judged, judge

PROCESSORS = {"m4": "Cortex-M4", "m7": "Cortex-M7", "m55": "Cortex-M55"}
EXACT = "-ffp-contract=off"


def emulated(fast: al.AdaptiveLSTM, x: np.ndarray, name: str) -> dict[str, Any]:
    """Export, build, run under QEMU."""
    target = TARGETS[name]
    with tempfile.TemporaryDirectory() as folder:
        al.export_c(fast, folder, name="vad", target=name, inputs=x)
        link(target, ["vad.c", "vad_weights.c", str(HERE / "measure.c")], folder, EXACT)
        run([f"{target.compiler}gcc", *target.flags, *FLAGS, EXACT, "-c", "vad.c", "-o", "vad.o"], folder)
        macs = json.loads((Path(folder) / "vad.json").read_text(encoding="utf-8"))["macs_per_step"]
        return {**emulate(target, folder), "code": flash(target, "vad.o", folder), "macs": macs}


def ours(one: Model, processors: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The records of an exported model."""
    for precision, wanted in one.settings():
        fast = one.exported(precision, wanted)
        for target in processors:
            place = _place(one, target, precision, f"{wanted:g}")
            yield {**place, "who": OURS, "wanted": wanted, **emulated(fast, one.x, target)}


def theirs(one: Model, processors: Sequence[str], present: Mapping[str, Path]) -> Iterator[dict[str, Any]]:
    """The records of the rivals that are present, by where they are."""
    precisions = {precision for precision, _ in one.settings()}
    for rival, source in present.items():
        for precision in rivals.RIVALS[rival].precisions:
            for target in processors if precision in precisions else ():
                found = rivals.measured(rival, one.lstm, one.x, precision, target, source)
                place = _place(one, target, precision, rival)
                yield {**place, "who": rival, "wanted": 1.0, "activity": 1.0, **found}


def _place(one: Model, target: str, precision: str, case: str) -> dict[str, Any]:
    case = f"{target} {precision} {case}"
    return {"group": one.name, "case": case, "processor": PROCESSORS[target], "precision": precision}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--models", type=common.one_of(*SIZES), default=tuple(SIZES), help="default: all")
    parser.add_argument(
        "--zoo", type=Path, help="folder of pretrained models, for the one of jet engines; see eval/zoo"
    )
    parser.add_argument("--processors", type=common.one_of(*PROCESSORS), default=tuple(PROCESSORS), help="default: all")
    parser.add_argument("--cmsis-nn", type=Path, help="checkout of CMSIS-NN with its libraries")
    parser.add_argument("--tflite-micro", type=Path, help="checkout of tflite-micro with its libraries")
    options: argparse.Namespace = parser.parse_args(arguments)
    lacking = sorted({tool for name in options.processors for tool in missing(TARGETS[name])})
    if lacking:
        raise UnsupportedError(f"not installed: {', '.join(lacking)}; see python -m eval.embedded --help")
    present = rivals.present({"CMSIS-NN": options.cmsis_nn, "tflite-micro": options.tflite_micro})
    with common.inference(options.threads):
        common.headline(options)
        if not options.json and (absent := sorted(set(rivals.RIVALS) - set(present))):
            print(f"not at hand: {', '.join(absent)}; see eval/embedded/rivals.py")
        for one in models(options.models, options.zoo):
            records: list[dict[str, Any]] = []
            for found in (ours(one, options.processors), theirs(one, options.processors, present)):
                records += (some := list(found))
                common.save(options, "embedded", some)
            if options.json:
                print("\n".join(map(json.dumps, records)), flush=True)
            else:
                header = ["", "activity", "instructions", "code", "weights", "state", "stack", "exact"]
                print(common.table(f"LSTM {one.name}", header, map(_cells, records)), flush=True)
                header = ["", "reached", "verdict", "best rival"]
                print(common.table(f"LSTM {one.name}, goals", header, map(_judged, judge(records))), flush=True)


def _cells(r: dict[str, Any]) -> list[object]:
    apart = r["exact"] if r["who"] == OURS else f"{r['difference']:.1g} from torch"
    return [r["case"], f"{r['activity']:.0%}", f"{r['instructions']:,.0f}",
            *(f"{r[key]:,}" for key in ("code", "weights", "state", "stack")), apart]  # fmt: skip


def _judged(one: Judged) -> list[object]:
    return [f"{one.processor}: {one.goal}", one.told, one.verdict, one.rival or ""]


if __name__ == "__main__":
    main()
