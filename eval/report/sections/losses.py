"""Where it loses: every case in which a peer is faster at the same quality, and every broken promise."""

from collections.abc import Callable, Iterable
from typing import Any

from .. import words
from ..blocks import Block, Missing, Paragraph, Section, table
from ..races import races
from ..records import Record, Results

COSTS: dict[tuple[str, str], tuple[str, Callable[[Any], str], Callable[[Record], float]]] = {
    ("streaming", "step"): ("median step", words.seconds, lambda r: r["seconds"]["median"]),
    ("streaming", "streams"): ("streams per core", words.number, lambda r: -r["streams_per_core"]),
    ("throughput", "throughput"): ("sequences per second", words.number, lambda r: -r["sequences_per_second"]),
    ("scaling", "width"): ("time of a call", words.seconds, lambda r: r["seconds"]["median"]),
    ("scaling", "depth"): ("time of a call", words.seconds, lambda r: r["seconds"]["median"]),
    ("scaling", "length"): ("time of a call", words.seconds, lambda r: r["seconds"]["median"]),
    ("footprint", "footprint"): (
        "process from start to end",
        words.seconds,
        lambda r: r["seconds"]["process"]["median"],
    ),
}  # (evaluation, group) -> the measure, how it is written, and a cost: lower is better
MORE = {"T": "steps", "batch": "batch", "threads": "threads", "form": "form"}
VERSUS = ("faster peer", "its time", "this project", "its time", "speed")
OURS = "adaptive"

Row = tuple[list[str], Record]
"""The cells of a loss, and the record that shows it."""


def _draw(results: Results) -> list[Block]:
    blocks: list[Block] = []
    for rows, header, caption in (
        (_at_equal_quality(results), ["model", "mode", *VERSUS],
         "At equal quality on real models: speed below 1 is a loss."),
        (_same_precision(results), ["stack", "question", *VERSUS],
         "Random weights, same precision: the fastest peer against the fastest of this project."),
        (_alone(results), ["stack", "measure", "better peer", "its figure", "this project", "its figure", "advantage"],
         "Random weights, same precision, the other evaluations: advantage below 1 is a loss."),
        (_skipping(results), ["model", "calibrated for", "policy", "work skipped", "time saved"],
         "Certified policies that make whole sequences slower than the same int8 model without skipping."),
        (_broken(results), ["model", "calibrated for", "limit", "loss on fresh data", "at least"],
         "Certified promises that fresh data contradict."),
    ):  # fmt: skip
        found = list(rows)
        records = [record for _, record in found]
        cells = [row for row, _ in found]
        blocks.append(
            table(header, cells, caption=caption, records=records) if found else Paragraph(f"{caption} None.")
        )
    return blocks if results.of("frontier") else [*blocks, Missing(("frontier",))]


SECTION = Section(
    "losses",
    "Where it loses",
    "Every row of this report in which a peer at equal quality is faster, in which skipping costs time instead of "
    "saving it, or in which a promise was broken. Rows too noisy to divide are listed as well.",
    (),
    _draw,
)


def _at_equal_quality(results: Results) -> Iterable[Row]:
    for race in races(results):
        peer, mine, gain = race.peer, race.mine, race.gain
        if peer is None or (gain is not None and gain >= 1):
            continue
        ours = [mine.name, words.seconds(mine.seconds)] if mine else ["none kept the quality", words.NA]
        cells = [race.model, race.mode, peer.name, words.seconds(peer.seconds), *ours, words.times(gain)]
        yield cells, race.record


def _same_precision(results: Results) -> Iterable[Row]:
    for r in results.of("latency", "whole", "stream", "tiny", "batch"):
        for int8 in (False, True):
            timings = {
                name: t for name, t in r["seconds"].items() if ("int8" in name) == int8 and words.usable(t["median"])
            }
            peers = {n: t for n, t in timings.items() if not n.startswith(OURS)}
            mine = {n: t for n, t in timings.items() if n.startswith(OURS)}
            if not peers or not mine:
                continue
            peer, best = (min(of, key=lambda n: of[n]["median"]) for of in (peers, mine))
            gain = words.speed(peers[peer], mine[best])
            if gain is None or gain < 1:
                yield [r["case"], r["group"], peer, words.seconds(peers[peer]["median"]), best,
                       words.seconds(mine[best]["median"]), words.times(gain)], r  # fmt: skip


def _alone(results: Results) -> Iterable[Row]:
    """The same for records of one contender each: the cheapest of every precision under equal circumstances."""
    for (name, group), (measure, show, cost) in COSTS.items():
        races: dict[str, list[Record]] = {}
        for r in results.of(name, group):
            same = [str(r.get(key, "")) for key in ("I", "H", "L", "T", "batch", "threads", "form")]
            # Each contender serves its streams in batches of its own size; only their number in the end counts.
            circumstances = same[:3] if group == "streams" else same
            races.setdefault(", ".join([*circumstances, r["precision"]]), []).append(r)
        for of in races.values():
            usable = [r for r in of if words.usable(cost(r))]
            peer, mine = (
                min((r for r in usable if r["ours"] == ours), key=cost, default=None) for ours in (False, True)
            )
            if peer is not None and mine is not None and cost(peer) < cost(mine):
                stack = f"({peer['I']}, {peer['H']}, {peer['L']})"
                more = [f"{word} {peer[key]}" for key, word in MORE.items() if key in peer and group != "streams"]
                yield [" ".join([stack, *more]), measure, peer["contender"], show(abs(cost(peer))), mine["contender"],
                       show(abs(cost(mine))), words.times(_advantage(peer, mine, cost))], mine  # fmt: skip


def _advantage(peer: Record, mine: Record, cost: Callable[[Record], float]) -> float | None:
    """How many times as good ours is; of numbers that are better large, both costs are negative."""
    a, b = cost(peer), cost(mine)
    return (a / b if b > 0 else b / a) if a and b else None


def _skipping(results: Results) -> Iterable[Row]:
    for r in results.of("savings"):
        if "failed" not in r and (not words.usable(r["saved"]) or r["saved"] < 0):
            yield [r["group"], r["case"], r["policy"], words.percent(r["skipped"]), words.percent(r["saved"])], r


def _broken(results: Results) -> Iterable[Row]:
    for r in results.of("savings"):
        if r.get("certified") and r["fresh_at_least"] > r["max_loss"]:
            yield [r["group"], r["case"], f"{r['max_loss']:g}", words.number(r["loss_fresh"], 3),
                   words.number(r["fresh_at_least"], 3)], r  # fmt: skip
