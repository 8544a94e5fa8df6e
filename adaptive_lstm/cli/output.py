"""What a command prints and draws: results on stdout as text or JSON, remarks on stderr."""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

PLOT_SUFFIXES = (".png", ".pdf", ".svg")


class Result(Protocol):
    """The result of a command."""

    def __str__(self) -> str: ...

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        ...


def show(result: Result, *, as_json: bool) -> None:
    """Print a result to stdout as text, or as one JSON document."""
    print(json.dumps(result.as_dict()) if as_json else result, flush=True)


def remark(text: str) -> None:
    """Print a line to stderr, beside the result."""
    print(text, file=sys.stderr, flush=True)


def estimate(text: str) -> None:
    """Print how long the work will take, if stderr is a terminal."""
    if sys.stderr.isatty():
        remark(text)


@contextmanager
def drawing(path: Path) -> Iterator[None]:
    """Say that the block has drawn `path`; without matplotlib, end the block and say how to install it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        remark("no figure, because matplotlib is missing; install it with\n  pip install 'adaptive-lstm[demo]'")
    else:
        remark(f"written: {path}")


def figure_path(text: str) -> Path:
    """An argparse type: a file that a figure can be written to, checked before any work."""
    path = Path(text)
    if path.suffix not in PLOT_SUFFIXES:
        raise argparse.ArgumentTypeError(f"expected a file ending in {', '.join(PLOT_SUFFIXES)}, got {text!r}")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"no such folder: {str(path.parent)!r}")
    if path.exists() and not path.is_file():
        raise argparse.ArgumentTypeError(f"expected a file, got {text!r}, which is none")
    return path
