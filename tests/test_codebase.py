"""Laws about the source itself: who imports whom, what is public, one version everywhere."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import adaptive_lstm as al

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "adaptive_lstm"

# From the bottom up. A module imports from lower layers, or from its own layer where that makes no circle.
# "__init__" is the public API: what stands above it uses the package as a user does.
LAYERS = (
    {"errors", "types"},
    {"curves", "policies", "tensorfile", "fields", "weights", "monitor"},
    {"pruned", "policyfile", "prunedfile"},
    {"pair", "reference", "leaving", "sensitivity", "quantize", "mixed", "risk"},
    {"_native"},
    {"handover", "backend"},
    {"executor", "cost"},
    {"runtime", "stream_state", "stream"},
    {"tap", "ranges", "measure", "torch_layer", "translate", "losses"},
    {"pruning"},
    {"compress", "compress_report", "within", "bench"},
    {"candidates", "families", "cost_table", "evaluate", "search", "sequences", "promise"},
    {"certificate", "calibration", "calibrate", "artifact"},
    {"__init__"},
    {"peers"},
    {"text", "helptext", "race", "comparison", "modelfile", "sequencefile", "inspection", "frontier", "frontier_plot"},
    {"cli_options", "cli_bench", "cli_calibrate", "cli_compress", "cli_report", "demo", "cli", "__main__"},
)
RANK = {module: rank for rank, layer in enumerate(LAYERS) for module in layer}


def module_of(path: Path) -> str:
    """The name in LAYERS of a source file: a subpackage counts as one module."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def sources() -> list[Path]:
    # rglob does not follow the link, hence policies/ by name.
    found = set(PACKAGE.rglob("*.py")) | {PACKAGE / "policies" / p.name for p in (ROOT / "policies").glob("*.py")}
    return sorted(found)


def imported(source: str, package: tuple[str, ...]) -> Iterator[str]:
    """The modules of the package that a source text imports, wherever in the text, types included.

    package: the dotted name, split, of the package that the text lies in: it resolves the relative imports.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            targets = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            base += node.module.split(".") if node.module else []
            targets = [[*base, alias.name] for alias in node.names]
        else:
            continue
        for target in targets:
            if target[0] == "adaptive_lstm":
                # Any other name imported from the package itself is one of the public API.
                yield target[1] if len(target) > 1 and is_module(target[1]) else "__init__"


def is_module(name: str) -> bool:
    return name in RANK or (PACKAGE / f"{name}.py").is_file() or (PACKAGE / name / "__init__.py").is_file()


def edges() -> set[tuple[str, str]]:
    """(importer, imported) pairs between the modules of LAYERS."""
    found = set()
    for path in sources():
        package = ("adaptive_lstm", *path.relative_to(PACKAGE).parts[:-1])
        found |= {(module_of(path), target) for target in imported(path.read_text(encoding="utf-8"), package)}
    return {(importer, target) for importer, target in found if importer != target}


def test_every_module_has_a_layer() -> None:
    unknown = {module_of(path) for path in sources()} - RANK.keys()
    assert not unknown, f"give {sorted(unknown)} a place in LAYERS (and in CONTRIBUTING.md)"


def test_imports_go_one_way() -> None:
    upward = [f"{importer} imports {target}" for importer, target in edges() if RANK[target] > RANK[importer]]
    assert not upward, sorted(upward)
    graph: dict[str, set[str]] = {module: set() for module in RANK}
    for importer, target in edges():
        graph[importer].add(target)
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_only_the_backend_knows_the_extension() -> None:
    assert {importer for importer, target in edges() if target == "_native"} <= {"backend", "handover"}


@pytest.mark.parametrize(
    ("source", "package", "expected"),
    [
        ("import adaptive_lstm.runtime", ("adaptive_lstm",), {"runtime"}),
        ("import adaptive_lstm as al", ("adaptive_lstm",), {"__init__"}),
        ("from adaptive_lstm import weights, adapt", ("adaptive_lstm",), {"weights", "__init__"}),
        ("from .types import Plan", ("adaptive_lstm",), {"types"}),
        ("from . import errors", ("adaptive_lstm",), {"errors"}),
        ("def f():\n    from ..runtime import adapt", ("adaptive_lstm", "policies"), {"runtime"}),
        ("from .delta import Delta", ("adaptive_lstm", "policies"), {"policies"}),
        ("import torch\nfrom torch.types import Device", ("adaptive_lstm",), set()),
    ],
)
def test_import_reader(source: str, package: tuple[str, ...], expected: set[str]) -> None:
    assert set(imported(source, package)) == expected


def test_native_core_knows_arrays_only() -> None:
    headers = {
        (path.name, header)
        for path in PACKAGE.joinpath("native").iterdir()
        if path.suffix in {".h", ".cpp"}
        for header in re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)', path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert headers
    torch = {(name, header) for name, header in headers if header.split("/")[0] in {"torch", "ATen", "c10"}}
    assert not torch, torch
    python = {(name, header) for name, header in headers if header.startswith(("nanobind/", "Python.h"))}
    assert {name for name, _ in python} <= {"bind.h", "bind.cpp", "bind_policy.cpp", "bind_state.cpp"}, python


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
