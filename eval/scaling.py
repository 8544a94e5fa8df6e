"""How does time grow with the width H, the depth L and the length T, and what is the fixed cost of a call?

``python -m eval.scaling``: random weights, batch 1, whole sequences.
width   one layer, I = H from 32 to 1024, 100 steps
depth   1 to 4 layers of 256, 100 steps
length  1 to 1000 steps of two layers; in every round a line is fitted to time over T (least squares of relative
        deviations): its slope is a timestep, its intercept the cost of a call at T = 0, both with quartiles over rounds
"per cell-step" is the time divided by L * T: one timestep of one layer.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from adaptive_lstm.bench import MAX_SPREAD, Timing, format_seconds, ratio
from adaptive_lstm.peers import PEERS, Contender, Unavailable
from eval.shared import common
from eval.shared.contenders import STEPS, Shape, described, lineup, stack
from eval.shared.targets import brief

Record = dict[str, Any]

WIDTHS = (32, 64, 128, 256, 512, 1024)
DEPTHS, DEPTH_WIDTH = (1, 2, 3, 4), 256
LENGTHS, LENGTH_WIDTHS, LENGTH_DEPTH = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000), (64, 256), 2
BASE = "torch"


@dataclass(frozen=True)
class Line:
    """A line through time over T: seconds at T = 0 and per timestep, quartiles over rounds; largest relative error."""

    fixed: tuple[float, float, float]
    per_step: tuple[float, float, float]
    misfit: float

    @property
    def meaningful(self) -> bool:
        """False for a fixed cost whose quartiles lie far apart, or below zero: it must not be quoted."""
        p25, median, p75 = self.fixed
        return median > 0 and p75 - p25 <= MAX_SPREAD * median

    def as_dict(self) -> dict[str, object]:
        """For a JSON record."""
        p25, median, p75 = self.fixed
        return {
            "fixed": {"p25": p25, "median": median, "p75": p75, "meaningful": self.meaningful},
            "per_step": dict(zip(("p25", "median", "p75"), self.per_step, strict=True)),
            "misfit": self.misfit,
        }


def line(lengths: Sequence[int], timings: Sequence[Timing]) -> Line:
    """The fit in every round; timings of one race, one for each of the lengths."""
    medians = np.array([timing.median for timing in timings])
    samples = np.array([timing.samples for timing in timings])  # [lengths, rounds]
    slopes, intercepts = np.polyfit(lengths, samples, 1, w=1 / medians)
    quartiles = (0.25, 0.5, 0.75)
    fixed, per_step = np.quantile(intercepts, quartiles), np.quantile(slopes, quartiles)
    misfit = np.abs((fixed[1] + per_step[1] * np.array(lengths)) / medians - 1).max()
    return Line(tuple(map(float, fixed)), tuple(map(float, per_step)), float(misfit))  # type: ignore[arg-type]


def width(options: argparse.Namespace) -> Iterator[tuple[Record, list[str]]]:
    """Time over H."""
    for hidden in options.widths:
        yield from _sizes("width", (hidden, hidden, 1), options)


def depth(options: argparse.Namespace) -> Iterator[tuple[Record, list[str]]]:
    """Time over L."""
    for layers in options.depths:
        yield from _sizes("depth", (DEPTH_WIDTH, DEPTH_WIDTH, layers), options)


def _sizes(group: str, of: Shape, options: argparse.Namespace) -> Iterator[tuple[Record, list[str]]]:
    present, unavailable = lineup(stack(of), options.peers, threads=options.threads)
    x = torch.randn(1, STEPS, of[0])
    timings = common.race({who.name: who.whole(x) for who in present}, quick=options.quick, seconds=15)
    for who in present:
        record, row = _measured(group, who, of, STEPS, timings[who.name], timings.get(BASE), options)
        yield {**record, "unavailable": [vars(one) for one in unavailable]}, row


def length(options: argparse.Namespace) -> Iterator[tuple[Record, list[str]]]:
    """Time over T, and the line that fits it."""
    for hidden in options.length_widths:
        of = (hidden, hidden, LENGTH_DEPTH)
        present, unavailable = lineup(stack(of), options.peers, threads=options.threads)
        calls = {
            f"{who.name} {steps}": who.whole(torch.randn(1, steps, hidden))
            for who in present
            for steps in options.lengths
        }
        timings = common.race(calls, quick=options.quick, seconds=45)
        for who in present:
            mine = [timings[f"{who.name} {steps}"] for steps in options.lengths]
            fitted = line(options.lengths, mine)
            for steps, timing in zip(options.lengths, mine, strict=True):
                record, row = _measured("length", who, of, steps, timing, timings.get(f"{BASE} {steps}"), options)
                yield {**record, "unavailable": [vars(one) for one in unavailable]}, row
            found = {**described(who, of, batch=1, threads=options.threads), **fitted.as_dict()}
            fixed = format_seconds(fitted.fixed[1]) if fitted.meaningful else "n/a"
            each = format_seconds(fitted.per_step[1] / LENGTH_DEPTH)
            row = [f"{who.name}: fixed cost of a call", str(of), "0", fixed, each, f"misfit {fitted.misfit:.0%}"]
            yield {"group": "fixed", "case": f"{of} {who.name}", "lengths": list(options.lengths), **found}, row


def _measured(
    group: str,
    who: Contender,
    of: Shape,
    steps: int,
    timing: Timing,
    base: Timing | None,
    options: argparse.Namespace,
) -> tuple[Record, list[str]]:
    """One contender at one size, as a record and as a row of the table."""
    speed = None if base is None else ratio(base, timing)
    record = {
        "group": group,
        "case": f"{of} {steps} steps {who.name}",
        **described(who, of, batch=1, threads=options.threads),
        "T": steps,
        "seconds": timing.as_dict(),
        "per_cell_step": timing.median / (of[2] * steps),
        "speed": {} if speed is None else {BASE: speed.as_dict()},
    }
    each = format_seconds(timing.median / (of[2] * steps))
    against = "" if speed is None else brief(speed)
    return record, [who.name, str(of), str(steps), format_seconds(timing.median), each, against]


GROUPS = {"width": width, "depth": depth, "length": length}
HEADER = ["contender", "I, H, L", "steps", "a call", "per cell-step", f"against {BASE}"]


def main(argv: Sequence[str] | None = None) -> None:
    parser = common.parser(__doc__)
    numbers: dict[str, Any] = {"type": common.positive, "nargs": "+", "metavar": "N"}
    parser.add_argument("--only", type=common.one_of(*GROUPS), default=tuple(GROUPS), help="questions")
    parser.add_argument("--peers", type=common.one_of(*PEERS), default=("torch", "ORT", "ORT int8"), help="see below")
    parser.add_argument("--widths", **numbers, default=WIDTHS, help="H")
    parser.add_argument("--depths", **numbers, default=DEPTHS, help=f"L, of H = {DEPTH_WIDTH}")
    parser.add_argument("--lengths", **numbers, default=LENGTHS, help="T; two or more are needed for the line")
    parser.add_argument("--length-widths", **numbers, default=LENGTH_WIDTHS, help="H whose time over T is taken")
    parser.epilog = f"peers: {', '.join(PEERS)}"
    options = parser.parse_args(argv)
    if len(set(options.lengths)) < 2:
        parser.error(f"--lengths: got {options.lengths}, expected at least two different ones to fit a line")
    with common.inference(options.threads):
        common.headline(options)
        for group in options.only:
            rows, unavailable = [], set()
            for record, row in GROUPS[group](options):
                common.save(options, "scaling", [record])
                rows.append(row)
                unavailable |= {Unavailable(**one) for one in record.get("unavailable", ())}
                if options.json:
                    print(json.dumps(record), flush=True)
            if not options.json:
                print(common.table(group, HEADER, rows), flush=True)
                for one in sorted(unavailable, key=lambda a: a.name):
                    print(f"unavailable: {one.name} ({one.reason})")


if __name__ == "__main__":
    main()
