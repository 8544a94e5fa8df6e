"""`adaptive-lstm calibrate`: find a policy for a model whose loss is certified, and write the certificate."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import nn

import adaptive_lstm as al

from .. import files
from ..bench import pinned_threads
from ..calibration.families import default_families
from ..calibration.workload import USES, Use
from ..errors import InputError
from ..losses import Loss
from ..runtime.adapt import adapted_lstms
from .frontier import certificate_text, rows, table
from .help import DATA, DEMO_MODEL, MODEL
from .model_file import first_output_or_error
from .options import ModelWithData, add_model_and_data, add_settings, model_with_data
from .output import drawing, remark, show

DESCRIPTION = f"""\
Find the policy that skips most work while the loss on new sequences is certified to stay below a limit that you set, or
report that there is none. A loss compares the output with that of the original float32 model. Prints the best
candidates and the certificate, and writes into a folder

  certificate.json   what is guaranteed, for which model, tested on which data
  frontier.json      every candidate: its cost and its losses
  frontier.png       the same as a figure

{MODEL}

{DATA}

Without split, sequences are split at random, half of them for the test; give it if sequences belong together (one
speaker, one device) and must stay in one split.

LOSS of a sequence, from 0 to 1, is one of

  disagreement         share of the decisions (largest output) that differ from the original's
  accuracy_drop        share of the decisions that the original gets right and the new model wrong; needs y
  cosine_distance      1 - cosine with the original's output, at most 1
  clipped_error:SCALE  mean absolute difference from the original's output, divided by SCALE, at most 1

{DEMO_MODEL}
If nothing can be certified, the exit code is still 0."""

EXAMPLES = """\
  adaptive-lstm calibrate
  adaptive-lstm calibrate my.py:build --data my.npz --loss disagreement --max-loss 0.02 --confidence 0.95 --head fc
  adaptive-lstm calibrate vad.py:build --data vad.npz --loss clipped_error:0.5 --max-loss 0.01 --confidence 0.95
  adaptive-lstm calibrate my.py:build --data my.npz --confidence 0.95 \\
      --loss disagreement --max-loss 0.02 --loss accuracy_drop --max-loss 0.01"""

Objective = Literal["latency", "macs"]

LOSSES = {loss.name: loss for loss in (al.losses.disagreement, al.losses.accuracy_drop, al.losses.cosine_distance)}
SCALED = "clipped_error"
COSTS: dict[Objective, str] = {"latency": "time, measured where it says so", "macs": "multiply-accumulates"}


@dataclass(frozen=True, eq=False)
class CalibratedModel:
    """The result of the command.

    Attributes:
        title: names the model.
        calibration: the candidates and the certificate.
        cost: what is made cheap, in words.
    """

    title: str
    calibration: al.Calibration
    cost: str

    def __str__(self) -> str:
        return f"{table(self.calibration, self.cost)}\n\n{certificate_text(self.calibration.certificate)}"

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON: the certificate and every candidate."""
        certificate = json.loads(self.calibration.certificate.to_json())
        return {"certificate": certificate, "frontier": rows(self.calibration), "cost": self.cost}

    def write(self, folder: Path) -> list[Path]:
        """Write `certificate.json` and `frontier.json` into an existing folder; returns their paths."""
        certificate, frontier = folder / "certificate.json", folder / "frontier.json"
        files.write(certificate, f"{self.calibration.certificate.to_json()}\n".encode())
        candidates = {"cost": self.cost, "candidates": rows(self.calibration)}
        files.write(frontier, f"{json.dumps(candidates, indent=2)}\n".encode())
        return [certificate, frontier]


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    add_model_and_data(parser)
    add = parser.add_argument
    add(
        "--loss", type=_loss, action="append", metavar="LOSS", dest="losses",
        help="loss to limit; repeat it for several",
    )  # fmt: skip
    add(
        "--max-loss", type=float, action="append", metavar="M", dest="limits",
        help="largest acceptable mean loss, above 0 and below 1; once for every --loss",
    )  # fmt: skip
    add(
        "--confidence", type=float, metavar="C",
        help="1 - C is the accepted risk of a false certificate, e.g. C = 0.95",
    )  # fmt: skip
    add(
        "--head", metavar="NAME",
        help="name of the module that reads the LSTM's output, such as fc: allows early exits by its confidence",
    )  # fmt: skip
    add(
        "--objective", choices=tuple(COSTS), default="latency",
        help="what to save: time on this machine or multiply-accumulates (default: latency)",
    )  # fmt: skip
    add(
        "--use", choices=USES, default="sequence",
        help="how the model will be used, which decides what is timed: one sequence a call, one frame a step, or the "
        "sequences of several inputs a call (default: sequence)",
    )  # fmt: skip
    add(
        "--min-gain", type=float, default=0.05, metavar="SHARE",
        help="share of the time that a policy must save to be chosen (default: 0.05)",
    )  # fmt: skip
    add("--seconds", type=float, metavar="S", help="how long the calibration may take (default: as long as it takes)")
    add_settings(parser, "adaptive_lstm_calibration", "FOLDER", "folder for the files")


