"""Laws about the source itself: what is public, what the native core may know, one version everywhere.

Who may import whom is the contract in pyproject.toml, which ``make lint`` checks.
"""

import ast
import importlib
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

import adaptive_lstm as al

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "adaptive_lstm"


def test_native_core_knows_arrays_only() -> None:
    headers = {
        (path.parent.name, header)
        for path in PACKAGE.joinpath("native").rglob("*")
        if path.suffix in {".h", ".cpp", ".inc"}
        for header in re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)', path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert headers
    torch = {(folder, header) for folder, header in headers if header.split("/")[0] in {"torch", "ATen", "c10"}}
    assert not torch, torch
    python = {(folder, header) for folder, header in headers if header.startswith(("nanobind/", "Python.h"))}
    assert {folder for folder, _ in python} <= {"bind"}, python


BELOW = {  # what the folders of the native core may include besides their own headers
    "bind": {"run", "pack", "cpu"},
    "run": {"pack", "kernels", "cpu"},
    "pack": {"kernels", "cpu"},
    "kernels": {"simd"},
    "simd": set[str](),
    "cpu": {"kernels"},
}


def test_native_includes_go_one_way() -> None:
    found: dict[str, set[str]] = {folder: set() for folder in BELOW}
    for path in PACKAGE.joinpath("native").rglob("*"):
        if path.suffix in {".h", ".cpp", ".inc"}:
            text = path.read_text(encoding="utf-8")
            included = re.findall(r'^\s*#\s*include\s*"([a-z]+)/', text, re.MULTILINE)
            found[path.parent.name] |= set(included) - {path.parent.name}
    assert {folder: others - BELOW[folder] for folder, others in found.items()} == {folder: set() for folder in BELOW}


def test_public_names() -> None:
    """What type checkers see, the table of lazy imports, ``__all__`` and what can be had are the same."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    (typed,) = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [node for node in typed.body if isinstance(node, ast.ImportFrom)]
    names = {alias.asname: node.module for node in imports for alias in node.names if node.module}
    modules = {alias.asname for node in imports for alias in node.names if not node.module}
    assert names == vars(al)["_EXPORTS"]
    assert modules == set(vars(al)["_MODULES"])
    assert set(al.__all__) == {*names, "losses"}
    assert list(al.__all__) == sorted(al.__all__)
    for name, module in names.items():
        assert getattr(al, str(name)) is getattr(importlib.import_module(f"adaptive_lstm.{module}"), str(name))
    assert {*al.__all__, *modules} <= set(dir(al))
    with pytest.raises(AttributeError, match="adaptive_lstm' has no attribute 'nonsense'"):
        al.nonsense  # noqa: B018


WITHOUT_TORCH = """
import importlib, pkgutil, sys
sys.modules["torch"] = None
import adaptive_lstm.weights
rooms = [f"weights.{module.name}" for module in pkgutil.iter_modules(adaptive_lstm.weights.__path__)]
for name in (*rooms, "policies", "codec", "tensorfile", "execution.backend", "execution.native_policy"):
    importlib.import_module(f"adaptive_lstm.{name}")
from adaptive_lstm.execution.native_stack import NativeStack
import numpy as np
from adaptive_lstm.policies import Delta, parts
from adaptive_lstm.types import StackShape
from adaptive_lstm.weights.matrices import CellMatrices
from adaptive_lstm.weights.quantization import quantize_matrix
if adaptive_lstm.backend_info().backend == "native":
    shape, random = StackShape(3, 8, 1), np.random.default_rng(0)
    w_ih, w_hh = (random.standard_normal((32, n)).astype(np.float32) for n in (3, 8))
    cell = CellMatrices(quantize_matrix(w_ih, "fp32", 0), quantize_matrix(w_hh, "int8", 127), w_ih[:, 0].copy(), None)
    stack = NativeStack([cell], shape, parts(Delta.uniform(0.1)))
    state, x, y = stack.new_state(1), random.standard_normal((1, 3)).astype(np.float32), np.zeros((1, 8), np.float32)
    assert state.step(x.ctypes.data, y.ctypes.data)
    assert np.array_equal(stack.read(state).h[0], y) and y.any()
"""


def test_the_native_half_needs_no_torch() -> None:
    run = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_policies_cannot_be_imported_twice() -> None:
    run = subprocess.run([sys.executable, "-c", "import policies"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 1
    assert "ImportError: import 'adaptive_lstm.policies'" in run.stderr


def test_one_version() -> None:
    declared = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert declared
    assert importlib.metadata.version("adaptive-lstm") == declared[1]
    assert getattr(al, "__version__", declared[1]) == declared[1]
    assert f"## [{declared[1]}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
