"""Programs for the board of a target: compiled, linked, weighed, and run by QEMU, which counts instructions."""

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adaptive_lstm.export.targets import Target
from adaptive_lstm.export.templates import template

HERE = Path(__file__).resolve().parent
SECONDS = 1200  # until a command is given up, on a busy machine too
SHIFT = 2  # an instruction takes 2^2 ns of QEMU's time
FLAGS = ("-O3", "-ffunction-sections", "-fdata-sections")


def write_board(folder: str) -> None:
    """The start-up code and the memory map, for programs that bring none."""
    for part in ("board.c", "board.ld"):
        (Path(folder) / part).write_text(template(part), encoding="utf-8")


def link(target: Target, sources: Sequence[str], folder: str, *flags: str, out: str = "measure.elf") -> None:
    """Compile and link a program; sources in C, objects and libraries."""
    linked = ["-T", "board.ld", "-nostartfiles", "--specs=rdimon.specs", "-Wl,--gc-sections"]
    gcc = [f"{target.compiler}gcc", *target.flags, "-std=gnu99", *FLAGS, *flags, f"-I{folder}", f"-I{HERE}"]
    run([*gcc, *sources, "board.c", *linked, "-lm", "-o", out], folder)


def emulate(target: Target, folder: str, elf: str = "measure.elf") -> dict[str, Any]:
    """What a program prints."""
    command = [*target.emulator[:-1], "-icount", f"shift={SHIFT}", target.emulator[-1], elf]
    found: dict[str, Any] = json.loads(run(command, folder))
    return found


def flash(target: Target, file: str, folder: str) -> int:
    """Bytes of code and constants in an object or a program, and of what is copied to RAM at its start."""
    text, data = run([f"{target.compiler}size", file], folder).splitlines()[1].split()[:2]
    return int(text) + int(data)


def run(command: Sequence[str], folder: str) -> str:
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=SECONDS).stdout


def missing(target: Target) -> list[str]:
    """The tools of a target that are not installed."""
    return [tool for tool in (f"{target.compiler}gcc", target.emulator[0]) if shutil.which(tool) is None]
