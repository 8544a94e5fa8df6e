"""The command line: `adaptive-lstm demo`, `inspect`, `bench`, `compress`, `report` and `calibrate`.

What people read goes to stdout, or one JSON document instead with `--json`; progress and remarks go to stderr.
Bad input ends with one line on stderr and exit code 2.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from ..bench import pinned_threads
from ..compression.compress import ROUNDINGS
from ..compression.pruning import Prune
from ..errors import AdaptiveLSTMError, InputError
from ..execution.backend import backend_info
from ..losses import Loss, disagreement
from ..weights.precision import Quantize
from . import help as helptext
from .bench import add_options as add_bench_options
from .bench import bench
from .calibrate import COSTS, Certification, Subject, certify, loss_named
from .compress import compressed
from .demo import digits, resemblyzer
from .demo.outcome import Outcome
from .demo.run import run
from .demo.table import render
from .inspect import inspect
from .model_file import load_lstms, load_model
from .options import positive
from .report import report
from .sequence_file import load_sequences

PLOT_SUFFIXES = (".png", ".pdf", ".svg")
INSTALL_PLOT = "pip install 'adaptive-lstm[demo]'"


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
        prog="adaptive-lstm", description=helptext.DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")

    def add(name: str, command: Callable[[argparse.Namespace], None], text: str, more: str) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=helptext.SUMMARIES[name],
            description=text,
            epilog=more,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(command=command)
        added.add_argument("--json", action="store_true", help="print one JSON document instead of text")
        return added

    demo = add("demo", _demo, helptext.DEMO, helptext.DEMO_EXAMPLES)
    demo.add_argument("--model", choices=("digits", "resemblyzer"), default="digits", help="default: digits")
    demo.add_argument("--zoo", type=Path, metavar="PATH", help=f"the folder {resemblyzer.FOLDER}, or the one above it")
    demo.add_argument(
        "--out", type=_figure_path, default=Path("adaptive_lstm_demo.png"), metavar="FILE",
        help="the figure, .png, .pdf or .svg (default: adaptive_lstm_demo.png)",
    )  # fmt: skip
    inspector = add("inspect", _inspect, helptext.INSPECT, helptext.INSPECT_EXAMPLES)
    inspector.add_argument("model", metavar="MODEL", help="file.py:factory or a file of weights")
    add_bench_options(add("bench", _bench, helptext.BENCH, helptext.BENCH_EXAMPLES))
    _add_compress_options(add("compress", _compress, helptext.COMPRESS, helptext.COMPRESS_EXAMPLES))
    reporter = add("report", _report, helptext.REPORT, helptext.REPORT_EXAMPLES)
    reporter.add_argument("file", type=Path, metavar="FILE", help="what compress or adaptive_lstm.save has written")
    reporter.add_argument("model", metavar="MODEL", nargs="?", help="file.py:factory")
    _add_calibrate_options(add("calibrate", _calibrate, helptext.CALIBRATE, helptext.CALIBRATE_EXAMPLES))
    return parser


def _add_compress_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", metavar="MODEL", nargs="?", help="file.py:factory")
    add("--data", type=Path, metavar="DATA", help="the sequences, .npz; needed with MODEL")
    add(
        "--pattern", default="unstructured", metavar="P",
        help="what is removed: unstructured, 2:4 (any N:M), block, column, unit; default: unstructured",
    )  # fmt: skip
    add("--sparsity", type=float, default=0.0, metavar="S", help="share of it, 0 to 1 (default: 0, nothing)")
    add("--quantize", choices=("int8", "bf16", "fp32"), default="int8", help="precision of weights (default: int8)")
    add("--rounding", choices=ROUNDINGS, default="nearest", help="of int8 weights (default: nearest)")
    add("--threads", type=positive, default=1, metavar="N", help="threads of torch (default: 1)")
    add(
        "--out", type=Path, default=Path("model.alstm"), metavar="FILE",
        help="what adaptive_lstm.load reads (default: model.alstm)",
    )  # fmt: skip


def _add_calibrate_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", metavar="MODEL", nargs="?", help="file.py:factory")
    add("--data", type=Path, metavar="DATA", help="the sequences, .npz; needed with MODEL")
    add(
        "--loss", type=_loss, action="append", metavar="LOSS", dest="losses",
        help="disagreement, accuracy_drop, cosine_distance or clipped_error:SCALE; may be repeated, with a limit each",
    )  # fmt: skip
    add("--max-loss", type=float, action="append", metavar="M", dest="limits", help="the largest mean loss allowed")
    add("--confidence", type=float, metavar="C", help="how sure to be of it, for example 0.95")
    add("--head", metavar="NAME", help="module that reads the LSTM's output, for exits by its confidence, such as fc")
    add(
        "--objective", choices=tuple(COSTS), default="latency",
        help="what to make cheap: time on this machine (default), or multiply-accumulates",
    )  # fmt: skip
    add("--quantize", choices=("int8", "bf16", "fp32"), default="int8", help="precision of weights (default: int8)")
    add("--threads", type=positive, default=1, metavar="N", help="threads of torch (default: 1)")
    add(
        "--out", type=Path, default=Path("adaptive_lstm_calibration"), metavar="FOLDER",
        help="where the files go (default: adaptive_lstm_calibration)",
    )  # fmt: skip


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
    with _plotting():
        from .demo.plot import draw

        draw(outcome, path)
        print(f"figure: {path}", file=sys.stderr)


@contextmanager
def _plotting() -> Iterator[None]:
    """Leave the block, and say what has to be installed, where there is no matplotlib."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        print(f"no figure: it needs matplotlib, install it with\n  {INSTALL_PLOT}", file=sys.stderr)


