"""What skipping saves in time on this machine: a model with its policies against the same model that skips nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from .. import bench
from ..codec import brief, is_whole
from ..errors import InputError
from ..execution.backend import backend_info
from ..model_io import runs_model
from ..policies import Dense
from ..runtime.adapt import adapted_lstms
from .candidates import Settings
from .evaluation import copy_with
from .time_words import in_words
from .workload import Use, workload

TIMING_ROUNDS = 15  # interleaved, of the policies and of none
ROUNDS_AGAIN = (1, 2, 3)  # times as many rounds, until the machine was quiet enough for one of them


@dataclass(frozen=True)
class TimeShare(bench.Ratio):
    """Seconds with policies, as a share of the seconds of the same model when nothing is skipped.

    Below 1 the policies save time.

    Attributes:
        use: how the model was used: "sequence", "stream" or "batch".
        threads: of torch.
        isa: instruction set of the native kernels; "torch" where the reference executor served.
        cpu: model name of the processor.
    """

    use: Use
    threads: int
    isa: str
    cpu: str

    @property
    def slower(self) -> bool:
        """Whether the policies cost time: even the lower quartile is above 1."""
        return self.p25 > 1

    def saves(self, share: float) -> bool:
        """Whether the policies save at least this share of the time, by the upper quartile."""
        return self.meaningful and self.p75 <= 1 - share

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return in_words(self, f"use {self.use!r}, {self.threads} threads, {self.isa}")


@runs_model
def time_policy(
    model: nn.Module, inputs: Sequence[Any], *, use: Use = "sequence", rounds: int = TIMING_ROUNDS
) -> TimeShare:
    """Measure on this machine what the policies of a model save in time.

    Two copies of the model, one with its policies and one that skips nothing, take turns under the protocol of
    ``adaptive_lstm.bench``. A policy that was calibrated on another machine may save more or less here, or nothing.

    Args:
        model: adapted, in eval mode, with the policies that are to be timed.
        inputs: of the model; a dozen of the kind that it will meet. A tuple holds several arguments.
        use: "sequence": the model is called with one input at a time; "stream": its LSTMs advance frame by frame, with
            one row, from zero states; "batch": its LSTMs take the sequences of all inputs in one call.
        rounds: how often each copy runs, at least ``bench.MIN_ROUNDS``.

    Raises:
        InputError: no adapted LSTM, training mode, no inputs, an unknown use, a stream of a bidirectional LSTM, or too
            few rounds.
    """
    if not (is_whole(rounds) and rounds >= bench.MIN_ROUNDS):
        raise InputError(f"rounds: got {brief(rounds)}, expected a whole number from {bench.MIN_ROUNDS}")
    if not isinstance(inputs, list | tuple):
        raise InputError(f"inputs: got {type(inputs).__name__}, expected a list of inputs of the model, such as [x]")
    policies = {name: lstm.policy for name, lstm in adapted_lstms(model).items()}
    return Stopwatch(model, inputs, use, rounds=rounds).time(policies)


class Stopwatch:
    """Times policies of a model one after another, each against nothing skipped.

    Args:
        model: adapted, in eval mode; it is not touched.
        inputs: of the model.
        use: how it will be used.
        rounds: of each contender.
    """

    def __init__(self, model: nn.Module, inputs: Sequence[Any], use: Use, *, rounds: int = TIMING_ROUNDS):
        self._model, self._use, self._rounds = model, use, rounds
        nothing = dict.fromkeys(adapted_lstms(model), Dense())
        dense = copy_with(model, nothing)
        self._work = workload(dense, list(inputs), use)
        self._dense = self._work(dense)

    def time(self, settings: Settings) -> TimeShare:
        """The time share of some policies, by module name; measured again where the machine was not quiet."""
        # Only two models take turns: among a dozen every call would find the caches full of other models' weights.
        contenders = {"policy": self._work(copy_with(self._model, settings)), "dense": self._dense}
        for more in ROUNDS_AGAIN:
            timings = bench.measure(contenders, repeats=more * self._rounds, warmup=1)
            ratio = bench.ratio(timings["policy"], timings["dense"])
            if ratio.meaningful:
                break
        info = backend_info()
        return TimeShare(
            ratio.median,
            ratio.p25,
            ratio.p75,
            ratio.rounds,
            use=self._use,
            threads=torch.get_num_threads(),
            isa=info.isa,
            cpu=bench.cpu_model(),
        )
