"""How many sequences a second, in batches of 1 to 256 sequences of varying length, padded and packed? Random weights.

``python -m eval.throughput`` runs on one thread and then on ``--threads`` (here 2). The lengths follow a log-normal
law, median 60 timesteps and sigma 0.6, between 5 and 300, like those of short utterances and sentences: evenly spaced
quantiles of it in random order, so that every batch size sees the same mixture. A pass takes all sequences once, batch
by batch. Padded: every batch as long as its longest sequence, without sorting. Packed: a ``PackedSequence``. Both are
made before the clock starts. First, the outputs of all timesteps that exist are compared with torch's.
"""

import argparse
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import exp, log
from statistics import NormalDist
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence, pad_packed_sequence, pad_sequence

from adaptive_lstm.bench import format_seconds, ratio
from adaptive_lstm.peers import PEERS, Adaptive, Unavailable, build_adaptive
from eval.shared import common
from eval.shared.contenders import BYTES, SHAPES, Shape, lineup, publish, shape, stack
from eval.shared.targets import brief

Record = dict[str, Any]

BATCHES = (1, 4, 16, 64, 256)
MEDIAN, SIGMA, SHORTEST, LONGEST = 60, 0.6, 5, 300  # timesteps
LEAST = 16  # sequences of a pass
MAX_MACS = 1.5e11  # of a padded pass: some 3 s on one core; larger ones are left out
BASES = ("torch, padded", "torch, packed")


@dataclass(frozen=True)
class Way:
    """A contender with sequences in one form; ``batches``: a call for each, which returns the outputs."""

    contender: str
    form: Literal["padded", "packed"]
    precision: str
    ours: bool
    batches: tuple[Callable[[], Any], ...]

    @property
    def name(self) -> str:
        return f"{self.contender}, {self.form}"

    def __call__(self) -> None:
        for batch in self.batches:
            batch()


def lengths(count: int) -> list[int]:
    """Timesteps of ``count`` sequences, in random order."""
    law = NormalDist(log(MEDIAN), SIGMA)
    drawn = [round(exp(law.inv_cdf((i + 0.5) / count))) for i in range(count)]
    random.Random(0).shuffle(drawn)
    return [max(SHORTEST, min(LONGEST, n)) for n in drawn]


def batches(inputs: int, size: int) -> list[list[Tensor]]:
    """The sequences [T, I] of a pass, ``size`` at a time."""
    sequences = [torch.randn(n, inputs) for n in lengths(max(LEAST, size))]
    return [sequences[i : i + size] for i in range(0, len(sequences), size)]


def ways(lstm: nn.LSTM, of: list[list[Tensor]], options: argparse.Namespace, threads: int) -> tuple[list[Way], Any]:
    """All contenders padded; torch and ours packed too."""
    coarse = build_adaptive(lstm, BYTES, "adaptive int8, 64 levels")
    present, unavailable = lineup(lstm, options.peers, threads=threads, more=[coarse])
    padded = [pad_sequence(batch, batch_first=True) for batch in of]
    packed = [pack_sequence(batch, enforce_sorted=False) for batch in of]

    def whole(module: nn.Module) -> tuple[Callable[[], Any], ...]:
        return tuple(lambda x=x: module(x)[0] for x in packed)

    found = [
        Way(who.name, "padded", who.precision, isinstance(who, Adaptive), tuple(who.whole(x) for x in padded))
        for who in present
    ]
    found += [Way("torch", "packed", "fp32", False, whole(lstm))]
    found += [
        Way(who.name, "packed", who.precision, True, whole(who.lstm)) for who in present if isinstance(who, Adaptive)
    ]
    return found, unavailable


def check(found: Sequence[Way], lstm: nn.LSTM, of: list[list[Tensor]]) -> tuple[list[Way], list[Unavailable]]:
    """Keep the contenders that agree with torch at every timestep that exists.

    Raises:
        RuntimeError: one of ours does not: a bug, so nothing is measured.
    """
    expected = [lstm(pad_sequence(batch, batch_first=True))[0] for batch in of]
    right, wrong = [], []
    for way in found:
        error = 0.0
        for call, batch, want in zip(way.batches, of, expected, strict=True):
            got: Any = call()
            y = pad_packed_sequence(got, batch_first=True)[0] if isinstance(got, PackedSequence) else got
            y = torch.as_tensor(y)
            for row, x in enumerate(batch):
                error = max(error, float((y[row, : len(x)] - want[row, : len(x)]).abs().nan_to_num(1e9).max()))
        allowed = common.TOLERANCE[way.precision]
        if error <= allowed:
            right.append(way)
            continue
        wrong.append(Unavailable(way.name, f"differs from torch fp32 by {error:.2g}; allowed {allowed:g}"))
        if way.ours:
            raise RuntimeError(f"this project's own runtime is wrong, nothing is timed: {wrong}")
    return right, wrong


