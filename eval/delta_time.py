"""Does skipped work turn into saved time? int8 with delta columns at a controlled activity: part of ``eval.latency``.

Random weights and inputs; one global threshold is searched for every wanted share of columns. ``idle`` sends none at
all: its gates and its search for changes are no column's work and are taken off both sides where the column part is
judged. Everything is told as a share of ``dense``, the same int8 stack that skips nothing and may run matrix products.
"""

from collections.abc import Iterator

import torch

import adaptive_lstm as al
from adaptive_lstm.bench import format_seconds, ratio
from eval.common import race, table
from eval.contenders import Adaptive
from eval.targets import Result, record

ACTIVITIES = (0.75, 0.5, 0.25, 0.125, 0.0625)
MARGIN = 0.10  # target: the column part takes at most (activity + margin) of the dense column part


def delta_time(dense: Adaptive, x: torch.Tensor, *, quick: bool) -> Iterator[Result]:
    """Time over activity for x [1, T, I], first as one whole sequence, then step by step."""
    skipping = {f"p={wanted:g}": skipper(dense, find_threshold(dense, x, wanted)) for wanted in ACTIVITIES}
    lineup = {"dense": dense, "idle": skipper(dense, 1e3), **skipping}
    activities = {name: activity(contender, x) for name, contender in lineup.items()}
    yield _judge("whole", lineup, activities, x, quick=quick)
    yield _judge("stream", lineup, activities, x, quick=quick)


def skipper(dense: Adaptive, threshold: float) -> Adaptive:
    """The same weights, skipping every column that changed by no more than ``threshold`` since it was last sent."""
    fast = al.adapt(dense.lstm)
    fast.policy = al.Delta(threshold)
    return Adaptive(f"delta {threshold:.3g}", dense.precision, fast)


def activity(contender: Adaptive, x: torch.Tensor) -> float:
    """Share of the columns that a run over x sends, as the runtime counts it."""
    contender.whole(x)()
    return float(contender.lstm.last_run.activity)


def find_threshold(dense: Adaptive, x: torch.Tensor, wanted: float) -> float:
    """Smallest global threshold, within 1 %, whose activity over x does not exceed ``wanted``."""
    trial = skipper(dense, 0.0)
    low, high = 1e-4, 10.0
    while high / low > 1.01:
        middle = (low * high) ** 0.5
        trial.lstm.policy = al.Delta(middle)
        low, high = (low, middle) if activity(trial, x) <= wanted else (middle, high)
    return high


def _judge(
    mode: str, lineup: dict[str, Adaptive], activities: dict[str, float], x: torch.Tensor, *, quick: bool
) -> Result:
    streaming = mode == "stream"
    calls = {name: who.stream(x) if streaming else who.whole(x) for name, who in lineup.items()}
    timings = race(calls, quick=quick, prime=int(streaming))
    idle = ratio(timings["idle"], timings["dense"])
    rows, judged = [], []
    for name, timing in timings.items():
        share, allowed = ratio(timing, timings["dense"]), activities[name] + MARGIN
        column_part = (share.median - idle.median) / (1 - idle.median)
        verdict = "PASS" if column_part <= allowed else "MISS"
        if name in ("dense", "idle"):
            verdict = ""  # the two ends of the scale
        elif not (share.meaningful and idle.meaningful):
            verdict = "n/a"
        figures = {"activity": activities[name], "column_part": column_part, "allowed": allowed}
        judged.append({"verdict": verdict, "who": name, "share": share.as_dict(), **figures})
        cells = [f"{activities[name]:.3f}", format_seconds(timing.median), share, f"{column_part:.3f}"]
        rows.append([name, *cells, f"{allowed:.3f}", verdict])
    lstm = lineup["dense"].lstm
    case = f"({lstm.input_size}, {lstm.hidden_size}, {lstm.num_layers}) {mode}"
    header = ["int8 + delta", "activity", "median", "of dense", "column part", "allowed", ""]
    return Result(record("delta", case, timings, judged), table(f"{case}: time against activity", header, rows))
