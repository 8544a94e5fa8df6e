"""Laws about sizes: files, functions and classes that one reads in one sitting, and a flat house."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "adaptive_lstm"
FOLDERS = ("adaptive_lstm", "policies", "eval", "tests")
SOURCES = {".py", ".h", ".cpp", ".inc"}

FILE_LINES, FUNCTION_LINES, METHODS = 400, 80, 15
ROOMS, FLOORS = 25, 11
# Classes with more methods: the whole of what a user sees of an LSTM.
FACADES = {"adaptive_lstm/runtime/lstm.py: AdaptiveLSTM"}


def sources() -> list[Path]:
    """Every source file once: adaptive_lstm/policies is a link to policies."""
    found = {path.resolve() for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in SOURCES}
    return sorted(found)


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def definitions(*kinds: type[ast.AST]) -> Iterator[tuple[str, ast.AST]]:
    """'file: name' and node of every definition of these kinds."""
    for path in sources():
        if path.suffix == ".py":
            for node in ast.walk(tree(path)):
                if isinstance(node, kinds):
                    yield f"{path.relative_to(ROOT)}: {getattr(node, 'name', '')}", node


def test_files_are_short() -> None:
    lengths = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8").count("\n") for path in sources()}
    assert len(lengths) > 200
    assert not {name: lines for name, lines in lengths.items() if lines > FILE_LINES}


def test_functions_are_short() -> None:
    lengths: dict[str, int] = {}
    for name, node in definitions(ast.FunctionDef, ast.AsyncFunctionDef):
        assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        assert node.end_lineno is not None
        lengths[name] = max(lengths.get(name, 0), node.end_lineno - node.lineno + 1)
    assert len(lengths) > 1000
    assert not {name: lines for name, lines in lengths.items() if lines > FUNCTION_LINES}


def test_classes_have_few_methods() -> None:
    counts = {}
    for name, node in definitions(ast.ClassDef):
        assert isinstance(node, ast.ClassDef)
        methods = {one.name for one in node.body if isinstance(one, ast.FunctionDef)}
        counts[name] = sum(not method.startswith("__") for method in methods)  # a setter counts with its property
    assert len(counts) > 100
    long = {name: count for name, count in counts.items() if count > METHODS}
    assert long.keys() == FACADES, long


@functools.cache
def rooms() -> dict[str, set[str]]:
    """Every module and package at the top of adaptive_lstm, with those that it imports."""
    tops = {path.stem if path.suffix else path.name: path for path in PACKAGE.iterdir() if _is_room(path)}
    found: dict[str, set[str]] = {}
    for room, path in tops.items():
        files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
        imported = {name for file in files for name in _imports(file)}
        found[room] = (imported & tops.keys()) - {room}
    return found


def _is_room(path: Path) -> bool:
    if path.is_dir():
        return (path / "__init__.py").exists()
    return path.suffix == ".py" and path.stem not in ("__init__", "__main__")


def _imports(path: Path) -> Iterator[str]:
    """The rooms that a file names in its imports, also for types only and inside functions."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = ["adaptive_lstm", *path.relative_to(PACKAGE).parent.parts]
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            names = [module, *(f"{module}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("adaptive_lstm."))


def test_few_rooms() -> None:
    assert len(rooms()) > 5
    assert len(rooms()) <= ROOMS, sorted(rooms())


def test_few_floors() -> None:
    """The longest chain of rooms of which each imports the next; a circle has no longest chain and fails."""
    found = rooms()

    def chain(room: str, above: tuple[str, ...] = ()) -> tuple[str, ...]:
        if room in above:
            pytest.fail(f"a circle of imports: {' -> '.join([*above, room])}")
        below = [chain(other, (*above, room)) for other in sorted(found[room])]
        return (room, *max(below, key=len, default=()))

    longest = max((chain(room) for room in found), key=len)
    assert len(longest) > 2
    assert len(longest) <= FLOORS, " -> ".join(longest)
