"""What `adaptive-lstm calibrate` does: compress and calibrate a model, and put what was found into a folder."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import nn

import adaptive_lstm as al

from ..calibration.families import default_families
from ..errors import InputError
from ..losses import Loss
from ..runtime.adapt import adapted_lstms
from .frontier import proof, records, render
from .model_file import tried
from .sequence_file import Pair

Objective = Literal["latency", "macs"]
Subject = tuple[str, nn.Module, list[Pair] | al.Splits[Pair]]
"""What is calibrated, as `certify` takes it: title, model, sequences."""

LOSSES = {loss.name: loss for loss in (al.losses.disagreement, al.losses.accuracy_drop, al.losses.cosine_distance)}
SCALED = "clipped_error"
COSTS: dict[Objective, str] = {"latency": "predicted time of the LSTM", "macs": "multiply-accumulates"}


@dataclass(frozen=True, eq=False)
class Certification:
    """A calibration, and what its costs are shares of; `title` names the model."""

    title: str
    calibration: al.Calibration
    cost: str

    def __str__(self) -> str:
        return f"{render(self.calibration, self.cost)}\n\n{proof(self.calibration.certificate)}"

    def as_dict(self) -> dict[str, object]:
        """The certificate and every candidate as plain values."""
        certificate = json.loads(self.calibration.certificate.to_json())
        return {"certificate": certificate, "frontier": records(self.calibration), "cost": self.cost}

    def write(self, folder: Path) -> list[Path]:
        """Write `certificate.json` and `frontier.json` into a folder that exists; returns where they are."""
        certificate, frontier = folder / "certificate.json", folder / "frontier.json"
        certificate.write_text(self.calibration.certificate.to_json() + "\n", encoding="utf-8")
        candidates = {"cost": self.cost, "candidates": records(self.calibration)}
        frontier.write_text(json.dumps(candidates, indent=2) + "\n", encoding="utf-8")
        return [certificate, frontier]


def certify(
    title: str,
    model: nn.Module,
    sequences: list[Pair] | al.Splits[Pair],
    *,
    losses: Sequence[Loss],
    limits: Sequence[float],
    confidence: float,
    head: str | None,
    objective: Objective,
    quantize: al.Quantize,
    progress: bool,
) -> Certification:
    """Compress a copy of a model and calibrate it.

    Args:
        title: names the model in messages.
        model: in eval mode, with at least one LSTM.
        sequences: (inputs, target) pairs, see `sequencefile`.
        losses, limits, confidence: what to promise, one limit for each loss.
        head: name of the submodule that reads the LSTM's output, for exits; None: without exits that ask it.
        objective: what to make cheap.
        quantize: precision of the weights.
        progress: show a bar.

    Raises:
        ModelFileError: the model fails on the first sequence.
        AdaptiveLSTMError: what `adapt`, `compress` and `calibrate` raise.
    """
    first = (sequences.search if isinstance(sequences, al.Splits) else sequences)[0]
    if first[1] is None and any(loss is al.losses.accuracy_drop for loss in losses):
        raise InputError("accuracy_drop compares with labels, and the sequences have none; add y to the file of data")
    fast = al.adapt(model)
    al.compress(fast, quantize=quantize)
    policies = None if head is None else _families(fast, head)
    tried(model, first[0], title)
    calibration = al.calibrate(
        fast,
        sequences,
        loss=list(losses),
        max_loss=list(limits),
        confidence=confidence,
        policies=policies,
        objective=objective,
        progress=progress,
    )
    return Certification(title, calibration, COSTS[objective])


def loss_named(text: str) -> Loss:
    """The loss of `al.losses` that a word names, "clipped_error:0.5" with its scale.

    Raises InputError for another word.
    """
    name, _, scale = text.partition(":")
    if name in LOSSES and not scale:
        return LOSSES[name]
    try:
        if name == SCALED:
            return al.losses.clipped_error(float(scale))
    except ValueError as error:  # no number, or one that is refused
        raise InputError(f"{SCALED} needs a scale above 0, for example {SCALED}:0.5, got {text!r}") from error
    raise InputError(f"expected {', '.join(LOSSES)} or {SCALED}:SCALE, got {text!r}")


def _families(fast: nn.Module, head: str) -> list[al.Family]:
    """All families that apply, with exits that ask the head."""
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
    without = [family for family in default_families(shapes) if family.kind.question != "time_exit"]
    return without + (exits or [al.Family(al.ExitInTime, head=module)])  # which is refused with the reason
