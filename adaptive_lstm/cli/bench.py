"""`adaptive-lstm bench`: find the LSTMs of a model and their inputs, and time the runtimes on them."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill

import torch
from torch import Tensor, nn

from ..bench import machine, pinned_threads, spread
from ..calibration.splits import Splits
from ..errors import InputError
from ..execution.backend import backend_info
from ..peers import PEERS, inputs_of_lstms
from ..peers.compare import USES, Comparison, ContenderTiming, compare
from ..progress import duration
from .help import DATA, MODEL_OR_WEIGHTS
from .model_file import first_output_or_error, load_lstms, load_model
from .options import add_threads, positive
from .output import estimate, show
from .sequence_file import load_sequences
from .tables import aligned, place
from .weight_file import SUFFIXES

DESCRIPTION = f"""\
Time the LSTMs of a model in torch, in this runtime (adaptive: fp32 and int8, nothing skipped) and, with --peers, in
other runtimes: a whole sequence in one call, and one step of a stream; batch 1.

Every contender's output is first checked against torch. A wrong result excludes it, with the reason; an imprecise one
is shown with its largest error. All contenders run interleaved in one process; ratios are medians of paired rounds.

{MODEL_OR_WEIGHTS}
Without MODEL: random weights, in the size that the options give.

{DATA}

The model runs on it and its LSTMs are timed on what reaches them; y is not used. If MODEL is a file of weights, x must
be the inputs of the LSTM itself. Without --data: random inputs.

