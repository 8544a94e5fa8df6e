"""Laws about the source itself: what is public, what the native core may know, one version everywhere.

Who may import whom is the contract in pyproject.toml, which ``make lint`` checks.
"""

import importlib.metadata
import re
import subprocess
import sys
import types
from pathlib import Path

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


def test_public_names() -> None:
    assert list(al.__all__) == sorted(al.__all__)
    modules = {name for name, value in vars(al).items() if isinstance(value, types.ModuleType)}
    importable = {name for name in vars(al) if not name.startswith("_")} - modules
    public = set(al.__all__)
    assert importable <= public, f"missing in __all__: {sorted(importable - public)}"
    assert public <= importable | modules | {"__version__"}, f"not importable: {sorted(public - importable)}"


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
