"""How fast do many sequences of different lengths run through ``al.map_sequences``? Random weights.

``python -m eval.bulk``: sequences of the lengths of ``eval.throughput``. A pass takes all of them and keeps all
outputs, in their order:

one by one  a loop of calls with one sequence
sorted      what a careful user of torch writes: sorted by length, in batches padded to their longest, the outputs cut
            and put in order again
mapped      ``al.map_sequences``, with as many timesteps in a batch

``--threads``: for torch's operations and the native core, and as ``threads=`` of ``map_sequences``. First, all outputs
are compared with torch's.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

import adaptive_lstm as al
from adaptive_lstm.bench import format_seconds, ratio
from adaptive_lstm.runtime.length_batches import in_batches
from eval.shared import common
from eval.shared.contenders import SHAPES, Shape, publish, shape, stack
from eval.shared.targets import brief
from eval.throughput import lengths

SEQUENCES, TOKENS = 128, 8192
BASES = ("torch, one by one", "torch, sorted")
PRECISIONS: tuple[Literal["fp32", "int8"], ...] = ("fp32", "int8")


@dataclass(frozen=True)
class Pass:
    """A contender in one way; ``run`` gives the outputs [T, H] of all sequences, in their order."""

    contender: str
    way: str
    precision: str
    run: Callable[[], list[Tensor]]

    @property
    def name(self) -> str:
        return f"{self.contender}, {self.way}"


def one_by_one(lstm: nn.LSTM, sequences: Sequence[Tensor]) -> list[Tensor]:
    """A loop."""
    return [lstm(x)[0] for x in sequences]


def in_sorted_batches(lstm: nn.LSTM, sequences: Sequence[Tensor], tokens: int) -> list[Tensor]:
    """The batches of ``map_sequences``, padded."""
    found: dict[int, Tensor] = {}
    for batch in in_batches([len(x) for x in sequences], tokens, mixes=True):
        y, _ = lstm(pad_sequence([sequences[i] for i in batch], batch_first=True))
        found |= {i: y[row, : len(sequences[i])].clone() for row, i in enumerate(batch)}
    return [found[i] for i in range(len(sequences))]


def passes(plain: nn.LSTM, sequences: Sequence[Tensor], tokens: int, threads: int) -> list[Pass]:
    """All contenders."""
    found = [
        Pass("torch", "one by one", "fp32", lambda: one_by_one(plain, sequences)),
        Pass("torch", "sorted", "fp32", lambda: in_sorted_batches(plain, sequences, tokens)),
    ]
    for precision in PRECISIONS:
        lstm = al.AdaptiveLSTM.from_lstm(plain)
        lstm.quantize = al.Quantize(precision)

        def mapped(lstm: al.AdaptiveLSTM = lstm) -> list[Tensor]:
            return [y for y, _ in al.map_sequences(lstm, sequences, batch_tokens=tokens, threads=threads)]

        name = f"adaptive {precision}"
        found.append(Pass(name, "one by one", precision, lambda lstm=lstm: one_by_one(lstm, sequences)))  # type: ignore[misc]
        found.append(Pass(name, "mapped", precision, mapped))
    return found


def check(found: Sequence[Pass], plain: nn.LSTM, sequences: Sequence[Tensor]) -> None:
    """Raise ``RuntimeError`` if a contender does not give torch's outputs: a bug, so nothing is measured."""
    expected = one_by_one(plain, sequences)
    for one in found:
        error = max(float((y - want).abs().nan_to_num(1e9).max()) for y, want in zip(one.run(), expected, strict=True))
        if error > common.TOLERANCE[one.precision]:
            raise RuntimeError(f"{one.name} differs from torch by {error:.2g}, nothing is timed")


def measured(of: Shape, options: argparse.Namespace) -> Iterator[tuple[common.Record, list[str]]]:
    """A record and a row of the table for every contender."""
    inputs, hidden, layers = of
    plain, sequences = stack(of), [torch.randn(n, inputs) for n in lengths(options.sequences)]
    timesteps = sum(map(len, sequences))
    found = passes(plain, sequences, options.tokens, options.threads)
    check(found, plain, sequences)
    timings = common.race({one.name: one.run for one in found}, quick=options.quick)
    for one in found:
        timing = timings[one.name]
        speeds = {base: ratio(timings[base], timing) for base in BASES}
        record = {
            "group": "bulk",
            "case": f"{of}, {options.threads} thread(s): {one.name}",
            "contender": one.contender,
            "way": one.way,
            "precision": one.precision,
            "ours": one.contender != "torch",
            "I": inputs,
            "H": hidden,
            "L": layers,
            "threads": options.threads,
            "sequences": len(sequences),
            "timesteps": timesteps,
            "longest": max(map(len, sequences)),
            "batch_tokens": options.tokens,
            "seconds": timing.as_dict(),
            "timesteps_per_second": timesteps / timing.median,
            "speed": {base: speed.as_dict() for base, speed in speeds.items()},
            "unavailable": [],
        }
        rate = f"{record['timesteps_per_second']:.4g}"
        yield record, [one.name, rate, format_seconds(timing.median), *(brief(speeds[base]) for base in BASES)]


def main(argv: Sequence[str] | None = None) -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--shapes", type=shape, nargs="+", default=SHAPES[:3], metavar="I,H,L", help="stacks")
    parser.add_argument("--sequences", type=common.positive, default=SEQUENCES, help=f"of a pass ({SEQUENCES})")
    parser.add_argument("--tokens", type=common.positive, default=TOKENS, help=f"timesteps of a batch ({TOKENS})")
    options = parser.parse_args(argv)
    with common.inference(options.threads):
        common.headline(options)
        for of in options.shapes:
            title = f"{of}: {options.sequences} sequences, {options.threads} thread(s)"
            header = ["way", "timesteps/s", "a pass", *(f"against {base}" for base in BASES)]
            publish(options, "bulk", title, header, measured(of, options))


if __name__ == "__main__":
    main()
