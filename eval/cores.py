"""What does a second core give, with the same bits?

``python -m eval.cores --threads 2``: random weights, the native core on one thread and on up to so many, in turn.
long    one sequence: layers that follow each other in time, directions side by side
batch   rows of a batch, in pieces
small   calls that may be over before another thread has woken
"chosen" is what calls settle on by themselves after the first few (``last_run.threads``).
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import adaptive_lstm as al
from adaptive_lstm.bench import format_seconds, ratio
from adaptive_lstm.execution.batch import Batch
from adaptive_lstm.execution.runner import Result
from eval.shared import common
from eval.shared.targets import brief

SETTLED = 7  # calls after which it is known whether threads pay
PRECISIONS: tuple[Any, ...] = ("fp32", "bf16", "int8")


@dataclass(frozen=True)
class Case:
    """Sizes of a stack and of its input. ``goal``: times as fast as one thread on two cores; None: no worse than it."""

    inputs: int
    hidden: int
    layers: int
    batch: int
    steps: int
    both_ways: bool = False
    goal: float | None = None

    @property
    def name(self) -> str:
        """For tables."""
        ways = " both ways" if self.both_ways else ""
        return f"{self.layers} x {self.hidden}{ways}, batch {self.batch}, T = {self.steps}"


GROUPS: dict[str, tuple[Case, ...]] = {
    "long": (
        Case(40, 256, 3, 1, 160, goal=1.6),
        Case(40, 128, 4, 1, 293, both_ways=True, goal=1.7),
        Case(80, 512, 2, 1, 200),
        Case(64, 256, 1, 1, 200, both_ways=True),
        Case(256, 1024, 1, 1, 100),
    ),
    "batch": (Case(40, 256, 3, 4, 100), Case(40, 256, 3, 16, 100), Case(40, 256, 3, 64, 100, goal=1.8)),
    "small": (Case(16, 64, 2, 1, 100), Case(40, 128, 2, 1, 20)),
}


def measured(group: str, case: Case, precision: Any, options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """One case in one precision, as a record and as a row of the table."""
    plain = nn.LSTM(case.inputs, case.hidden, case.layers, bidirectional=case.both_ways, batch_first=True).eval()
    fast = al.AdaptiveLSTM.from_lstm(plain)
    fast.quantize = al.Quantize(precision)
    executor = fast.executor()
    batch = Batch.of(torch.randn(case.batch, case.steps, case.inputs), None, executor.shape, True)

    def on(threads: int) -> Callable[[], Result]:
        def call() -> Result:
            al.set_num_threads(threads)
            return executor.runner.run(batch)

        return call

    one, many = on(1), on(options.threads)
    want = one()
    for _ in range(SETTLED):
        got = many()
        if not all(torch.equal(a, b) for a, b in zip(got[:3], want[:3], strict=True)):
            raise RuntimeError(f"{case.name}, {precision}: {got.threads} threads give other bits than one")
    timings = common.race({"one": one, "many": many}, quick=options.quick, seconds=options.seconds)
    speed = ratio(timings["one"], timings["many"])
    record = {
        "group": group,
        "case": f"{case.name}, {precision}, {options.threads} threads",
        **vars(case),
        "precision": precision,
        "threads": options.threads,
        "chosen": got.threads,
        "seconds": {name: timing.as_dict() for name, timing in timings.items()},
        "speed": speed.as_dict(),
    }
    goal = "" if case.goal is None else f"{case.goal:.1f}"
    times = (format_seconds(timings[name].median) for name in ("one", "many"))
    return record, [case.name, precision, *times, str(got.threads), brief(speed), goal]


def results(group: str, options: argparse.Namespace) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """Every case of a group."""
    for case in GROUPS[group]:
        for precision in options.precisions:
            yield measured(group, case, precision, options)


HEADER = ["stack", "weights", "one thread", "threads", "chosen", "times as fast", "goal"]


def main(argv: Sequence[str] | None = None) -> None:
    parser = common.parser(__doc__)
    parser.set_defaults(threads=2)
    parser.add_argument("--only", type=common.one_of(*GROUPS), default=tuple(GROUPS), help="questions")
    parser.add_argument("--precisions", type=common.one_of(*PRECISIONS), default=PRECISIONS, help="of the weights")
    parser.add_argument("--seconds", type=common.positive, default=3, help="for each case (default 3)")
    options = parser.parse_args(argv)
    with common.inference(1):
        common.headline(options)
        try:
            for group in options.only:
                rows = []
                for record, row in results(group, options):
                    common.save(options, "cores", [record])
                    rows.append(row)
                    if options.json:
                        print(json.dumps(record), flush=True)
                if not options.json:
                    print(common.table(group, HEADER, rows), flush=True)
        finally:
            al.set_num_threads(None)


if __name__ == "__main__":
    main()
