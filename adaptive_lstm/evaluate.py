"""Running candidates over sequences: what they lose, what they do, and what that costs on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import nnls
from torch import nn

from .candidates import Settings
from .errors import CalibrationError
from .losses import Loss
from .policies import Columns, Dense, Site, parts
from .quantize import Quantize
from .runtime import AdaptiveLSTM
from .tap import call
from .types import RunStats

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Item:
    """One sequence: ``inputs`` as the model takes them, ``target`` or None, the original model's output ``dense``."""

    inputs: Any
    target: Any
    dense: Any


@dataclass(frozen=True, eq=False)
class Outcome:
    """What one candidate did on n sequences.

    ``losses`` [n, risks]; ``seconds`` [n] in the LSTMs; ``work`` [n, features]: see ``CostTable``; ``macs`` and
    ``macs_possible`` [n]; ``halts`` [n]: timestep at which a sequence left, or its length; ``activity``, ``ran`` and
    ``exits`` [n]: as in ``RunStats``, means over the LSTMs.
    """

    losses: Doubles
    seconds: Doubles
    work: Doubles
    macs: Doubles
    macs_possible: Doubles
    halts: npt.NDArray[np.int64]
    activity: Doubles
    ran: Doubles
    exits: Doubles

    @property
    def work_left(self) -> float:
        """Multiply-accumulates done, as a share of those possible."""
        return float(self.macs.sum() / self.macs_possible.sum())


@contextmanager
def original(lstms: Mapping[str, AdaptiveLSTM]) -> Iterator[None]:
    """The LSTMs in float32 with nothing skipped inside the block; as they were afterwards."""
    kept = {name: (lstm.policy, lstm.quantize) for name, lstm in lstms.items()}
    try:
        for lstm in lstms.values():
            lstm.policy, lstm.quantize = Dense(), Quantize()
        yield
    finally:
        for name, lstm in lstms.items():
            lstm.policy, lstm.quantize = kept[name]


@contextmanager
def skipping(lstms: Mapping[str, AdaptiveLSTM], settings: Settings) -> Iterator[None]:
    """The LSTMs with some policies inside the block; as they were afterwards."""
    kept = {name: lstm.policy for name, lstm in lstms.items()}
    try:
        for name, lstm in lstms.items():
            lstm.policy = settings[name]
        yield
    finally:
        for name, lstm in lstms.items():
            lstm.policy = kept[name]


