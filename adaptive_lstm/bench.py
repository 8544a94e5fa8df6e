"""The timing protocol: which contender is faster, by how much, and whether the machine was quiet enough to tell.

The command line and ``eval/`` measure through this file only, so that their numbers mean the same:

- all contenders run interleaved in one process, once per round and in a new order every round, because the speed of
  a shared machine drifts and contenders leave the caches to each other; ratios are taken within a round and then
  summarised;
- a sample lasts at least ``min_time``: a very short call is repeated, and the mean of the repetitions is one sample;
- medians and quartiles count, in seconds; a mean is spoiled by one interruption, and a minimum is not typical;
- a ratio whose quartiles lie far apart is not quoted: it prints as "n/a" with its quartiles.
"""

import gc
import itertools
import math
import os
import platform
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from time import perf_counter_ns

import numpy as np

from .codec import brief, is_number, is_whole, short_repr
from .errors import InputError
from .types import BackendInfo

MAX_SPREAD = 0.5  # interquartile range over median above which a ratio says more about the machine than about the code
MIN_ROUNDS = 4  # of fewer paired rounds quartiles mean nothing

_runs = itertools.count(1)


@short_repr
@dataclass(frozen=True)
class Timing:
    """The times of one contender.

    Attributes:
        name: of the contender.
        samples: seconds per call, one per round, in the order of the rounds.
        calls: how many calls were averaged into one sample.
        run: number of the ``measure`` call; only timings of the same run were interleaved and may be divided.
    """

    name: str
    samples: tuple[float, ...]
    calls: int
    run: int

    def quantile(self, q: float) -> float:
        """Seconds per call that a share ``q`` (0 to 1) of the samples does not exceed."""
        return float(np.quantile(self.samples, q))

    @property
    def median(self) -> float:
        return self.quantile(0.50)

    @property
    def p05(self) -> float:
        return self.quantile(0.05)

    @property
    def p25(self) -> float:
        return self.quantile(0.25)

    @property
    def p75(self) -> float:
        return self.quantile(0.75)

    @property
    def p95(self) -> float:
        return self.quantile(0.95)

    @property
    def p99(self) -> float:
        return self.quantile(0.99)

    def per(self, parts: int) -> "Timing":
        """The same timing per part, for a call that did ``parts`` equal things one after the other."""
        return replace(self, samples=tuple(sample / parts for sample in self.samples))

    def as_dict(self) -> dict[str, object]:
        """Plain numbers for a JSON record: quantiles in seconds, number of samples, calls per sample."""
        figures = {name: getattr(self, name) for name in ("median", "p05", "p25", "p75", "p95", "p99")}
        return {**figures, "rounds": len(self.samples), "calls": self.calls}

    def __str__(self) -> str:
        return f"{format_seconds(self.median)} ({format_seconds(self.p25)} to {format_seconds(self.p75)})"


@dataclass(frozen=True)
class Ratio:
    """How many times as long one contender took as another, from ratios paired round by round.

    Attributes:
        median: of the ratios.
        p25: their lower quartile.
        p75: their upper quartile.
        rounds: how many ratios.
    """

    median: float
    p25: float
    p75: float
    rounds: int

    @property
    def spread(self) -> float:
        """Distance of the quartiles as a share of the median."""
        return (self.p75 - self.p25) / self.median

    @property
    def meaningful(self) -> bool:
        """False when the quartiles are so far apart, or the rounds so few, that the median must not be quoted."""
        return self.rounds >= MIN_ROUNDS and self.spread <= MAX_SPREAD

    def as_dict(self) -> dict[str, object]:
        """Plain numbers for a JSON record; the median is null where it is not meaningful."""
        return {**asdict(self), "median": self.median if self.meaningful else None}

    def __str__(self) -> str:
        if self.meaningful:
            return f"{self.median:.2f}x"
        return f"n/a (spread {self.p25:.2f} to {self.p75:.2f}, {self.rounds} rounds)"


def measure(
    contenders: Mapping[str, Callable[[], object]],
    *,
    repeats: int = 30,
    warmup: int = 3,
    min_time: float = 200e-6,
    prime: int = 0,
    before: Mapping[str, Callable[[], object]] | None = None,
    seed: int = 0,
) -> dict[str, Timing]:
    """Time every contender ``repeats`` times, interleaved.

    Args:
        contenders: calls without arguments, by name; what they return is dropped.
        repeats: rounds; every round takes one sample of every contender, in an order shuffled from ``seed``.
        warmup: untimed calls of every contender at the start.
        min_time: seconds that a sample lasts at least; shorter calls are repeated within it.
        prime: untimed calls right before every sample. 0 lets a contender start with the caches as its predecessor
            left them; 1 shows the steady state of a stream, which owns the caches between its steps.
        before: untimed calls between the primed ones and the sample, by contender: what happens while a stream waits.
        seed: of the order.

    Returns:
        The timings by name, in the order of ``contenders``.

    Raises:
        InputError: bad arguments. An exception in a contender propagates.
    """
    _check(contenders, repeats=repeats, warmup=warmup, min_time=min_time, prime=prime)
    run, order, shuffle = next(_runs), list(contenders), random.Random(seed).shuffle
    for call in contenders.values():
        _seconds(call, warmup)
    calls = {name: _calls_per_sample(call, min_time) for name, call in contenders.items()}
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    with _no_garbage_collection():
        for _ in range(repeats):
            shuffle(order)
            for name in order:
                _seconds(contenders[name], prime)
                if before and name in before:
                    before[name]()
                samples[name].append(_seconds(contenders[name], calls[name]) / calls[name])
    return {name: Timing(name, tuple(taken), calls[name], run) for name, taken in samples.items()}


