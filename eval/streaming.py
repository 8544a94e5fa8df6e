"""How long does a frame take, and how many live streams does one core serve? Random weights, every contender.

``python -m eval.streaming``:
step     one step of one stream per call: median, 95th and 99th percentile of single steps, without averaging
cold     the same step right after --between MB of other memory were written: a frame comes every 10 or 32 ms, and other
         work has taken the caches in between. "ahead" has called ``stream.ahead()`` before. Reading as many bytes as
         the int8 weights have, from the same cold memory, is timed beside: no dense step can be faster.
streams  the number of independent streams at ``--rate`` frames a second that are served: of 100 ticks in a row, in
         each of which every stream advances by one frame, the 99th percentile takes no longer than a frame lasts.
         "one by one" steps as many separate streams in turn, each with its own state, input and output, so that caches
         are filled as in service; "batched" advances all of them in one call of B rows.
The number of streams is searched by trying: doubled until it fails, then bisected to 3 %. Where the median tick is in
time and the tail is not, the trial is repeated: one interruption by the machine must not end a search. The whole search
is repeated too; all contenders search at the same time, a trial each in turn, and a number whose repetitions lie far
apart is marked.
"int8 + delta" skips half of the columns; ``eval.quality`` measures the cost in quality.
"""

import argparse
import gc
import random
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adaptive_lstm.bench import MAX_SPREAD, Timing, format_seconds, measure, ratio
from adaptive_lstm.peers import PEERS, Adaptive, Contender, Unavailable
from eval.shared import common, probes
from eval.shared.contenders import SHAPES, STEPS, Shape, described, lineup, publish, shape, skipping, stack
from eval.shared.targets import brief

Record = dict[str, Any]
Tick = Callable[[], object]

BASELINES = ("torch", "torch cells", "ORT", "ORT int8")
PRIME = 2  # steps right before each timed one: a stream owns the caches between its steps
SECONDS, STEPS_TIMED = 40.0, (100, 2000)  # for the steps of one shape; least and most timed steps of a contender
COLD_STEPS = 60
TICKS, PILOT, REPEATS = 100, 5, 3
TRIES = 3  # of a number of streams whose median tick is in time
FRAMES = 16  # different inputs of every stream, in a circle
MOST = 1 << 16  # streams
BISECT = 32  # a bracket of 1/32 is narrow enough
SHARES = (0.5, 0.2)  # of the columns, sent by the contenders of "cold" that skip
READING = "reading the int8 weights"
FLEETS = ("one by one", "batched")
UNBATCHED = {"torch compile": "compiles anew for every batch size", "ncnn": "has no batches"}


def contenders_on(of: Shape, options: argparse.Namespace) -> tuple[list[Contender], list[Unavailable]]:
    """All contenders on one stack."""
    lstm = stack(of)
    present, unavailable = lineup(lstm, options.peers, threads=options.threads)
    return [*present, skipping(lstm, torch.randn(1, STEPS, of[0]))], unavailable


def tails(calls: dict[str, Tick], *, quick: bool) -> dict[str, Timing]:
    """Single calls, enough of them for a 99th percentile; ``common.race`` averages short calls, which hides it."""
    pilot = measure(calls, repeats=3, warmup=2, min_time=0, prime=PRIME)
    once = (1 + PRIME) * sum(timing.median for timing in pilot.values())
    least, most = (20, 100) if quick else STEPS_TIMED
    return measure(calls, repeats=max(least, min(most, int(SECONDS / once))), warmup=10, min_time=0, prime=PRIME)


def step(of: Shape, options: argparse.Namespace) -> Iterator[tuple[Record, list[str]]]:
    """The latency of single steps, a record and a row of the table per contender."""
    contenders, unavailable = contenders_on(of, options)
    x = torch.randn(1, STEPS, of[0])
    timings = tails({who.name: who.stream(x) for who in contenders}, quick=options.quick)
    bases = [name for name in BASELINES if name in timings]
    for who in contenders:
        timing = timings[who.name]
        speeds = {base: ratio(timings[base], timing) for base in bases}
        record = {
            "group": "step",
            "case": f"{of} {who.name}",
            **described(who, of, batch=1, threads=options.threads),
            "seconds": timing.as_dict(),
            "speed": {base: speed.as_dict() for base, speed in speeds.items()},
            "unavailable": [vars(one) for one in unavailable],
        }
        tail = [format_seconds(seconds) for seconds in (timing.median, timing.p95, timing.p99)]
        yield record, [who.name, *tail, *(brief(speeds[base]) if base in speeds else "" for base in BASELINES)]


# ------------------------------------------------------------------------------------------------------------ cold