class _Meter:
    """Times the calls of the LSTMs and adds up their statistics, one sequence at a time."""

    def __init__(self, lstms: Mapping[str, AdaptiveLSTM]):
        self.lstms = lstms
        self.seconds = 0.0
        self.runs: list[tuple[AdaptiveLSTM, RunStats]] = []

    def _timed(self, lstm: AdaptiveLSTM) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            out = type(lstm).forward(lstm, *args, **kwargs)  # type: ignore[no-untyped-call]
            self.seconds += time.perf_counter() - start
            stats = lstm.last_run
            assert stats is not None
            self.runs.append((lstm, stats))
            return out

        return forward

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Every call inside the block is counted."""
        try:
            for lstm in self.lstms.values():
                lstm.forward = self._timed(lstm)  # type: ignore[method-assign]
            yield
        finally:
            for lstm in self.lstms.values():
                lstm.__dict__.pop("forward", None)

    def clear(self) -> None:
        """Start the next sequence."""
        self.seconds, self.runs = 0.0, []


FEATURES = ("call", "timestep", "held", "dense input", "dense recurrent", "sent input", "sent recurrent", "list", "ask")


def _work(lstm: AdaptiveLSTM, stats: RunStats) -> Doubles:
    """Work of one call in the units of ``FEATURES``: calls, row steps of layers, and multiply-accumulates."""
    shape, columns = lstm.stack_shape, parts(lstm.policy).columns
    gates = 4 * shape.hidden_size
    out = dict.fromkeys(FEATURES, 0.0)
    out["call"] = 1.0
    for pair, c in enumerate(stats.columns):
        out["timestep"] += c.moved
        out["held"] += stats.timesteps - c.moved
        for operand, sent, possible in (("input", c.x_sent, c.x_possible), ("recurrent", c.h_sent, c.h_possible)):
            listed = _thresholded(columns, Site(shape, pair, "x" if operand == "input" else "h"))
            out[("sent " if listed else "dense ") + operand] += gates * sent
            out["list"] += possible * (c.ran / max(stats.timesteps, 1)) if listed else 0.0
    out["ask"] = stats.policy_macs
    return np.array(list(out.values()))


def _thresholded(columns: Columns, site: Site) -> bool:
    return columns.thresholded(site)


class Evaluator:
    """Runs a model with different policies over sequences.

    Args:
        model: an adapted model in eval mode, compressed as it will be deployed.
        lstms: its adapted LSTMs.
        losses: what to compare by.
        tick: called after every sequence, for a progress bar.
    """

    def __init__(
        self,
        model: nn.Module,
        lstms: Mapping[str, AdaptiveLSTM],
        losses: Sequence[Loss],
        tick: Callable[[], object] = lambda: None,
    ):
        self.model, self.lstms, self.losses, self._tick = model, lstms, losses, tick

    @torch.no_grad()
    def run(self, settings: Settings, items: Sequence[Item]) -> Outcome:
        """Run all sequences one by one, as a service would at batch 1.

        Raises:
            CalibrationError: a loss outside [0, 1] or NaN.
        """
        meter = _Meter(self.lstms)
        rows: dict[str, list[Any]] = {name: [] for name in Outcome.__dataclass_fields__}
        with skipping(self.lstms, settings), meter.watching():
            if items:
                call(self.model, items[0].inputs)  # packs the weights for the new policy
            for item in items:
                meter.clear()
                out = call(self.model, item.inputs)
                stats = [stats for _, stats in meter.runs]
                rows["losses"].append([self._loss(loss, out, item) for loss in self.losses])
                rows["seconds"].append(meter.seconds)
                rows["work"].append(sum((_work(lstm, s) for lstm, s in meter.runs), np.zeros(len(FEATURES))))
                rows["macs"].append(sum(s.macs for s in stats))
                rows["macs_possible"].append(sum(s.macs_possible for s in stats))
                rows["halts"].append(max((s.columns[0].moved for s in stats), default=0))
                rows["activity"].append(np.mean([s.activity for s in stats]))
                rows["ran"].append(np.mean([s.ran for s in stats]))
                rows["exits"].append(np.mean([s.exits for s in stats]))
                self._tick()
        arrays = {name: np.array(values, dtype=np.float64) for name, values in rows.items()}
        return Outcome(**{**arrays, "halts": arrays["halts"].astype(np.int64)})  # type: ignore[arg-type]

    def _loss(self, loss: Loss, out: Any, item: Item) -> float:
        value = float(loss.of(out, item.dense, item.target))
        if not 0 <= value <= 1:  # also catches NaN
            raise CalibrationError(
                f"{loss.name}: got a loss of {value}, expected values in [0, 1]; scale and clip it, for example with "
                "adaptive_lstm.losses.clipped_error(scale)"
            )
        return value


class CostTable:
    """Seconds per unit of work on this machine, learned from the timings of all runs so far.

    Non-negative least squares over the means of every run. It smooths: on a shared machine single timings mislead, and
    candidates that do the same work get the same cost.
    """

    def __init__(self) -> None:
        self._work: list[Doubles] = []
        self._seconds: list[float] = []
        self.seconds_per_unit: Doubles = np.zeros(len(FEATURES))

    def learn(self, outcome: Outcome) -> None:
        """Take one run into account."""
        seconds = np.minimum(outcome.seconds, 5 * np.median(outcome.seconds))  # an interruption is not the code's cost
        self._work.append(outcome.work.mean(0))
        self._seconds.append(float(seconds.mean()))

    def fit(self) -> None:
        """Learn from all runs; relative errors count."""
        seconds = np.array(self._seconds)
        matrix = np.array(self._work) / seconds[:, None]
        scale = np.maximum(np.abs(matrix).max(0), 1e-30)
        solution, _ = nnls(matrix / scale, np.ones(len(seconds)))
        self.seconds_per_unit = solution / scale

    def seconds(self, work: Doubles) -> float:
        """Mean seconds of sequences with this work [n, features]."""
        return float(work.mean(0) @ self.seconds_per_unit)