def execute(options: argparse.Namespace) -> None:
    """Run the command."""
    _complete(options)
    subject = model_with_data(options, "calibrate")
    options.out.mkdir(parents=True, exist_ok=True)  # fails before the work, not after it
    files.require_writable(options.out / "certificate.json")
    with pinned_threads(options.threads):
        found = calibrate_copy(
            subject,
            losses=options.losses,
            limits=options.limits,
            confidence=options.confidence,
            head=options.head,
            objective=options.objective,
            use=options.use,
            min_gain=options.min_gain,
            seconds=options.seconds,
            quantize=al.Quantize(options.quantize),
        )
    show(found, as_json=options.json)
    for path in found.write(options.out):
        remark(f"written: {path}")
    with drawing(options.out / "frontier.png"):
        from .frontier_plot import draw

        draw(found.calibration, options.out / "frontier.png", cost=found.cost, title=found.title)


def _complete(options: argparse.Namespace) -> None:
    """Fill in the demo's own limits; for any other model the user must choose them."""
    if options.model is None and options.data is None:
        from .demo import digits

        options.losses = options.losses or [digits.LOSS]
        options.limits = options.limits or [digits.MAX_LOSS] * len(options.losses)
        options.confidence = options.confidence or digits.CONFIDENCE
        options.head = options.head or digits.HEAD
    elif options.model is not None:
        given = {"--data": options.data, "--loss": options.losses, "--max-loss": options.limits}
        given["--confidence"] = options.confidence
        if missing := [name for name, value in given.items() if not value]:
            raise InputError(f"{options.model} needs {', '.join(missing)} too: what is acceptable has no default")


def calibrate_copy(
    subject: ModelWithData,
    *,
    losses: Sequence[Loss],
    limits: Sequence[float],
    confidence: float,
    head: str | None,
    objective: Objective,
    use: Use,
    min_gain: float,
    seconds: float | None,
    quantize: al.Quantize,
) -> CalibratedModel:
    """Compress a copy of a model and calibrate it.

    Args:
        subject: the model and its sequences.
        losses, limits, confidence: what to certify, one limit for each loss.
        head: name of the submodule that reads the LSTM's output; None: no exits by its confidence.
        objective, use, min_gain, seconds: as of `al.calibrate`.
        quantize: precision of the weights.

    Raises:
        ModelFileError: the model fails on the first sequence.
        AdaptiveLSTMError: from `adapt`, `compress` and `calibrate`.
    """
    model, sequences = subject.model, subject.sequences
    first = (sequences.search if isinstance(sequences, al.Splits) else sequences)[0]
    if first[1] is None and any(loss is al.losses.accuracy_drop for loss in losses):
        raise InputError("accuracy_drop compares with labels, but the sequences have none; add y to the .npz file")
    fast = al.adapt(model)
    al.compress(fast, quantize=quantize)
    policies = None if head is None else _families(fast, head)
    first_output_or_error(model, first[0], subject.title)
    calibration = al.calibrate(
        fast,
        sequences,
        loss=list(losses),
        max_loss=list(limits),
        confidence=confidence,
        policies=policies,
        objective=objective,
        use=use,
        min_gain=min_gain,
        seconds=seconds,
    )
    return CalibratedModel(subject.title, calibration, COSTS[objective])


def _loss(text: str) -> Loss:
    """An argparse type: the loss of `al.losses` with a name, such as "disagreement" or "clipped_error:0.5"."""
    name, _, scale = text.partition(":")
    if name in LOSSES and not scale:
        return LOSSES[name]
    try:
        if name == SCALED:
            return al.losses.clipped_error(float(scale))
    except ValueError as error:  # not a number, or not above 0
        raise argparse.ArgumentTypeError(
            f"{SCALED} needs a scale above 0, for example {SCALED}:0.5, got {text!r}"
        ) from error
    raise argparse.ArgumentTypeError(f"expected {', '.join(LOSSES)} or {SCALED}:SCALE, got {text!r}")


def _families(fast: nn.Module, head: str) -> list[al.Family]:
    """All families that apply to the LSTMs, with exits by the confidence of the head."""
    module = dict(fast.named_modules()).get(head)
    if module is None or not head:
        linear = [name for name, m in fast.named_modules() if isinstance(m, nn.Linear)]
        raise InputError(f"the model has no module named {head!r}; its linear modules: {', '.join(linear) or 'none'}")
    shapes = {name: lstm.stack_shape for name, lstm in adapted_lstms(fast).items()}
    exits: list[al.Family] = []
    if not any(shape.bidirectional for shape in shapes.values()):
        exits.append(al.Family(al.ExitInTime, head=module))
    if all(shape.num_layers > 1 for shape in shapes.values()):
        exits.append(al.Family(al.ExitInDepth, head=module))
    without = [family for family in default_families(shapes) if family.kind.decision != "time_exit"]
    return without + (exits or [al.Family(al.ExitInTime, head=module)])  # calibrate refuses it with the reason
