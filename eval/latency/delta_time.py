"""Does skipped work turn into saved time? int8 with delta columns at a controlled activity: part of ``eval.latency``.

Random weights and inputs. The thresholds are searched so that every operand of every layer sends the wanted share of
its columns: then the share of columns is the share of the weights that are read. ``idle`` sends none at all: what
remains is gates and the search for changes. ``p=1`` sends every column that changes at all, so its time above ``idle``
is the whole column part. Times are also given as a share of ``dense``, the same int8 stack without a policy, which
visits all columns in the order that is fastest then.
"""

from collections.abc import Iterator

import torch

import adaptive_lstm as al
from adaptive_lstm.bench import format_seconds, ratio
from adaptive_lstm.peers import Adaptive
from eval.shared.common import race, table
from eval.shared.targets import Result, brief, record

ACTIVITIES = (0.75, 0.5, 0.25, 0.125, 0.0625)
SEARCH = 25  # runs to find the thresholds of one activity
MARGIN = 0.10  # target: the column part takes at most (activity + margin) of the dense column part


def delta_time(dense: Adaptive, x: torch.Tensor, *, quick: bool) -> Iterator[Result]:
    """Time over activity for x [1, T, I], first as one whole sequence, then step by step."""
    operands = 2 * dense.lstm.num_layers
    lineup = {"dense": dense, "idle": _skipping(dense, [1e6] * operands), "p=1": _skipping(dense, [1e-9] * operands)}
    lineup |= {f"p={wanted:g}": _skipping(dense, find_thresholds(dense, x, wanted)) for wanted in ACTIVITIES}
    activities = {name: _run(contender, x).activity for name, contender in lineup.items()}
    yield _judge("whole", lineup, activities, x, quick=quick)
    yield _judge("stream", lineup, activities, x, quick=quick)


def find_thresholds(dense: Adaptive, x: torch.Tensor, wanted: float) -> list[float]:
    """Thresholds of x and h of every layer, in turn, at which each sends about the share ``wanted`` of its columns."""
    thresholds = [0.05] * (2 * dense.lstm.num_layers)
    for _ in range(SEARCH):  # no bisection: what an operand sends depends on all thresholds below it
        columns = _run(_skipping(dense, thresholds), x).columns
        sent = [share for c in columns for share in (c.x_sent / c.x_possible, c.h_sent / c.h_possible)]
        thresholds = [t * min(2.0, max(0.5, share / wanted)) ** 0.5 for t, share in zip(thresholds, sent, strict=True)]
    return thresholds


def _skipping(dense: Adaptive, thresholds: list[float]) -> Adaptive:
    """The same weights, skipping every column that changed by no more than the threshold of its operand."""
    fast = al.AdaptiveLSTM.from_lstm(dense.lstm)
    fast.policy = al.Delta(x=tuple(thresholds[::2]), h=tuple(thresholds[1::2]))
    return Adaptive("int8 + delta", dense.precision, fast)


def _run(contender: Adaptive, x: torch.Tensor) -> al.RunStats:
    """The statistics of a run over x."""
    contender.whole(x)()
    return contender.last_run()


def _judge(
    mode: str, lineup: dict[str, Adaptive], activities: dict[str, float], x: torch.Tensor, *, quick: bool
) -> Result:
    streaming = mode == "stream"
    calls = {name: who.stream(x) if streaming else who.whole(x) for name, who in lineup.items()}
    timings = race(calls, quick=quick, prime=8 * int(streaming))
    idle = ratio(timings["idle"], timings["p=1"])
    rows, judged = [], []
    for name, timing in timings.items():
        share, allowed = ratio(timing, timings["p=1"]), activities[name] + MARGIN
        column_part = (share.median - idle.median) / (1 - idle.median)
        verdict = "PASS" if column_part <= allowed else "MISS"
        if name in ("dense", "idle", "p=1"):
            verdict = ""  # the two ends of the scale
        elif not (share.meaningful and idle.meaningful):
            verdict = "n/a"
        of_dense = ratio(timing, timings["dense"])
        figures = {"activity": activities[name], "column_part": column_part, "allowed": allowed}
        judged.append({"verdict": verdict, "who": name, "share": of_dense.as_dict(), **figures})
        cells = [f"{activities[name]:.3f}", format_seconds(timing.median), brief(of_dense), f"{column_part:.3f}"]
        rows.append([name, *cells, f"{allowed:.3f}", verdict])
    lstm = lineup["dense"].lstm
    case = f"({lstm.input_size}, {lstm.hidden_size}, {lstm.num_layers}) {mode}"
    header = ["int8 + delta", "activity", "median", "of dense", "column part", "allowed", ""]
    return Result(record("delta", case, timings, judged), table(f"{case}: time against activity", header, rows))
