"""Torch against the drop-in in fp32 and int8, nothing skipped, on random inputs: what `adaptive-lstm bench` says."""

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import nn

from . import race
from .bench import Ratio, Timing, format_seconds, ratio
from .compress import compress
from .quantize import Precision, Quantize
from .runtime import AdaptiveLSTM
from .text import aligned, spread

TORCH = "torch"
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")
REPLAYED = 1  # random sequences in one timed call


@dataclass(frozen=True)
class Measured:
    """One contender at one use: seconds, and how many times as long torch takes."""

    timing: Timing
    gain: Ratio

    def cells(self) -> tuple[str, str]:
        """The two figures as text."""
        return format_seconds(self.timing.median), spread(self.gain)

    def as_dict(self) -> dict[str, object]:
        """Plain numbers for a JSON record; times in seconds."""
        return {"seconds": self.timing.as_dict(), "torch_over_this": self.gain.as_dict()}


@dataclass(frozen=True)
class Comparison:
    """Contender -> what it took, torch first, for a whole sequence in one call and for one step of a stream.

    step is empty for a bidirectional LSTM, which needs the end of a sequence before it can begin.
    """

    sequence: dict[str, Measured]
    step: dict[str, Measured]

    def as_dict(self) -> dict[str, object]:
        """Plain numbers for a JSON record."""
        uses = {"sequence": self.sequence, "step": self.step}
        return {use: {name: each.as_dict() for name, each in found.items()} for use, found in uses.items()}

    def __str__(self) -> str:
        rows = [["", "sequence", "torch / this", "step", "torch / this"]]
        for name, whole in self.sequence.items():
            rows.append([name, *whole.cells(), *(self.step[name].cells() if self.step else ("no streaming", ""))])
        return aligned(rows)


@torch.no_grad()
def compare(lstm: nn.LSTM, *, steps: int, seconds: float) -> Comparison:
    """Race on sequences of `steps` steps, batch 1; `seconds` is about how long each of the two races takes."""
    original = deepcopy(lstm).eval()
    original.batch_first = True
    lstms: dict[str, nn.LSTM] = {TORCH: original}
    for precision in PRECISIONS:
        fast = AdaptiveLSTM.from_lstm(original).eval()
        if precision != "fp32":
            compress(fast, quantize=Quantize(precision))
        lstms[f"adaptive {precision}"] = fast
    inputs = torch.randn(REPLAYED, steps, lstm.input_size)
    sequence = race.whole_sequences(lstms, inputs, seconds=seconds)
    step = {} if lstm.bidirectional else race.steps(lstms, inputs, seconds=seconds)
    return Comparison(_with_gains(sequence), _with_gains(step))


def _with_gains(timings: dict[str, Timing]) -> dict[str, Measured]:
    return {name: Measured(timing, ratio(timings[TORCH], timing)) for name, timing in timings.items()}
