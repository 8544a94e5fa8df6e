"""What `adaptive-lstm compress` does: compress a model, measure what that changes, and write the artifact."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

import adaptive_lstm as al

from ..compression.compress import Rounding
from ..compression.pruning.prune_model import hold_out
from ..compression.within_budget import outputs, relative_change
from ..errors import InputError
from ..model_io import first_tensor, together
from .model_file import tried
from .sequence_file import Pair


@dataclass(frozen=True, eq=False)
class Compression:
    """A compressed copy of a model.

    change: root mean square change of the output over its root mean square deviation, on sequences that nothing was
    fitted on; cosine: mean cosine between the output and the original one, per sequence; sequences: how many.
    """

    title: str
    model: nn.Module
    report: al.CompressReport
    change: float
    cosine: float
    sequences: int

    def __str__(self) -> str:
        return (
            f"{self.title}\n\n{self.report}\n\noutput on {self.sequences} sequences that nothing was fitted on: "
            f"changed by {self.change:.2%} of its deviation, cosine with the original {self.cosine:.4f}"
        )

    def as_dict(self) -> dict[str, object]:
        """The report and the change as plain values."""
        found = {"change": self.change, "cosine": self.cosine, "sequences": self.sequences}
        return {"title": self.title, "report": self.report.as_dict(), "output": found}

    def write(self, path: Path) -> None:
        """Write the artifact, see `adaptive_lstm.save`."""
        al.save(self.model, path)


def compressed(
    title: str,
    model: nn.Module,
    sequences: list[Pair] | al.Splits[Pair],
    *,
    prune: al.Prune | None,
    quantize: al.Quantize,
    rounding: Rounding,
    progress: bool,
) -> Compression:
    """Compress a copy of a model.

    Args:
        title: names the model in messages.
        model: in eval mode, with at least one LSTM.
        sequences: (inputs, target) pairs; targets are not used. The fit part of splits is fitted on and the rest
            measures; without splits every fourth measures.
        prune, quantize, rounding: as for `adaptive_lstm.compress`.
        progress: show a bar.

    Raises:
        InputError: fewer than eight sequences.
        ModelFileError: the model fails on the first sequence.
        AdaptiveLSTMError: what `adapt` and `compress` raise.
    """
    if isinstance(sequences, al.Splits):
        fit, other = [p[0] for p in sequences.fit], [p[0] for p in (*sequences.search, *sequences.test)]
    else:
        fit, other = hold_out([p[0] for p in sequences])
    if min(len(fit), len(other)) < 2:
        raise InputError(f"got {len(fit)} sequences to fit on and {len(other)} to measure on, expected 2 at least")
    fast = al.adapt(model)
    first_tensor(tried(model, fit[0], title))
    report = al.compress(fast, together(fit), prune=prune, quantize=quantize, rounding=rounding, progress=progress)
    old, new = outputs(model, other), outputs(fast, other)
    cosines = [float(torch.cosine_similarity(a.flatten(), b.flatten(), dim=0)) for a, b in zip(old, new, strict=True)]
    change = relative_change(old, new)
    return Compression(title, fast, report, change, sum(cosines) / len(cosines), len(other))
