"""The pool of threads by itself: helpers come, sleep and wake, exceptions arrive, forks and many callers do no harm."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from ..conftest import ROOT

NATIVE = ROOT / "adaptive_lstm" / "native"


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    if not hasattr(__import__("os"), "fork"):
        pytest.skip("no fork here")
    program = tmp_path_factory.mktemp("pool") / "driver"
    sources = (ROOT / "tests" / "support" / "thread_pool.cpp", NATIVE / "run" / "thread_pool.cpp")
    command = [compiler, "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{NATIVE}", *sources, "-o", program]
    subprocess.run([*map(str, command), "-pthread"], check=True)
    return program


@pytest.mark.parametrize("scenario", ["helped", "asleep", "throws", "inside", "callers", "forks"])
def test_a_scenario(driver: Path, scenario: str) -> None:
    run = subprocess.run([str(driver), scenario], capture_output=True, text=True, timeout=120)
    assert (run.returncode, run.stdout, run.stderr) == (0, "good\n", "")
