"""Options that several commands share, and the model and the sequences that MODEL and --data name."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from ..calibration.splits import Splits
from ..errors import InputError
from .model_file import load_model
from .sequence_file import LabelledSequence, load_sequences

QUANTIZE = ("int8", "bf16", "fp32")


@dataclass(frozen=True, eq=False)
class ModelWithData:
    """A model and its sequences.

    Attributes:
        title: names the model in output and messages.
        model: in eval mode, with at least one LSTM.
        sequences: (inputs, target) pairs, split or not.
    """

    title: str
    model: nn.Module
    sequences: list[LabelledSequence] | Splits[LabelledSequence]


def positive(text: str) -> int:
    """An argparse type: an integer of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, got {text!r}")
    return int(text)


def add_model_and_data(parser: argparse.ArgumentParser) -> None:
    """MODEL and --data; the demo's if both are missing."""
    parser.add_argument("model", metavar="MODEL", nargs="?", help="file.py:factory")
    parser.add_argument("--data", type=Path, metavar="DATA", help=".npz file of sequences; needed with MODEL")


def add_threads(parser: argparse.ArgumentParser) -> None:
    """--threads: of the command's own work."""
    parser.add_argument("--threads", type=positive, default=1, metavar="N", help="number of threads (default: 1)")


def add_settings(parser: argparse.ArgumentParser, out: str, metavar: str, what: str) -> None:
    """--quantize, --threads, and --out: where the result is written, ``out`` by default."""
    parser.add_argument("--quantize", choices=QUANTIZE, default="int8", help="precision of the weights (default: int8)")
    add_threads(parser)
    parser.add_argument("--out", type=Path, default=Path(out), metavar=metavar, help=f"{what} (default: {out})")


def model_with_data(options: argparse.Namespace, command: str) -> ModelWithData:
    """The model and the sequences that MODEL and --data name, or those of the demo.

    Raises:
        InputError: one of the two is missing, or the sequences do not fit their description.
        ModelFileError: from `model_file` and `sequence_file`.
    """
    if (options.model is None) != (options.data is None):
        missing, given = ("MODEL", "--data") if options.model is None else ("--data", "MODEL")
        raise InputError(
            f"{given} needs {missing} too: adaptive-lstm {command} path/to/file.py:factory --data path/to/data.npz"
        )
    if options.model is None:
        from .demo.digits import load_task

        task = load_task()
        return ModelWithData(task.title, task.model, task.splits)
    return ModelWithData(options.model, load_model(options.model), load_sequences(options.data))
