"""What `adaptive-lstm bench` does: find the LSTMs and the inputs that reach them, and compare the runtimes on them."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..bench import machine, pinned_threads, spread
from ..calibration.splits import Splits
from ..errors import InputError
from ..execution.backend import backend_info
from ..peers import PEERS, inputs_of_lstms
from ..peers.compare import USES, Comparison, ContenderTiming, compare
from .model_file import SUFFIXES, load_lstms, load_model, tried
from .options import positive
from .sequence_file import load_sequences
from .tables import aligned, place

CHECKED = 8  # sequences that everybody's output is checked on; the first of them are timed
FITTED = 32  # further ones, for peers that calibrate


@dataclass(frozen=True, eq=False)
class Subject:
    """An LSTM and sequences [1, T, I] of its inputs: to check and time on, and to calibrate on."""

    lstm: nn.LSTM
    inputs: list[Tensor]
    fit: list[Tensor]


@dataclass(frozen=True, eq=False)
class Bench:
    """What was found for every LSTM of a model, by its place in it. on: as `bench.machine` gives it; data: in words."""

    found: Mapping[str, tuple[nn.LSTM, Comparison]]
    data: str
    steps: int | None
    on: dict[str, object]

    def as_dict(self) -> dict[str, object]:
        """Plain values for a JSON document; steps is null for sequences from a file."""
        lstms = [{"name": name, **each.as_dict()} for name, (_, each) in self.found.items()]
        return {"lstms": lstms, "steps": self.steps, "data": self.data, "machine": self.on}

    def __str__(self) -> str:
        parts = [
            f"{name or 'the model'}: {lstm}\n\n{_shown(lstm, each)}\n" for name, (lstm, each) in self.found.items()
        ]
        return "\n".join([*parts, f"{self.data}, batch 1, {place(self.on)}"])


def _shown(lstm: nn.LSTM, each: Comparison) -> str:
    uses = zip(USES, (each.sequence, each.step), strict=True)
    blocks = [_table(each, use, found) for use, found in uses if found]
    if each.unavailable:
        blocks.append("\n".join(f"not timed: {one.name} ({one.reason})" for one in each.unavailable))
    if lstm.bidirectional:
        blocks.append("no streaming: both directions")
    return "\n\n".join(blocks)


def _table(each: Comparison, use: str, found: Mapping[str, ContenderTiming]) -> str:
    rows = [[use, "precision", "median (quartiles)", "torch / this", "worst error", "bytes"]]
    for name, measured in found.items():
        told = each.contenders[name]
        size = "" if told.nbytes is None else f"{told.nbytes:,}"
        figures = str(measured.timing), spread(measured.gain), f"{told.error:.2g}", size
        rows.append([name, told.precision, *figures])
    return aligned(rows)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    add = parser.add_argument
    add("positional", metavar="MODEL", nargs="?", help="file.py:factory or a file of weights")
    add("--model", metavar="MODEL", help="the same, by name")
    add("--data", type=Path, metavar="DATA", help="sequences, .npz: real inputs instead of random ones")
    add(
        "--peers", type=_peers, default=(), metavar="P",
        help="all, none or names with commas between (default: none): other runtimes to race",
    )  # fmt: skip
    uses = parser.add_mutually_exclusive_group()
    for name, use, text in (
        ("--whole", "sequence", "whole sequences only"),
        ("--step", "step", "steps of a stream only"),
    ):
        uses.add_argument(name, dest="uses", action="store_const", const=(use,), default=USES, help=text)
    for name, default, text in (
        ("--input-size", 40, "features per step, without MODEL"),
        ("--hidden-size", 256, "units per layer, without MODEL"),
        ("--layers", 3, "stacked layers, without MODEL"),
        ("--steps", 100, "steps of a sequence, without DATA"),
        ("--threads", 1, "threads for everybody"),
        ("--seconds", 10, "how long each of the two races takes, about"),
    ):
        add(name, type=positive, default=default, metavar="N", help=f"{text} (default: {default})")


def bench(options: argparse.Namespace) -> Bench:
    """Run the command.

    Raises:
        InputError: options that contradict each other, or data that do not fit.
        ModelFileError, FileNotFoundError: what `modelfile` and `sequencefile` raise.
    """
    if options.positional and options.model:
        raise InputError(f"MODEL is given twice: {options.positional} and --model {options.model}")
    spec = options.model or options.positional
    if options.data is not None and spec is None:
        raise InputError("--data needs MODEL too: adaptive-lstm bench path/to/file.py:factory --data ...")
    with pinned_threads(options.threads):
        subjects = _random(spec, options) if options.data is None else _real(spec, options.data)
        found = {
            name: (
                each.lstm,
                compare(
                    each.lstm,
                    each.inputs,
                    fit=each.fit,
                    peers=options.peers,
                    uses=options.uses,
                    threads=options.threads,
                    seconds=options.seconds,
                ),
            )
            for name, each in subjects.items()
        }
        steps = options.steps if options.data is None else None
        data = str(options.data) if steps is None else f"{steps} random steps per sequence"
        return Bench(found, data, steps, machine(backend_info()))


def _random(spec: str | None, options: argparse.Namespace) -> dict[str, Subject]:
    """The LSTMs of a model, or one of the wanted size, on random inputs."""
    if spec is None:
        lstm = nn.LSTM(options.input_size, options.hidden_size, options.layers).eval()
        lstms = {"random weights": lstm}
    else:
        lstms = load_lstms(spec)

    def drawn(lstm: nn.LSTM, count: int) -> list[Tensor]:
        return list(torch.randn(count, options.steps, lstm.input_size).split(1))

    return {name: Subject(lstm, drawn(lstm, 1), drawn(lstm, 4)) for name, lstm in lstms.items()}


def _real(spec: str, data: Path) -> dict[str, Subject]:
    """The LSTMs of a model on what reaches them when the model runs; those of a file of weights on the data itself."""
    judged, fit = _sequences(data)
    if spec.endswith(SUFFIXES):
        lstms = load_lstms(spec)
        for name, lstm in lstms.items():
            if judged[0].is_floating_point() and judged[0].shape[2] == lstm.input_size:
                continue
            got = f"{list(judged[0].shape)}, {judged[0].dtype}"
            raise InputError(
                f"{data}: x is {got}, but {name or spec} takes [1, T, {lstm.input_size}], float32; without the model "
                "around it, DATA must hold the inputs of the LSTM itself"
            )
        return {name: Subject(lstm, judged, fit) for name, lstm in lstms.items()}
    model = load_model(spec)
    tried(model, judged[0], spec)
    reached, fitting = inputs_of_lstms(model, judged), inputs_of_lstms(model, fit)
    lstms = {name: m for name, m in model.named_modules() if isinstance(m, nn.LSTM) and reached[name]}
    if not lstms:
        raise InputError(f"{spec} does not call any of its LSTMs on {data}")
    return {name: Subject(m, reached[name][:CHECKED], fitting[name][:FITTED]) for name, m in lstms.items()}


def _sequences(data: Path) -> tuple[list[Tensor], list[Tensor]]:
    """Inputs to check and time on and, apart from them unless there are too few, to calibrate on."""
    found = load_sequences(data)
    if isinstance(found, Splits):
        return [p[0] for p in found.test[:CHECKED]], [p[0] for p in found.fit[:FITTED]]
    every = [pair[0] for pair in found]
    return every[:CHECKED], every[CHECKED:][:FITTED] or every[:CHECKED]


def _peers(text: str) -> tuple[str, ...]:
    if text in ("all", "none"):
        return tuple(PEERS) if text == "all" else ()
    names = tuple(name.strip() for name in text.split(","))
    if unknown := [name for name in names if name not in PEERS]:
        raise argparse.ArgumentTypeError(f"unknown {', '.join(unknown)}; there are all, none, {', '.join(PEERS)}")
    return names