def ratio(a: Timing, b: Timing) -> Ratio:
    """How many times as long ``a`` took as ``b``; above 1, ``b`` is faster.

    Raises:
        InputError: the two were not measured in one ``measure`` call.
    """
    for one in (a, b):
        if not isinstance(one, Timing):
            raise InputError(f"got {brief(one)}, expected what measure() gives for a contender")
    if a.run != b.run or len(a.samples) != len(b.samples):
        ran = f"{a.name!r}: run {a.run}, {len(a.samples)} samples; {b.name!r}: run {b.run}, {len(b.samples)} samples"
        raise InputError(f"only contenders of one measure() call ran side by side and can be divided, got {ran}")
    pairs = np.asarray(a.samples) / np.asarray(b.samples)
    p25, median, p75 = np.quantile(pairs, (0.25, 0.5, 0.75))
    return Ratio(float(median), float(p25), float(p75), len(pairs))


@contextmanager
def pinned_threads(n: int) -> Iterator[None]:
    """Run the block with ``n`` torch threads; afterwards, also after an exception, their number is as before.

    Raises:
        InputError: ``n`` is below 1.
    """
    if not (is_whole(n) and n >= 1):
        raise InputError(f"threads must be at least 1, got {brief(n)}")
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def machine(executes: BackendInfo) -> dict[str, object]:
    """The machine on which times were taken: processor, cores, backend, versions, threads, load and time (UTC).

    Args:
        executes: as ``adaptive_lstm.backend_info`` gives it.
    """
    if not isinstance(executes, BackendInfo):
        raise InputError(f"executes: got {brief(executes)}, expected what adaptive_lstm.backend_info() gives")
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "backend": executes.backend,
        "isa": executes.isa,
        "torch": _torch_version(),
        "python": platform.python_version(),
        "threads": executes.threads,
        "platform": platform.platform(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _torch_version() -> str | None:
    """None where it is not installed."""
    try:
        import torch
    except ImportError:
        return None
    return str(torch.__version__)


def format_seconds(seconds: float) -> str:
    """A time with the unit that fits it: '7.9 us', '1.48 ms', '2.10 s'."""
    if not is_number(seconds):
        raise InputError(f"seconds: got {brief(seconds)}, expected a number")
    seconds = float(seconds)
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def _check(contenders: Mapping[str, object], *, repeats: int, warmup: int, min_time: float, prime: int) -> None:
    given: object = contenders
    if not isinstance(given, Mapping) or not given:
        raise InputError(f"got {brief(contenders)}, no contenders: give at least one name -> call")
    for name, call in contenders.items():
        if not callable(call):
            raise InputError(f"contender {name!r} must be callable without arguments, got {type(call).__name__}")
    for what, value, least in (("repeats", repeats, 1), ("warmup", warmup, 0), ("prime", prime, 0)):
        if not (is_whole(value) and value >= least):
            raise InputError(f"{what} must be at least {least}, got {brief(value)}, expected a whole number")
    if not (is_number(min_time) and 0 <= min_time < math.inf):
        raise InputError(f"min_time must be a time in seconds, 0 or more, got {brief(min_time)}")


def _seconds(call: Callable[[], object], calls: int) -> float:
    loop = range(calls)
    start = perf_counter_ns()
    for _ in loop:
        call()
    return max(perf_counter_ns() - start, 1) * 1e-9  # a coarse clock may not have moved


def _calls_per_sample(call: Callable[[], object], min_time: float) -> int:
    """Number of calls that last ``min_time``; grows at most tenfold, so that one interruption does not decide."""
    calls = 1
    while (took := _seconds(call, calls)) < min_time:
        calls = min(10 * calls, max(calls + 1, math.ceil(calls * min_time / took)))
    return calls


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Collect garbage before the block and not inside it, where the contender that happens to run would pay for it."""
    restore = gc.enable if gc.isenabled() else gc.disable
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        restore()


def cpu_model() -> str:
    """Model name of the processor: from ``/proc/cpuinfo`` on Linux, else from ``platform``."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, "") or platform.processor() or platform.machine()


def spread(ratio: Ratio) -> str:
    """Median and quartiles, "6.2 (6.0 to 6.4)", or why the median must not be quoted."""
    if ratio.p25 == ratio.p75:  # a contender against itself
        return f"{ratio.median:.3g}"
    return f"{ratio.median:.3g} ({ratio.p25:.3g} to {ratio.p75:.3g})" if ratio.meaningful else str(ratio)
