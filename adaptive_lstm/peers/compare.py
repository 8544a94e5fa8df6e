"""Check and time torch, the drop-in and other runtimes on one LSTM: the measurement behind `adaptive-lstm bench`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..bench import Ratio, Timing, ratio
from ..errors import InputError
from ..weights.precision import Precision
from . import Unavailable, Verification, build, build_adaptive, verify_contenders
from .races import time_sequences, time_steps

TORCH = "torch"
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")
USES = ("sequence", "step")
TIMED = 4  # sequences in one sample, at most
STEPPED = 100  # timesteps in one sample of streaming, about


@dataclass(frozen=True)
class ContenderTiming:
    """Time of one contender in one use.

    Attributes:
        timing: seconds per sequence or per step.
        gain: how many times as long torch takes.
    """

    timing: Timing
    gain: Ratio

    def as_dict(self) -> dict[str, object]:
        """Plain numbers for a JSON record; times in seconds."""
        return {"seconds": self.timing.as_dict(), "torch_over_this": self.gain.as_dict()}


@dataclass(frozen=True)
class ContenderInfo:
    """A contender before it is timed; of whole sequences and streams the worse figure counts.

    Attributes:
        precision: of its weights.
        nbytes: bytes of its weights; None if the runtime does not report it.
        error: largest absolute difference of an output from torch's in float32.
        cosine: of all its outputs with torch's.
    """

    precision: str
    nbytes: int | None
    error: float
    cosine: float

    def as_dict(self) -> dict[str, object]:
        """Plain numbers for a JSON record."""
        return {"precision": self.precision, "bytes": self.nbytes, "error": self.error, "cosine": self.cosine}


@dataclass(frozen=True)
class Comparison:
    """Contenders on one LSTM.

    Attributes:
        contenders: by name, torch first.
        sequence: name -> time of a whole sequence in one call; empty if not in ``uses``.
        step: name -> time of one step of a stream; empty if not in ``uses`` or bidirectional.
        unavailable: contenders that were not timed, with the reason: a missing package, or wrong outputs.
    """

    contenders: dict[str, ContenderInfo]
    sequence: dict[str, ContenderTiming]
    step: dict[str, ContenderTiming]
    unavailable: list[Unavailable]

    def as_dict(self) -> dict[str, object]:
        """Plain numbers for a JSON record."""
        uses = {"sequence": self.sequence, "step": self.step}
        return {
            **{use: {name: each.as_dict() for name, each in found.items()} for use, found in uses.items()},
            "contenders": {name: info.as_dict() for name, info in self.contenders.items()},
            "unavailable": {one.name: one.reason for one in self.unavailable},
        }


@torch.no_grad()
def compare(
    lstm: nn.LSTM,
    inputs: Sequence[Tensor],
    *,
    fit: Sequence[Tensor] = (),
    peers: Iterable[str] = (),
    uses: Iterable[str] = USES,
    threads: int,
    seconds: float,
) -> Comparison:
    """Check all contenders on the inputs, then time them on the first few, batch 1.

    Args:
        lstm: in eval mode.
        inputs: sequences [1, T, I] of the LSTM's own inputs, for checking and timing.
        fit: further ones, for peers that calibrate.
        peers: names of `adaptive_lstm.peers.PEERS` beside torch.
        uses: of USES; a bidirectional stack has no steps.
        threads: of all contenders but torch: pin torch's around the call.
        seconds: how long the timing of each use takes, about.

    Raises:
        InputError: there are no inputs, or a peer is unknown.
    """
    uses = tuple(uses)
    if not inputs:
        raise InputError("got no inputs, expected at least one sequence [1, T, I] to check and to time on")
    names = [TORCH, *(name for name in dict.fromkeys(peers) if name != TORCH)]
    present, missing = build(lstm, names, threads=threads, inputs=fit)
    ours = [build_adaptive(lstm, precision) for precision in PRECISIONS]
    found = verify_contenders([*present, *ours], lstm, inputs)
    timed = list(inputs[:TIMED])
    sequence, step = dict[str, Timing](), dict[str, Timing]()
    if "sequence" in uses:
        sequence = time_sequences(found.verified, timed, seconds=seconds)
    if "step" in uses and not lstm.bidirectional:
        few = [x[:, : max(1, STEPPED // len(timed))] for x in timed]
        step = time_steps(found.verified, few, seconds=seconds)
    return Comparison(_infos(found), _against_torch(sequence), _against_torch(step), missing + found.excluded)


def _infos(found: Verification) -> dict[str, ContenderInfo]:
    return {
        who.name: ContenderInfo(who.precision, who.nbytes, found.errors[who.name], found.cosines[who.name])
        for who in found.verified
    }


def _against_torch(timings: dict[str, Timing]) -> dict[str, ContenderTiming]:
    return {name: ContenderTiming(timing, ratio(timings[TORCH], timing)) for name, timing in timings.items()}
