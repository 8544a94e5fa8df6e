"""`adaptive-lstm demo`: run the demo, print its table and draw its figure."""

import argparse
from pathlib import Path

from ..output import drawing, estimate, figure_path, show
from .digits import load_task
from .outcome import DemoOutcome
from .run import run

DESCRIPTION = """\
Compare four ways to run a trained LSTM on data it has never seen:

  torch                torch.nn.LSTM
  adaptive exact       this runtime as a drop-in: the same outputs
  adaptive int8        weights and activations in int8
  adaptive certified   int8, and a policy that skips work, with a certified limit on changed answers

The model reads handwritten digits from strips of paper, column by column; it is part of the package, so no network is
needed. Prints quality, the share of the work done, time per sequence and per streaming step, what skipping gained, and
the certificate. Draws time against quality, and what was computed for one strip. One thread; takes about a minute."""

EXAMPLES = """\
  adaptive-lstm demo
  adaptive-lstm demo --out digits.pdf
  adaptive-lstm demo --json > digits.json"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument(
        "--out", type=figure_path, default=Path("adaptive_lstm_demo.png"), metavar="FILE",
        help="file for the figure, .png, .pdf or .svg (default: adaptive_lstm_demo.png)",
    )  # fmt: skip


def execute(options: argparse.Namespace) -> None:
    """Run the command."""
    estimate("calibrating and timing, about a minute")
    outcome = run(load_task())
    show(outcome, as_json=options.json)
    draw_outcome(outcome, options.out)


def draw_outcome(outcome: DemoOutcome, path: Path) -> None:
    """Write the figure, or say that matplotlib is missing."""
    with drawing(path):
        from .plot import draw

        draw(outcome, path)