PEERS are
{fill(", ".join(PEERS), 116, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)}
Their packages: pip install 'adaptive-lstm[peers]'. OpenVINO int8 is calibrated on sequences that are not timed, if
there are enough. torch compile and torch cells are ways of a single step; whole sequences run in nn.LSTM."""

EXAMPLES = """\
  adaptive-lstm bench
  adaptive-lstm bench --input-size 80 --hidden-size 512 --layers 2
  adaptive-lstm bench --model my.py:build --data my.npz --peers all
  adaptive-lstm bench encoder.safetensors --peers "ORT,ORT int8" --step --json"""

CHECKED = 8  # sequences that outputs are checked on; the first of them are timed
FITTED = 32  # further ones, for peers that calibrate


@dataclass(frozen=True, eq=False)
class TimedLSTM:
    """An LSTM with sequences [1, T, I] of its inputs.

    Attributes:
        lstm: in eval mode.
        inputs: to check and time on.
        fit: for peers that calibrate.
    """

    lstm: nn.LSTM
    inputs: list[Tensor]
    fit: list[Tensor]


@dataclass(frozen=True, eq=False)
class BenchResult:
    """The result of the command.

    Attributes:
        comparisons: place of an LSTM in the model -> the LSTM and its comparison.
        data: what was timed on, in words.
        steps: of each random sequence; None for sequences from a file.
        on: as `bench.machine` gives it.
    """

    comparisons: Mapping[str, tuple[nn.LSTM, Comparison]]
    data: str
    steps: int | None
    on: dict[str, object]

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        lstms = [{"name": name, **each.as_dict()} for name, (_, each) in self.comparisons.items()]
        return {"lstms": lstms, "steps": self.steps, "data": self.data, "machine": self.on}

    def __str__(self) -> str:
        parts = [
            f"{name or 'the model'}: {lstm}\n\n{_text(lstm, each)}\n" for name, (lstm, each) in self.comparisons.items()
        ]
        explained = (
            "torch / this: how many times as long torch takes, median (quartiles); error: largest, from torch fp32"
        )
        return "\n".join([*parts, explained, f"{self.data}, batch 1, {place(self.on)}"])


def _text(lstm: nn.LSTM, comparison: Comparison) -> str:
    uses = zip(("whole sequence", "streaming step"), (comparison.sequence, comparison.step), strict=True)
    blocks = [_table(comparison, use, timings) for use, timings in uses if timings]
    if comparison.unavailable:
        blocks.append("\n".join(f"not timed: {one.name} ({one.reason})" for one in comparison.unavailable))
    if lstm.bidirectional:
        blocks.append("no streaming, because the LSTM is bidirectional")
    return "\n\n".join(blocks)


def _table(comparison: Comparison, use: str, timings: Mapping[str, ContenderTiming]) -> str:
    rows = [[use, "precision", "median (quartiles)", "torch / this", "error", "bytes"]]
    for name, one in timings.items():
        info = comparison.contenders[name]
        size = "" if info.nbytes is None else f"{info.nbytes:,}"
        rows.append([name, info.precision, str(one.timing), spread(one.gain), f"{info.error:.2g}", size])
    return aligned(rows)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    add = parser.add_argument
    add("positional", metavar="MODEL", nargs="?", help="file.py:factory or a file of weights")
    add("--model", metavar="MODEL", help="the same, as an option")
    add("--data", type=Path, metavar="DATA", help=".npz file of sequences, instead of random inputs")
    add(
        "--peers", type=_peers, default=(), metavar="PEERS",
        help="other runtimes to time: all, none, or names separated by commas (default: none)",
    )  # fmt: skip
    uses = parser.add_mutually_exclusive_group()
    for name, use, text in (
        ("--whole", "sequence", "time whole sequences only"),
        ("--step", "step", "time streaming steps only"),
    ):
        uses.add_argument(name, dest="uses", action="store_const", const=(use,), default=USES, help=text)
    for name, default, text in (
        ("--input-size", 40, "features per step, without MODEL"),
        ("--hidden-size", 256, "hidden units per layer, without MODEL"),
        ("--layers", 3, "stacked layers, without MODEL"),
        ("--steps", 100, "steps of a sequence, without --data"),
        ("--seconds", 10, "seconds to time each use of each LSTM, about"),
    ):
        add(name, type=positive, default=default, metavar="N", help=f"{text} (default: {default})")
    add_threads(parser)


def execute(options: argparse.Namespace) -> None:
    """Run the command."""
    show(bench(options), as_json=options.json)


def bench(options: argparse.Namespace) -> BenchResult:
    """Time the LSTMs that the options name.

    Raises:
        InputError: options that contradict each other, or data that do not fit.
        ModelFileError: from `model_file` and `sequence_file`.
    """
    if options.positional and options.model:
        raise InputError(f"MODEL is given twice: {options.positional} and --model {options.model}")
    spec = options.model or options.positional
    if options.data is not None and spec is None:
        raise InputError("--data needs MODEL too: adaptive-lstm bench path/to/file.py:factory --data ...")
    with pinned_threads(options.threads):
        subjects = _on_random_inputs(spec, options) if options.data is None else _on_data(spec, options.data)
        seconds = options.seconds * len(options.uses) * len(subjects)
        estimate(f"timing {len(subjects)} LSTM{'s' if len(subjects) > 1 else ''}: about {duration(seconds)}")
        comparisons = {
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
        return BenchResult(comparisons, data, steps, machine(backend_info()))


def _on_random_inputs(spec: str | None, options: argparse.Namespace) -> dict[str, TimedLSTM]:
    """The LSTMs of a model, or one of the size that the options give."""
    if spec is None:
        lstm = nn.LSTM(options.input_size, options.hidden_size, options.layers).eval()
        lstms = {"random weights": lstm}
    else:
        lstms = load_lstms(spec)

    def drawn(lstm: nn.LSTM, count: int) -> list[Tensor]:
        return list(torch.randn(count, options.steps, lstm.input_size).split(1))

    return {name: TimedLSTM(lstm, drawn(lstm, 1), drawn(lstm, 4)) for name, lstm in lstms.items()}


def _on_data(spec: str, data: Path) -> dict[str, TimedLSTM]:
    """The LSTMs of a model with what reaches them when it runs on the data, or bare LSTMs with the data itself."""
    timed, fit = _sequences(data)
    if spec.endswith(SUFFIXES):
        lstms = load_lstms(spec)
        for name, lstm in lstms.items():
            if timed[0].is_floating_point() and timed[0].shape[2] == lstm.input_size:
                continue
            got = f"{list(timed[0].shape)}, {timed[0].dtype}"
            raise InputError(
                f"{data}: x is {got}, but {name or spec} takes [1, T, {lstm.input_size}], float32; if MODEL is a "
                "file of weights, the data must be the inputs of the LSTM itself"
            )
        return {name: TimedLSTM(lstm, timed, fit) for name, lstm in lstms.items()}
    model = load_model(spec)
    first_output_or_error(model, timed[0], spec)
    reached, fitting = inputs_of_lstms(model, timed), inputs_of_lstms(model, fit)
    lstms = {name: m for name, m in model.named_modules() if isinstance(m, nn.LSTM) and reached[name]}
    if not lstms:
        raise InputError(f"{spec} does not call any of its LSTMs on {data}")
    return {name: TimedLSTM(m, reached[name][:CHECKED], fitting[name][:FITTED]) for name, m in lstms.items()}


def _sequences(data: Path) -> tuple[list[Tensor], list[Tensor]]:
    """Inputs to check and time on, and others to calibrate peers on; the same ones if there are too few."""
    found = load_sequences(data)
    if isinstance(found, Splits):
        return [x for x, _ in found.test[:CHECKED]], [x for x, _ in found.fit[:FITTED]]
    every = [x for x, _ in found]
    return every[:CHECKED], every[CHECKED:][:FITTED] or every[:CHECKED]


def _peers(text: str) -> tuple[str, ...]:
    """An argparse type: names of PEERS."""
    if text in ("all", "none"):
        return tuple(PEERS) if text == "all" else ()
    names = tuple(name.strip() for name in text.split(","))
    if unknown := [name for name in names if name not in PEERS]:
        raise argparse.ArgumentTypeError(f"unknown {', '.join(unknown)}, expected all, none or of {', '.join(PEERS)}")
    return names
