"""Races at equal quality: every contender on one model with its time and its loss, and the fastest of equal quality."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval.frontier.quality import WITHIN

from . import words
from .records import Record, Results

BAND = WITHIN  # share of the task metric that may be lost and still count as equal quality
DENSE = "torch"  # the name of the original among the contenders
OURS = "ours"  # how names of this project's variants begin in eval.frontier
WHOLE, MODEL, STEP = "whole sequence", "whole model", "streaming step"
USES = {"whole": WHOLE, "model": MODEL, "step": STEP}  # of eval.frontier
ENCODER = {"window": (WHOLE, "mean"), "step": (STEP, "stream")}  # groups of eval.quality, and their cosine
ENCODER_METRIC = "cosine of embeddings"


@dataclass(frozen=True)
class Runner:
    """One contender. timing: quantiles in seconds; quality: the metric; lost: its relative loss against torch fp32."""

    name: str
    ours: bool
    timing: Mapping[str, Any]
    quality: float | None
    lost: float | None
    equal: bool

    @property
    def seconds(self) -> float:
        return float(self.timing["median"])


@dataclass(frozen=True)
class Race:
    """All contenders on one model in one mode.

    peer, mine: the fastest at equal quality; None: none kept it. gain, gain_on_torch: how many times as long the
    peer, and torch fp32, take as ``mine``; None: not known. gain_quartiles: of the paired ratios; None: not
    paired. unavailable: name -> the reason.
    """

    model: str
    mode: str
    metric: str
    runners: tuple[Runner, ...]
    peer: Runner | None
    mine: Runner | None
    gain: float | None
    gain_quartiles: tuple[float, float] | None
    gain_on_torch: float | None
    unavailable: Mapping[str, str]
    record: Record

    def dense(self) -> Runner | None:
        return next((r for r in self.runners if r.name == DENSE), None)


def geometric(races: Sequence[Race], *, torch: bool = False) -> tuple[float | None, int]:
    """Geometric mean of the known gains, and their number."""
    gains = [g for g in ((r.gain_on_torch if torch else r.gain) for r in races) if g is not None]
    return words.geometric_mean(gains), len(gains)


def races(results: Results) -> list[Race]:
    """Those of eval.frontier; of eval.quality, which knows one model only, as long as there are none."""
    records = sorted(results.of("frontier"), key=lambda record: str(record["group"]))
    found = [race for record in records for race in _of_frontier(record)]
    return found or [_of_quality(record) for record in results.of("quality")]


def in_mode(found: Iterable[Race], mode: str) -> list[Race]:
    return [race for race in found if race.mode == mode]


def _of_frontier(record: Record) -> Iterator[Race]:
    """Winners and ratios are those that eval.frontier paired round by round."""
    metric = next(iter(record["dense"]), record["distance"])
    for use, timings in record["seconds"].items():
        verdict = record["verdicts"][use]
        runners = []
        for name, timing in timings.items():
            quality = record["quality"].get(name)
            kept = quality is not None and (quality["kept"] or name == verdict["peer"])
            value = None if quality is None else quality["figures"].get(metric, quality["distance"])
            lost = None if quality is None else lost_of(record["dense"], quality["figures"], quality["distance"])
            runners.append(Runner(name, name.startswith(OURS), timing, value, lost, kept))
        by_name = {r.name: r for r in runners}
        gain, gain_on_torch = (words.quoted(verdict.get(goal)) for goal in ("best peer", "torch"))
        peer, mine = (by_name.get(verdict[who] or "") for who in ("peer", "ours"))
        versus = verdict.get("best peer")
        quartiles = None if gain is None or versus is None else (float(versus["p25"]), float(versus["p75"]))
        threads = "" if record["case"].startswith("1 ") else f", {record['case']}"
        yield Race(record["group"] + threads, USES.get(use, use), metric, tuple(runners), peer, mine, gain,
                   quartiles, gain_on_torch, record["unavailable"], record)  # fmt: skip


def lost_of(dense: Mapping[str, float], figures: Mapping[str, float], distance: float) -> float | None:
    """The largest relative change of any task figure; of a model without figures, its distance from the original."""
    lost = []
    for name, before in dense.items():
        after = figures.get(name)
        if after is None or not words.usable(after) or not words.usable(before) or before == 0:
            return None
        lost.append(abs(after - before) / abs(before))
    return max(lost) if lost else (distance if words.usable(distance) else None)


def _of_quality(record: Record) -> Race:
    """The speaker encoder: quality is a cosine with the original, which has 1."""
    mode, key = ENCODER[record["group"]]
    runners = []
    for name, timing in record["seconds"].items():
        cosine = record["quality"][name][key]
        lost = 1 - cosine if words.usable(cosine) else None
        ours = record["quality"][name]["activity"] is not None
        runners.append(Runner(name, ours, timing, cosine, lost, lost is not None and lost <= BAND))
    peer, mine = (
        min((r for r in runners if r.ours == ours and r.equal), key=lambda r: r.seconds, default=None)
        for ours in (False, True)
    )
    dense = next((r for r in runners if r.name == DENSE), None)
    gain, gain_on_torch = (
        words.speed(slow.timing, mine.timing) if slow is not None and mine is not None else None
        for slow in (peer, dense)
    )
    return Race(record["case"], mode, ENCODER_METRIC, tuple(runners), peer, mine, gain, None, gain_on_torch, {},
                record)  # fmt: skip