def measured(of: Shape, size: int, options: argparse.Namespace, threads: int) -> Iterator[tuple[Record, list[str]]]:
    """A record and a row of the table for every contender with batches of ``size``."""
    inputs, hidden, layers = of
    lstm, parts = stack(of), batches(inputs, size)
    existing = [len(x) for batch in parts for x in batch]
    computed = sum(len(batch) * max(map(len, batch)) for batch in parts)
    found, unavailable = ways(lstm, parts, options, threads)
    found, wrong = check(found, lstm, parts)
    timings = common.race({way.name: way for way in found}, quick=options.quick)
    for way in found:
        timing = timings[way.name]
        speeds = {base: ratio(timings[base], timing) for base in BASES}
        record = {
            "group": "throughput",
            "case": f"{of} batch {size}, {threads} thread(s): {way.name}",
            "contender": way.contender,
            "form": way.form,
            "precision": way.precision,
            "ours": way.ours,
            "I": inputs,
            "H": hidden,
            "L": layers,
            "batch": size,
            "threads": threads,
            "lengths": {
                "law": f"log-normal, median {MEDIAN}, sigma {SIGMA}, {SHORTEST} to {LONGEST}",
                "sequences": len(existing),
                "mean": sum(existing) / len(existing),
                "longest": max(existing),
                "padding": 1 - sum(existing) / computed,
            },
            "seconds": timing.as_dict(),
            "sequences_per_second": len(existing) / timing.median,
            "sequences_per_second_quartiles": [len(existing) / timing.p75, len(existing) / timing.p25],
            "speed": {base: speed.as_dict() for base, speed in speeds.items()},
            "unavailable": [vars(one) for one in [*unavailable, *wrong]],
        }
        rate = f"{record['sequences_per_second']:.4g}"
        yield record, [way.name, rate, format_seconds(timing.median), *(brief(speeds[base]) for base in BASES)]


def too_long(of: Shape, size: int) -> bool:
    """Whether a padded pass over a batch is left out."""
    inputs, hidden, layers = of
    step = 4 * hidden * (inputs + hidden + (layers - 1) * 2 * hidden)
    found = lengths(max(LEAST, size))
    return step * sum(max(found[i : i + size]) * size for i in range(0, len(found), size)) > MAX_MACS


def main(argv: Sequence[str] | None = None) -> None:
    parser = common.parser(__doc__)
    parser.set_defaults(threads=2)
    parser.add_argument("--shapes", type=shape, nargs="+", default=SHAPES[:3], metavar="I,H,L", help="stacks")
    parser.add_argument("--batches", type=common.positive, nargs="+", default=BATCHES, metavar="B", help="sequences")
    peers = [name for name in PEERS if name != "torch"]
    parser.add_argument(
        "--peers", type=common.one_of(*peers), default=("ORT", "ORT int8"), help=f"beside torch, of: {', '.join(peers)}"
    )
    options = parser.parse_args(argv)
    options.peers = ("torch", *options.peers)
    for threads in sorted({1, options.threads}):
        with common.inference(threads):
            common.headline(options)
            for of in options.shapes:
                for size in options.batches:
                    if not too_long(of, size):
                        _run(of, size, options, threads)


def _run(of: Shape, size: int, options: argparse.Namespace, threads: int) -> None:
    found = list(measured(of, size, options, threads))
    padding = found[0][0]["lengths"]["padding"]
    title = f"{of}: batches of {size}, {threads} thread(s), {padding:.0%} padding"
    header = ["form", "sequences/s", "a pass", *(f"against {base}" for base in BASES)]
    publish(options, "throughput", title, header, found)


if __name__ == "__main__":
    main()