def last_level() -> int:
    """Bytes of the last-level cache; 32 MB where Linux does not tell."""
    sizes = [
        int(path.read_text()[:-2]) << 10 for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    ]
    return max(sizes, default=32 << 20)


def other_work(size: int) -> Tick:
    """A call that writes ``size`` bytes of memory."""
    memory = np.zeros(max(size, 1), np.uint8)
    return lambda: np.add(memory, 1, out=memory)


def cold(of: Shape, options: argparse.Namespace) -> Iterator[tuple[Record, list[str]]]:
    """The latency of single steps with caches as the stream left them, and as other work leaves them."""
    lstm, x = stack(of), torch.randn(1, STEPS, of[0])
    present, unavailable = lineup(lstm, options.peers, threads=options.threads)
    contenders = [*present, *(skipping(lstm, x, share) for share in SHARES)]
    calls: dict[str, Tick] = {who.name: who.stream(x) for who in contenders}
    idle: dict[str, Tick] = {}
    for who in list(contenders):
        if isinstance(who, Adaptive):
            ahead = replace(who, name=f"{who.name}, ahead")
            contenders.append(ahead)
            calls[ahead.name], idle[ahead.name] = ahead.stream_ahead(x)
    weights = next(who.nbytes for who in present if who.name == "adaptive int8")
    assert weights is not None
    calls[READING] = probes.read(weights)
    size = (options.between << 20) if options.between else 2 * last_level()
    work = other_work(size)
    repeats = 10 if options.quick else COLD_STEPS
    warm = measure(calls, repeats=repeats, warmup=10, min_time=0, prime=PRIME, before=idle)
    before = {name: partial(_both, idle.get(name), work) for name in calls}
    chilled = measure(calls, repeats=repeats, warmup=2, min_time=0, prime=1, before=before)
    bases = [name for name in (*BASELINES, "adaptive int8") if name in chilled]
    for who in contenders:
        speeds = {base: ratio(chilled[base], chilled[who.name]) for base in bases}
        record = {
            "group": "cold",
            "case": f"{of} {who.name}",
            **described(who, of, batch=1, threads=options.threads),
            "between": size,
            "warm": warm[who.name].as_dict(),
            "seconds": chilled[who.name].as_dict(),
            "speed": {base: speed.as_dict() for base, speed in speeds.items()},
            "reading": chilled[READING].as_dict(),
            "unavailable": [vars(one) for one in unavailable],
        }
        times = [warm[who.name].median, chilled[who.name].median, chilled[who.name].p95, chilled[READING].median]
        yield record, [who.name, *map(format_seconds, times), *(brief(speed) for speed in speeds.values())]


def _both(first: Tick | None, second: Tick) -> None:
    if first is not None:
        first()
    second()


# --------------------------------------------------------------------------------------------------------- streams


@dataclass
class Fleet:
    """Any number of live streams of one contender; they share only the weights."""

    who: Contender
    inputs: int
    way: str
    steps: list[Tick] = field(default_factory=list)

    def tick(self, count: int) -> Tick:
        """A call that advances ``count`` streams by one frame each and keeps their outputs."""
        if self.way == "batched":
            return self.who.stream(torch.randn(count, FRAMES, self.inputs))
        while len(self.steps) < count:
            self.steps.append(self.who.stream(torch.randn(1, FRAMES, self.inputs)))
        steps, outputs = self.steps[:count], [None] * count

        def tick() -> None:
            for i, one in enumerate(steps):
                outputs[i] = one()  # type: ignore[call-overload]

        return tick


def trial(tick: Tick, period: float, ticks: int) -> Timing:
    """The time of ticks: a few where they already take too long, else the best of some tries."""
    timing = measure({"tick": tick}, repeats=PILOT, warmup=1, min_time=0)["tick"]
    for _ in range(TRIES):
        if timing.median > period:
            break
        timing = measure({"tick": tick}, repeats=ticks, warmup=0, min_time=0)["tick"]
        if timing.p99 <= period:
            break
    return timing


