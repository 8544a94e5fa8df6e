"""Torch, the drop-in and other runtimes on one LSTM, checked and raced: what `adaptive-lstm bench` says."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..bench import Ratio, Timing, ratio
from ..errors import InputError
from ..weights.precision import Precision
from . import Absent, Checked, Contender, adaptive, build, check
from .races import Call, timed

TORCH = "torch"
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")
USES = ("sequence", "step")
REPLAYED = 4  # sequences in one timed call, at most
STEPPED = 100  # steps in one timed call, about; the next call goes on where it stopped


@dataclass(frozen=True)
class Measured:
    """One contender at one use: seconds, and how many times as long torch takes."""

    timing: Timing
    gain: Ratio

    def as_dict(self) -> dict[str, object]:
        """Plain numbers for a JSON record; times in seconds."""
        return {"seconds": self.timing.as_dict(), "torch_over_this": self.gain.as_dict()}


@dataclass(frozen=True)
class Told:
    """What is known of a contender before the race.

    nbytes: of its weights, None where nobody says; error: largest difference of an output from torch's in float32,
    cosine: with all of torch's outputs, over whole sequences or the stream, whichever is worse.
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
    """Contenders, torch first, and what they took for a whole sequence in one call and for one step of a stream.

    step is empty for a bidirectional LSTM, which needs the end of a sequence before it can begin; either is where it
    was not asked for. absent: who does not take part, and why: packages that are missing, outputs that are wrong.
    """

    contenders: dict[str, Told]
    sequence: dict[str, Measured]
    step: dict[str, Measured]
    absent: list[Absent]

    def as_dict(self) -> dict[str, object]:
        """Plain numbers for a JSON record."""
        uses = {"sequence": self.sequence, "step": self.step}
        return {
            **{use: {name: each.as_dict() for name, each in found.items()} for use, found in uses.items()},
            "contenders": {name: told.as_dict() for name, told in self.contenders.items()},
            "absent": {one.name: one.reason for one in self.absent},
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
    """Check everybody on the inputs, then race them on the first few, batch 1.

    Args:
        lstm: in eval mode.
        inputs: sequences [1, T, I] of the LSTM's own inputs, for checking and timing.
        fit: more of them, for peers that calibrate.
        peers: names of `adaptive_lstm.peers.PEERS` beside torch.
        uses: of USES; a stack in both directions has no steps.
        threads: of everybody but torch: pin torch's around the call.
        seconds: how long the race of each use takes, about.

    Raises:
        InputError: there are no inputs, or a peer is unknown.
    """
    if not inputs:
        raise InputError("there are no inputs to check and to time on")
    names = [TORCH, *(name for name in dict.fromkeys(peers) if name != TORCH)]
    present, absent = build(lstm, names, threads=threads, inputs=fit)
    found = check([*present, *(adaptive(lstm, precision) for precision in PRECISIONS)], lstm, inputs)
    chosen = list(inputs[:REPLAYED])
    uses = [use for use in uses if use == "sequence" or not lstm.bidirectional]
    taken = {use: _race(use, found.right, chosen, seconds) for use in uses}
    return Comparison(_told(found), taken.get("sequence", {}), taken.get("step", {}), absent + found.wrong)


def _told(found: Checked) -> dict[str, Told]:
    return {
        who.name: Told(who.precision, who.nbytes, found.errors[who.name], found.cosines[who.name])
        for who in found.right
    }


def _race(use: str, contenders: list[Contender], inputs: list[Tensor], seconds: float) -> dict[str, Measured]:
    if use == "sequence":
        calls = {who.name: _in_turn([(who.whole(x), 1) for x in inputs]) for who in contenders}
        timings = timed(calls, seconds=seconds, per_call=len(inputs))
    else:
        each = max(1, STEPPED // len(inputs))
        calls = {who.name: _in_turn([(who.stream(x), each) for x in inputs]) for who in contenders}
        timings = timed(calls, seconds=seconds, per_call=each * len(inputs))
    return {name: Measured(timing, ratio(timings[TORCH], timing)) for name, timing in timings.items()}


def _in_turn(calls: list[tuple[Call, int]]) -> Call:
    """Every call as often as its number says, one after the other."""

    def run() -> None:
        for call, times in calls:
            for _ in range(times):
                call()

    return run
