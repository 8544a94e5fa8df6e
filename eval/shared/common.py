"""Shared by every script of ``eval/``: the command line, tables on the screen, records on disk.

A record is one JSON object on one line of ``eval/results/NAME.jsonl``; it carries the machine, the versions and the
commit, so that a line can be read alone. Records replace those that an earlier run left for the same group and case.
"""

import argparse
import json
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from adaptive_lstm import backend_info
from adaptive_lstm.bench import Timing, machine, measure, pinned_threads
from adaptive_lstm.cli.options import positive as positive
from adaptive_lstm.cli.tables import aligned

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
MIN_SAMPLE = 1e-3  # seconds; longer than the protocol asks for: a streaming step then averages over several inputs
PACKAGES = (
    "adaptive-lstm",
    "torch",
    "numpy",
    "onnx",
    "onnxruntime",
    "openvino",
    "nncf",
    "ncnn",
    "pnnx",
    "tract",
    "mnn",
    "opencv-python-headless",
    "emx-onnx-cgen",
)
# Largest difference of any output from torch fp32 on random weights, where outputs lie in (-1, 1). The loose ones only
# catch a runtime that computes another function; ``eval.quality`` measures the cost of 8 bits on a real model.
TOLERANCE = {"fp32": 1e-4, "bf16": 2e-2, "int8": 1e-1}

Record = Mapping[str, Any]


def parser(description: str | None) -> argparse.ArgumentParser:
    """An argument parser with the options that all scripts have."""
    options = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    options.add_argument("--quick", action="store_true", help="few rounds and nothing saved: a first look")
    options.add_argument("--json", action="store_true", help="print the records as JSON lines instead of tables")
    options.add_argument("--threads", type=positive, default=1, help="threads for every contender (default 1)")
    options.add_argument("--results", type=Path, default=RESULTS, help="where records go (default eval/results)")
    return options


def add_zoo_options(options: argparse.ArgumentParser, names: Sequence[str], default: Sequence[str]) -> None:
    """The options of scripts that run on several models of the zoo."""
    shown = "all" if tuple(default) == tuple(names) else ",".join(default)
    options.add_argument("--zoo", type=Path, required=True, help="folder of pretrained models; see eval/zoo")
    options.add_argument("--models", type=one_of(*names), default=tuple(default), help=f"default: {shown}")


def one_of(*names: str) -> Callable[[str], tuple[str, ...]]:
    """argparse type: a comma-separated choice of ``names``."""

    def parse(text: str) -> tuple[str, ...]:
        chosen = tuple(text.split(","))
        if unknown := [name for name in chosen if name not in names]:
            raise argparse.ArgumentTypeError(f"unknown {unknown}, choose from {','.join(names)}")
        return chosen

    return parse


@contextmanager
def inference(threads: int) -> Iterator[None]:
    """The conditions of every measurement: no gradients, a fixed seed, a fixed number of torch threads."""
    torch.manual_seed(0)
    with torch.no_grad(), pinned_threads(threads):
        yield


def race(
    contenders: Mapping[str, Callable[[], object]], *, quick: bool, prime: int = 0, seconds: float = 20
) -> dict[str, Timing]:
    """Measure with as many rounds as fit into ``seconds`` (3 if quick) by a pilot round, between 5 and 60."""
    pilot = measure(contenders, repeats=1, warmup=1, min_time=0, prime=prime)
    sample = (max(MIN_SAMPLE, timing.median) + prime * timing.median for timing in pilot.values())
    repeats = int((3 if quick else seconds) / sum(sample))
    return measure(contenders, repeats=max(5, min(60, repeats)), warmup=1, min_time=MIN_SAMPLE, prime=prime)


def in_turn(call: Callable[[Any], object], arguments: Sequence[Any]) -> Callable[[], object]:
    """A call with one argument after the other, in a circle."""
    at = 0

    def one() -> object:
        nonlocal at
        at = (at + 1) % len(arguments)
        return call(arguments[at])

    return one


def table(title: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A title and rows as aligned plain text, names to the left and figures to the right."""
    cells = [list(header), *([str(cell) for cell in row] for row in rows)]
    return f"\n{title}\n{aligned(cells)}"


def versions() -> dict[str, str]:
    """Installed versions of the package and its peers; those not installed are left out."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """Short git commit of the measured code, with '-dirty' if it was changed since, 'unknown' outside a checkout.

    Records written since then do not count as a change.
    """
    name = _git("rev-parse", "--short", "HEAD")
    changed = _git("status", "--porcelain", "--", ":/", ":(top,exclude)eval/results")
    return f"{name}-dirty" if name and changed else name or "unknown"


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def headline(options: argparse.Namespace) -> None:
    """Print the machine in one line, unless with --json, whose records carry it."""
    if not options.json:
        here = machine(backend_info())
        print(f"{here['cpu']}, {here['backend']} {here['isa']}, {here['threads']} thread(s), load {here['load']}")


def save(options: argparse.Namespace, name: str, records: Sequence[Record]) -> None:
    """Write records to the folder of results, unless the run was a quick one."""
    if not options.quick:
        write_results(options.results, name, records)


def write_results(folder: Path, name: str, records: Sequence[Record]) -> Path:
    """Add records to ``folder/name.jsonl`` in place of older ones with the same 'group' and 'case' (all have them)."""
    path = folder / f"{name}.jsonl"
    fresh = {_key(record) for record in records}
    stamp = {"machine": machine(backend_info()), "versions": versions(), "commit": commit()}
    old = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    lines = [line for line in old if _key(json.loads(line)) not in fresh]
    lines += [json.dumps({"eval": name, **record, **stamp}) for record in records]
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    partial.replace(path)  # a reader never sees half a file
    return path


def recorded(folder: Path, name: str) -> frozenset[tuple[object, object]]:
    """Group and case of the records that the present commit has written, so that a script can go on where it ended."""
    path, present = folder / f"{name}.jsonl", commit()
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return frozenset(_key(record) for record in map(json.loads, lines) if record["commit"] == present)


def _key(record: Record) -> tuple[object, object]:
    return record["group"], record["case"]