def searching() -> Generator[int, bool, int]:
    """Yields numbers to try, is sent whether they hold, returns the largest that does (0: not even one)."""
    low, high, count = 0, 0, 1  # high 0: nothing has failed
    while count <= MOST and (high == 0 or high - low > max(1, low // BISECT)):
        if (yield count):
            low = count
        else:
            high = count
        count = (low + high) // 2 if high else 2 * low
    return low


def search(fleets: Sequence[Fleet], period: float, ticks: int) -> list[tuple[int, Timing | None]]:
    """Every fleet's largest number of streams and the ticks with it; a trial of each in turn, in changing order."""
    gc.freeze()  # the collection before every trial need not walk over objects that stay for good
    found: list[tuple[int, Timing | None]] = [(0, None)] * len(fleets)
    searches = {i: searching() for i in range(len(fleets))}
    wanted = {i: next(one) for i, one in searches.items()}
    while wanted:
        for i in random.sample(list(wanted), len(wanted)):
            timing = trial(fleets[i].tick(wanted[i]), period, ticks)
            holds = timing.p99 <= period
            if holds:
                found[i] = wanted[i], timing
            try:
                wanted[i] = searches[i].send(holds)
            except StopIteration:
                del wanted[i]
    gc.unfreeze()
    return found


def fleets_of(contenders: Sequence[Contender], inputs: int) -> tuple[list[Fleet], list[Unavailable]]:
    """Every contender in every way in which it can serve streams, and the ways that it cannot."""
    fleets = [Fleet(who, inputs, way) for who in contenders for way in FLEETS[: 1 if who.name in UNBATCHED else None]]
    alone = sorted({who.name for who in contenders if who.name in UNBATCHED})
    return fleets, [Unavailable(f"{name}, batched", UNBATCHED[name]) for name in alone]


def capacity(
    fleet: Fleet, found: Sequence[tuple[int, Timing | None]], of: Shape, options: argparse.Namespace
) -> Record:
    """The record of one fleet from repeated searches, each with its number of streams and its ticks."""
    counts = [count for count, _ in found]
    median = float(np.median(counts))
    last = found[-1][1]
    return {
        "group": "streams",
        "case": f"{of} {options.rate:g} per second, {fleet.way}, {fleet.who.name}",
        **described(fleet.who, of, batch=1 if fleet.way == "one by one" else int(median), threads=options.threads),
        "way": fleet.way,
        "rate": options.rate,
        "period": 1 / options.rate,
        "counts": counts,
        "streams": median,
        "streams_per_core": median / options.threads,
        "meaningful": median > 0 and max(counts) - min(counts) <= MAX_SPREAD * median,
        "at_most": MOST,
        "tick": None if last is None else last.as_dict(),
    }


def streams(of: Shape, options: argparse.Namespace) -> Iterator[tuple[Record, list[str]]]:
    """Concurrent streams, a record and a row of the table per contender and way of serving."""
    contenders, unavailable = contenders_on(of, options)
    fleets, unbatched = fleets_of(contenders, of[0])
    ticks, repeats = (20, 1) if options.quick else (TICKS, REPEATS)
    searches = [search(fleets, 1 / options.rate, ticks) for _ in range(repeats)]
    for fleet, found in zip(fleets, zip(*searches, strict=True), strict=True):
        record = {
            **capacity(fleet, found, of, options),
            "unavailable": [vars(one) for one in [*unavailable, *unbatched]],
        }
        apart = "" if record["meaningful"] or not record["streams"] else " (far apart)"
        tick = record["tick"]
        tail = ["", ""] if tick is None else [format_seconds(tick[key]) for key in ("median", "p99")]
        counts = " ".join(map(str, record["counts"]))
        yield record, [f"{fleet.who.name}, {fleet.way}", f"{record['streams_per_core']:g}{apart}", counts, *tail]


HEADERS = {
    "step": ["contender", "median", "95 %", "99 %", *(f"against {base}" for base in BASELINES)],
    "cold": [
        "contender",
        "warm",
        "cold",
        "95 %",
        READING,
        *(f"against {base}" for base in (*BASELINES, "adaptive int8")),
    ],
    "streams": ["contender", "streams per core", "searches", "tick", "99 %"],
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--only", type=common.one_of(*HEADERS), default=tuple(HEADERS), help="questions")
    parser.add_argument("--shapes", type=shape, nargs="+", default=SHAPES, metavar="I,H,L", help="stacks to measure")
    parser.add_argument("--peers", type=common.one_of(*PEERS), default=tuple(PEERS), help="default: all")
    parser.add_argument("--rate", type=float, default=100.0, help="frames a second of a stream (default 100)")
    parser.add_argument(
        "--between",
        type=common.positive,
        metavar="MB",
        help="written before a cold step (default: twice the last cache)",
    )
    options = parser.parse_args(argv)
    if not options.rate > 0:
        parser.error(f"--rate: got {options.rate}, expected frames a second, above 0")
    random.seed(0)
    with common.inference(options.threads):
        common.headline(options)
        for group in options.only:
            for of in options.shapes:
                title = f"{of}: {group}" + (f" at {options.rate:g} frames a second" if group == "streams" else "")
                found = {"step": step, "cold": cold, "streams": streams}[group](of, options)
                publish(options, "streaming", title, HEADERS[group], found)


if __name__ == "__main__":
    main()
