"""`adaptive-lstm compress`: compress a copy of a model, measure how its output changes, and write the file."""

import argparse
from dataclasses import dataclass

import torch
from torch import nn

import adaptive_lstm as al

from .. import files
from ..bench import pinned_threads
from ..compression.compress import ROUNDINGS, Rounding
from ..compression.output_error import outputs, relative_change
from ..compression.pruning.prune_model import hold_out
from ..errors import InputError
from ..model_io import batch_by_shape, first_tensor
from .help import DATA, DEMO_MODEL, MODEL
from .model_file import first_output_or_error
from .options import ModelWithData, add_model_and_data, add_settings, model_with_data
from .output import remark, show

DESCRIPTION = f"""\
Quantize and, if you ask for it, prune the LSTMs of a model, without training. Pruning removes the weights that the
model's output depends on least and refits the others, with settings chosen on held-out sequences.

Prints the precision, zeros and bytes of every matrix, the time of a step before and after, and how much the output
changes on held-out sequences: those not marked "fit", or every fourth without split. Writes a file for
adaptive_lstm.load(FILE, model); it holds the compressed weights, not the original ones.

{MODEL}

{DATA}

y is not used. {DEMO_MODEL}

Unstructured zeros mostly save bytes; removed units, columns and blocks also save time."""

EXAMPLES = """\
  adaptive-lstm compress
  adaptive-lstm compress --pattern unit --sparsity 0.25
  adaptive-lstm compress my.py:build --data my.npz --pattern block --sparsity 0.3 --out small.alstm"""


@dataclass(frozen=True, eq=False)
class CompressedModel:
    """A compressed copy of a model, and how its output changed on held-out sequences.

    Attributes:
        title: names the model.
        model: the copy.
        report: its matrices.
        change: root mean square change of the output over its root mean square deviation.
        cosine: between the output and the original one, averaged over sequences.
        sequences: number of held-out sequences.
    """

    title: str
    model: nn.Module
    report: al.CompressReport
    change: float
    cosine: float
    sequences: int

    def __str__(self) -> str:
        return (
            f"{self.title}\n\n{self.report}\n\noutput on {self.sequences} held-out sequences: changed by "
            f"{self.change:.2%} of its standard deviation, cosine with the original {self.cosine:.4f}"
        )

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        found = {"change": self.change, "cosine": self.cosine, "sequences": self.sequences}
        return {"title": self.title, "report": self.report.as_dict(), "output": found}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    add_model_and_data(parser)
    add = parser.add_argument
    add(
        "--pattern", metavar="P",
        help="what to remove: unstructured (single weights), 2:4 (or any N:M), block, column or unit "
        "(default: unstructured)",
    )  # fmt: skip
    add(
        "--sparsity", type=float, metavar="S",
        help="share to remove, 0 to 1 (default: half, or what N:M says, beside --pattern; nothing without it)",
    )  # fmt: skip
    add("--rounding", choices=ROUNDINGS, default="nearest", help="rounding to int8 (default: nearest)")
    add_settings(parser, "model.alstm", "FILE", "the file, for adaptive_lstm.load")


def execute(options: argparse.Namespace) -> None:
    """Run the command."""
    files.require_writable(options.out)  # fails before the work, not after it
    subject = model_with_data(options, "compress")
    pattern, sparsity = options.pattern, options.sparsity
    wanted = sparsity > 0 if sparsity is not None else pattern is not None
    prune = al.Prune(pattern or "unstructured", sparsity) if wanted else None
    with pinned_threads(options.threads):
        found = compress_copy(subject, prune=prune, quantize=al.Quantize(options.quantize), rounding=options.rounding)
    al.save(found.model, options.out)
    show(found, as_json=options.json)
    remark(f"written: {options.out}")


def compress_copy(
    subject: ModelWithData,
    *,
    prune: al.Prune | None,
    quantize: al.Quantize,
    rounding: Rounding,
) -> CompressedModel:
    """Compress a copy of a model and measure how its output changes.

    Args:
        subject: the model and its sequences; targets are not used. The fit split is fitted on and the others are held
            out; without splits every fourth sequence is held out.
        prune, quantize, rounding: as for `adaptive_lstm.compress`.

    Raises:
        InputError: fewer than two sequences to fit on, or fewer than two held out.
        ModelFileError: the model fails on the first sequence.
        AdaptiveLSTMError: from `adapt` and `compress`.
    """
    model, sequences = subject.model, subject.sequences
    if isinstance(sequences, al.Splits):
        fit, held_out = [x for x, _ in sequences.fit], [x for x, _ in (*sequences.search, *sequences.test)]
    else:
        fit, held_out = hold_out([x for x, _ in sequences])
    if min(len(fit), len(held_out)) < 2:
        raise InputError(
            f"got {len(fit)} sequences to fit on and {len(held_out)} held out, expected at least 2 of each"
        )
    fast = al.adapt(model)
    first_tensor(first_output_or_error(model, fit[0], subject.title))
    report = al.compress(fast, batch_by_shape(fit), prune=prune, quantize=quantize, rounding=rounding)
    old, new = outputs(model, held_out), outputs(fast, held_out)
    cosines = [float(torch.cosine_similarity(a.flatten(), b.flatten(), dim=0)) for a, b in zip(old, new, strict=True)]
    change = relative_change(old, new)
    return CompressedModel(subject.title, fast, report, change, sum(cosines) / len(cosines), len(held_out))
