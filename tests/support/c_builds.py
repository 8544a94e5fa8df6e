"""Exported C, compiled and run: here with sanitizers, or under an emulator where its tools are installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from adaptive_lstm.export.targets import TARGETS

STRICT = ("-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-ffp-contract=off")
SANITIZED = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
SECONDS = 120


def run_golden(folder: Path, name: str = "vad", flags: tuple[str, ...] = SANITIZED) -> str:
    """What the golden test of an export prints; fails if it does not hold."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    sources = (f"{name}.c", f"{name}_weights.c", f"test_{name}.c")
    _run([compiler, *STRICT, *flags, *sources, "-o", "golden"], folder)
    return _run(["./golden"], folder)


def run_emulated(folder: Path, target: str, name: str = "vad") -> str:
    """The same for a target that QEMU emulates, built by the exported CMakeLists."""
    require_emulator(target)
    build = folder / "build"
    _run(["cmake", "-S", ".", "-B", str(build), f"-DCMAKE_TOOLCHAIN_FILE={folder / f'{target}.cmake'}"], folder)
    _run(["cmake", "--build", str(build)], folder)
    _run(["ctest", "--test-dir", str(build), "--output-on-failure"], folder)
    return _run([*TARGETS[target].emulator, str(build / f"test_{name}")], folder)


def require_emulator(target: str) -> None:
    """Skip the test, with the reason, unless the tools of a target are installed."""
    one = TARGETS[target]
    for tool in ("cmake", f"{one.compiler}gcc", *one.emulator[:1]):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout
