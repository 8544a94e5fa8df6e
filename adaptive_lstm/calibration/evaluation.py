"""Runs candidates over sequences: their losses, their work and their time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from ..errors import InputError, NonFiniteError
from ..losses import Loss, Sizes
from ..model_io import call, copied, first_tensor, picked
from ..policies import Dense, parts
from ..runtime.adapt import adapted_lstms, keep_settings
from ..runtime.call import Call
from ..runtime.lstm import AdaptiveLSTM
from ..runtime.monitor import RATES, rates_of
from ..types import DoubleArray, RunStats
from ..weights.precision import Quantize
from .candidates import Settings
from .latency_model import ExecutionProfile, Work, work_of


@dataclass(frozen=True)
class LabelledInput:
    """One sequence, with the output that it should give.

    Attributes:
        inputs: as the model takes them.
        target: as the losses take it, or None.
        dense: the output of the original model: float32, nothing replaced or skipped.
        sizes: of the longest call of its LSTMs.
    """

    inputs: Any
    target: Any
    dense: Any
    sizes: Sizes


@dataclass(frozen=True, eq=False)
class Outcome:
    """What one candidate did on n sequences.

    Attributes:
        losses: [n, losses], in [0, 1].
        seconds: [n] in the LSTMs.
        work: [n, features], the fields of ``Work``.
        macs: [n] multiply-accumulates done.
        macs_possible: [n] multiply-accumulates if nothing is skipped.
        exit_times: [n] timesteps after which the sequence exited; 0 if it did not.
        rates: by module name [calls, RATES]: as ``Monitor`` sees them.
    """

    losses: DoubleArray
    seconds: DoubleArray
    work: DoubleArray
    macs: DoubleArray
    macs_possible: DoubleArray
    exit_times: npt.NDArray[np.int64]
    rates: Mapping[str, DoubleArray]

    @property
    def macs_share(self) -> float:
        """Multiply-accumulates done, as a share of those possible."""
        return float(self.macs.sum() / self.macs_possible.sum())


@contextmanager
def original(lstms: Mapping[str, AdaptiveLSTM]) -> Iterator[None]:
    """Inside the block the LSTMs execute their parameters in float32 and skip nothing; then they are as before."""
    with unskipped(lstms):
        for lstm in lstms.values():
            lstm.replaced = None
        yield


@contextmanager
def unskipped(lstms: Mapping[str, AdaptiveLSTM]) -> Iterator[None]:
    """Inside the block the LSTMs run in float32, with replaced weights if they have some, and skip nothing."""
    with keep_settings(lstms.values()):
        for lstm in lstms.values():
            lstm.policy, lstm.quantize = Dense(), Quantize()
        yield


@contextmanager
def skipping(lstms: Mapping[str, AdaptiveLSTM], settings: Settings) -> Iterator[None]:
    """Inside the block the LSTMs run with some policies; then they are as before."""
    with keep_settings(lstms.values()):
        for name, lstm in lstms.items():
            lstm.policy = settings[name]
        yield


def copy_with(model: nn.Module, settings: Settings) -> nn.Module:
    """A copy of a model that runs with some policies."""
    copy = copied(model)
    for name, lstm in adapted_lstms(copy).items():
        lstm.policy = settings[name]
    return copy


@dataclass(frozen=True)
class _Call:
    """One call of an LSTM with so many batch rows; ``exit_time`` as in ``Outcome``, for a call with one row."""

    name: str
    stats: RunStats
    work: Work
    rows: int
    steps: int
    exit_time: int


class CallMeter:
    """Times the calls of the LSTMs and collects their statistics, sequence by sequence."""

    def __init__(self, lstms: Mapping[str, AdaptiveLSTM]):
        self.lstms = lstms
        self.seconds = 0.0
        self.calls: list[_Call] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Measures every call inside the block; policies must not change in it."""
        with ExitStack() as watched:
            for name, lstm in self.lstms.items():
                watched.enter_context(lstm.watched_by(self._counting(name, lstm)))
            yield

    def _counting(self, name: str, lstm: AdaptiveLSTM) -> Callable[[Call], None]:
        shape, profile, exits = lstm.stack_shape, ExecutionProfile.of(lstm), parts(lstm.policy).time_exit

        def count(made: Call) -> None:
            self.seconds += made.seconds
            stats = made.stats
            assert stats is not None, "no other runner serves the LSTM"
            # One row is checked at regular intervals until it exits.
            exit_time = stats.exit_checks * exits.check_every if exits is not None and stats.exits else 0
            self.calls.append(_Call(name, stats, work_of(shape, profile, stats), made.rows, _steps(made), exit_time))

        return count

    def clear(self) -> None:
        """Start the next sequence."""
        self.seconds, self.calls = 0.0, []


def _steps(made: Call) -> int:
    """Timesteps of the longest row."""
    if isinstance(made.input, PackedSequence):
        return len(made.input.batch_sizes)
    assert made.stats is not None
    return made.stats.timesteps // max(made.rows, 1)


class SpeedReference:
    """The machine's speed now: a copy of the model that skips nothing, timed before and after every candidate.

    The speed of a shared machine drifts over the minutes of a search, and the search compares candidates that ran
    minutes apart.
    """

    SAMPLES, ROUNDS = 2, 3

    def __init__(self, model: nn.Module):
        self._model = copy_with(model, dict.fromkeys(adapted_lstms(model), Dense()))
        self._first: float | None = None

    def drift(self, sequences: Sequence[LabelledInput]) -> float:
        """Seconds that the first few sequences take, as a multiple of what they took at first."""
        seconds = []
        for _ in range(self.ROUNDS):
            start = time.perf_counter()
            for item in sequences[: self.SAMPLES]:
                call(self._model, item.inputs)
            seconds.append(time.perf_counter() - start)
        now = float(np.median(seconds))
        if self._first is None:
            self._first = float(np.min(seconds))  # the first round also packed the weights
        return now / self._first


class Evaluator:
    """Runs a model with different policies over sequences.

    Args:
        model: an adapted model in eval mode, compressed as it will be deployed.
        lstms: its adapted LSTMs.
        losses: to compute for every sequence.
        output: picks the tensor that must be finite from what the model returns.
        tick: called after every sequence, for a progress bar.
    """

    def __init__(
        self,
        model: nn.Module,
        lstms: Mapping[str, AdaptiveLSTM],
        losses: Sequence[Loss],
        output: Callable[[Any], torch.Tensor] = first_tensor,
        tick: Callable[[], object] = lambda: None,
    ):
        self.model, self.lstms, self.losses, self.output, self._tick = model, lstms, losses, output, tick
        self._speed: SpeedReference | None = None  # a copy of the model: made where time counts

    @torch.no_grad()
    def label(self, sequences: Sequence[tuple[Any, Any]], *, one_row: bool = False) -> list[LabelledInput]:
        """Run the original model.

        Args:
            sequences: each as (inputs, target).
            one_row: refuse sequences that are not one batch row of one call.

        Raises:
            NonFiniteError: an output holds NaN or infinity.
            InputError: the model calls no LSTM, or calls it otherwise than ``one_row`` wants.
            CalibrationError: a loss outside [0, 1] or NaN.
        """
        meter = CallMeter(self.lstms)
        labelled = []
        with original(self.lstms), meter.watching():
            for inputs, target in sequences:
                meter.clear()
                dense = call(self.model, inputs)
                sizes = max((Sizes(c.steps, c.rows) for c in meter.calls), key=lambda s: s.steps, default=Sizes(0, 0))
                item = LabelledInput(inputs, target, dense, sizes)
                if not bool(torch.isfinite(picked(self.output, item.dense)).all()):
                    raise NonFiniteError("the original model returns NaN or infinity for a sequence; clean the inputs")
                if not meter.calls:
                    raise InputError("the model's output was computed without calling any of its LSTMs")
                if one_row and [c.rows for c in meter.calls] != [1]:
                    raise InputError(
                        f"conditional=True: got {len(meter.calls)} LSTM calls with {[c.rows for c in meter.calls]} "
                        "batch rows for one sequence, expected one call with one row, which exits at one time"
                    )
                for loss in self.losses:
                    self._loss(loss, item.dense, item)  # shows a wrong loss or target now, not after minutes
                labelled.append(item)
                self._tick()
        return labelled

    @torch.no_grad()
    def run(self, settings: Settings, sequences: Sequence[LabelledInput]) -> Outcome:
        """Run all sequences one by one, as a service would at batch 1.

        Raises:
            CalibrationError: a loss outside [0, 1] or NaN.
        """
        meter = CallMeter(self.lstms)
        rows = []
        rates: dict[str, list[Any]] = {name: [] for name in self.lstms}
        with skipping(self.lstms, settings), meter.watching():
            call(self.model, sequences[0].inputs)  # packs the weights for the new policy
            for item in sequences:
                meter.clear()
                out = call(self.model, item.inputs)
                calls = meter.calls
                rows.append(
                    (
                        [self._loss(loss, out, item) for loss in self.losses],
                        meter.seconds,
                        Work.total(c.work for c in calls),
                        sum(c.stats.macs for c in calls),
                        sum(c.stats.macs_possible for c in calls),
                        max((c.exit_time for c in calls), default=0),
                    )
                )
                for c in calls:
                    rates[c.name].append(rates_of(c.stats, c.stats.timesteps, c.rows))
                self._tick()
        columns = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
        losses, seconds, work, macs, possible, exit_times = columns
        by_name = {name: np.reshape(r, (-1, len(RATES))) for name, r in rates.items()}
        return Outcome(losses, seconds, work, macs, possible, exit_times.astype(np.int64), by_name)

    @torch.no_grad()
    def timed(self, settings: Settings, sequences: Sequence[LabelledInput]) -> Outcome:
        """As ``run``, with the seconds corrected for the drift of the machine's speed since the first call."""
        self._speed = self._speed or SpeedReference(self.model)
        before = self._speed.drift(sequences)
        outcome = self.run(settings, sequences)
        drift = (before + self._speed.drift(sequences)) / 2
        return replace(outcome, seconds=outcome.seconds / drift)

    def _loss(self, loss: Loss, out: Any, item: LabelledInput) -> float:
        return loss.checked(loss.of(out, item.dense, item.target))
