"""The command line: `adaptive-lstm demo`, `inspect` and `bench`.

What people read goes to stdout, or one JSON document instead with `--json`; progress and remarks go to stderr.
Bad input ends with one line on stderr and exit code 2.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from torch import nn

from .backend import backend_info
from .bench import machine, pinned_threads
from .comparison import compare
from .demo import digits, resemblyzer
from .demo.outcome import Outcome
from .demo.run import run
from .demo.table import render
from .errors import AdaptiveLSTMError, InputError
from .inspection import inspect
from .modelfile import load_lstms
from .text import place

PLOT_SUFFIXES = (".png", ".pdf", ".svg")
INSTALL_PLOT = "pip install 'adaptive-lstm[demo]'"

DESCRIPTION = "Run pretrained stacked LSTMs faster on a CPU, without retraining."
SUMMARIES = {
    "demo": "see on a trained model what it brings and what it costs",
    "inspect": "list the LSTMs of your own model and what can be done with them",
    "bench": "measure your own model, or any size, on this machine",
}

DEMO = """\
Compare torch with the drop-in on a trained model and data it never saw: exact, int8, and int8 that skips the columns
whose operand hardly moved. Prints quality, share of the work that was done, time per sequence and per streaming step,
and draws time against quality and which columns moved when. One thread; takes about a minute.

  digits        handwritten digits read through a moving slit; ships with the package, works offline
  resemblyzer   a real speaker encoder on real speech; needs its folder (see --zoo), takes some minutes"""

DEMO_EXAMPLES = """\
examples:
  adaptive-lstm demo
  adaptive-lstm demo --out digits.pdf
  adaptive-lstm demo --json > digits.json
  adaptive-lstm demo --model resemblyzer --zoo path/to/zoo"""

MODEL_HELP = """\
MODEL is one of
  path/to/file.py:factory   a Python file and a callable in it that returns an nn.Module (the file is executed)
  path/to/weights           a state_dict as .safetensors, .pt, .pth or .bin (no code from it is executed); LSTMs are
                            recognised by the names that nn.LSTM gives its parameters"""

INSPECT = f"""\
List every nn.LSTM of a model: shape, parameters, bytes per precision, multiply-accumulates per step, and which uses the
native core serves on this machine.

{MODEL_HELP}"""

INSPECT_EXAMPLES = """\
examples:
  adaptive-lstm inspect encoder.safetensors
  adaptive-lstm inspect my_project/model.py:build --json"""

BENCH = f"""\
Time torch against the drop-in, in fp32 and in int8, nothing skipped: a whole sequence in one call, and one step of a
stream. Batch 1, random inputs. All contenders run interleaved in one process; ratios are medians of paired rounds.

{MODEL_HELP}
Without MODEL: random weights in the size that the options say."""

BENCH_EXAMPLES = """\
examples:
  adaptive-lstm bench
  adaptive-lstm bench --input-size 80 --hidden-size 512 --layers 2
  adaptive-lstm bench encoder.safetensors --steps 160 --threads 2 --json"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; `arguments` default to those of the process. Returns the exit code: 0, or 2 for bad input."""
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
    except (AdaptiveLSTMError, OSError) as error:
        print(f"adaptive-lstm: error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="adaptive-lstm", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")

    def add(name: str, command: Callable[[argparse.Namespace], None], text: str, more: str) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=SUMMARIES[name],
            description=text,
            epilog=more,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(command=command)
        added.add_argument("--json", action="store_true", help="print one JSON document instead of text")
        return added

    demo = add("demo", _demo, DEMO, DEMO_EXAMPLES)
    demo.add_argument("--model", choices=("digits", "resemblyzer"), default="digits", help="default: digits")
    demo.add_argument("--zoo", type=Path, metavar="PATH", help=f"the folder {resemblyzer.FOLDER}, or the one above it")
    demo.add_argument(
        "--out", type=_figure_path, default=Path("adaptive_lstm_demo.png"), metavar="FILE",
        help="the figure, .png, .pdf or .svg (default: adaptive_lstm_demo.png)",
    )  # fmt: skip
    inspector = add("inspect", _inspect, INSPECT, INSPECT_EXAMPLES)
    inspector.add_argument("model", metavar="MODEL", help="file.py:factory or a file of weights")
    bench = add("bench", _bench, BENCH, BENCH_EXAMPLES)
    bench.add_argument("model", metavar="MODEL", nargs="?", help="file.py:factory or a file of weights")
    for name, default, text in (
        ("--input-size", 40, "features per step, without MODEL"),
        ("--hidden-size", 256, "units per layer, without MODEL"),
        ("--layers", 3, "stacked layers, without MODEL"),
        ("--steps", 100, "steps of a sequence"),
        ("--threads", 1, "threads for everybody"),
        ("--seconds", 10, "how long each of the two races takes, about"),
    ):
        bench.add_argument(name, type=_positive, default=default, metavar="N", help=f"{text} (default: {default})")
    return parser


def _demo(options: argparse.Namespace) -> None:
    if options.model == "digits":
        task = digits.load_task()
    elif options.zoo is None:
        raise InputError(f"--model resemblyzer needs --zoo PATH, where PATH holds the folder {resemblyzer.FOLDER}")
    else:
        task = resemblyzer.load_task(options.zoo)
    outcome = run(task)
    print(json.dumps(outcome.as_dict()) if options.json else render(outcome), flush=True)
    _draw(outcome, options.out)


def _draw(outcome: Outcome, path: Path) -> None:
    """Write the figure, or say what has to be installed for it."""
    try:
        from .demo.plot import draw
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        print(f"no figure: it needs matplotlib, install it with\n  {INSTALL_PLOT}", file=sys.stderr)
    else:
        draw(outcome, path)
        print(f"figure: {path}", file=sys.stderr)


def _inspect(options: argparse.Namespace) -> None:
    found = [inspect(name, lstm) for name, lstm in load_lstms(options.model).items()]
    if options.json:
        print(json.dumps({"lstms": [each.as_dict() for each in found], "backend": asdict(backend_info())}))
    else:
        print("\n\n".join(map(str, found)))
        print(f"\n{backend_info()}")


def _bench(options: argparse.Namespace) -> None:
    if options.model is None:
        lstms = {"random weights": nn.LSTM(options.input_size, options.hidden_size, options.layers)}
    else:
        lstms = load_lstms(options.model)
    with pinned_threads(options.threads):
        found = {name: compare(each, steps=options.steps, seconds=options.seconds) for name, each in lstms.items()}
        on = machine()
    if options.json:
        records = [{"name": name, **each.as_dict()} for name, each in found.items()]
        print(json.dumps({"lstms": records, "steps": options.steps, "machine": on}))
    else:
        for name, each in found.items():
            print(f"{name or 'the model'}: {lstms[name]}\n\n{each}\n")
        print(f"{options.steps} steps per sequence, batch 1, {place(on)}")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, got {text!r}")
    return int(text)


def _figure_path(text: str) -> Path:
    """Refuse what cannot be written before the work begins, not after."""
    path = Path(text)
    if path.suffix not in PLOT_SUFFIXES:
        raise argparse.ArgumentTypeError(f"expected a file ending in {', '.join(PLOT_SUFFIXES)}, got {text!r}")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {str(path.parent)!r}")
    return path