def _inspect(options: argparse.Namespace) -> None:
    found = [inspect(name, lstm) for name, lstm in load_lstms(options.model).items()]
    if options.json:
        print(json.dumps({"lstms": [each.as_dict() for each in found], "backend": asdict(backend_info())}))
    else:
        print("\n\n".join(map(str, found)))
        print(f"\n{backend_info()}")


def _bench(options: argparse.Namespace) -> None:
    found = bench(options)
    print(json.dumps(found.as_dict()) if options.json else found)


def _subject(options: argparse.Namespace) -> Subject:
    """The model that the options name and its sequences, or those of the demo."""
    if options.model is None:
        task = digits.load_task()
        return task.title, task.model, task.splits
    return options.model, load_model(options.model), load_sequences(options.data)


def _compress(options: argparse.Namespace) -> None:
    if (options.model is None) != (options.data is None):
        raise InputError("MODEL and --data belong together: adaptive-lstm compress my.py:build --data my.npz")
    subject = _subject(options)
    share = (options.sparsity,) if options.sparsity else ()
    # N:M says by itself how much is removed; a share beside it that does not agree is refused
    wanted = Prune(options.pattern, *share) if share or ":" in options.pattern else None
    with pinned_threads(options.threads):
        found = compressed(
            *subject,
            prune=wanted,
            quantize=Quantize(options.quantize),
            rounding=options.rounding,
            progress=sys.stderr.isatty(),
        )
    found.write(options.out)
    print(json.dumps(found.as_dict()) if options.json else found, flush=True)
    print(f"written: {options.out}", file=sys.stderr)


def _report(options: argparse.Namespace) -> None:
    model = digits.load_task().model if options.model is None else load_model(options.model)
    found = report(options.file, model)
    print(json.dumps(found.as_dict()) if options.json else found)


def _calibrate(options: argparse.Namespace) -> None:
    _complete(options)
    subject = _subject(options)
    options.out.mkdir(parents=True, exist_ok=True)  # before the work, not after
    with pinned_threads(options.threads):
        found = certify(
            *subject,
            losses=options.losses,
            limits=options.limits,
            confidence=options.confidence,
            head=options.head,
            objective=options.objective,
            quantize=Quantize(options.quantize),
            progress=sys.stderr.isatty(),
        )
    print(json.dumps(found.as_dict()) if options.json else found, flush=True)
    for path in found.write(options.out):
        print(f"written: {path}", file=sys.stderr)
    _draw_frontier(found, options.out / "frontier.png")


def _complete(options: argparse.Namespace) -> None:
    """Fill in what the demo chooses; nobody else gets a level that they did not choose."""
    if options.model is None:
        if options.data is not None:
            raise InputError("--data needs MODEL too: adaptive-lstm calibrate path/to/file.py:factory --data ...")
        options.losses = options.losses or [disagreement]
        options.limits = options.limits or [digits.MAX_LOSS] * len(options.losses)
        options.confidence = options.confidence or digits.CONFIDENCE
        options.head = options.head or digits.HEAD
    given = {"--data": options.model is None or options.data, "--loss": options.losses, "--max-loss": options.limits}
    missing = [name for name, value in {**given, "--confidence": options.confidence}.items() if not value]
    if missing:
        raise InputError(f"{options.model} needs {', '.join(missing)} too: there is no default for what you can accept")


def _draw_frontier(found: Certification, path: Path) -> None:
    with _plotting():
        from .frontier_plot import draw

        draw(found.calibration, path, cost=found.cost, title=found.title)
        print(f"written: {path}", file=sys.stderr)


def _loss(text: str) -> Loss:
    try:
        return loss_named(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _figure_path(text: str) -> Path:
    """Refuse what cannot be written before the work begins, not after."""
    path = Path(text)
    if path.suffix not in PLOT_SUFFIXES:
        raise argparse.ArgumentTypeError(f"expected a file ending in {', '.join(PLOT_SUFFIXES)}, got {text!r}")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {str(path.parent)!r}")
    return path
