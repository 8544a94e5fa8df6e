"""How long a frame takes, tail included, and how many live streams one core serves."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from .. import plots, words
from ..blocks import Block, Figure, Heading, Panel, Section, Table, as_table, by_shape, contender, table, unavailable
from ..records import Record, Results
from . import goals


def _draw(results: Results) -> list[Block]:
    steps, streams = results.of("streaming", "step"), results.of("streaming", "streams")
    blocks: list[Block] = []
    if streams:
        blocks += [Heading("Concurrent real-time streams per core"), _streams_figure(streams)]
        blocks += [as_table(_streams_table(streams))]
    if steps:
        blocks += [Heading("One step of one stream"), _steps_figure(steps), as_table(_steps_table(steps))]
    if cold := results.of("streaming", "cold"):
        blocks += [Heading("A step after other work has taken the caches"), as_table(_cold_table(cold))]
        if (judged := goals.of_cold_steps(by_shape(cold).items())) is not None:
            blocks.append(judged)
    return blocks


SECTION = Section(
    "streaming",
    "Streaming: single steps, and streams per core",
    "A live stream brings one frame at a time, and its state is carried from step to step. Two questions matter: how "
    "long a frame takes at worst, and how many streams one core keeps up with. A number of streams counts as served "
    "if, of 100 rounds in which every stream advances by a frame, the 99th percentile is over before the next frame is "
    "due. Weights are random; quality is shown under quality against time.",
    ("streaming",),
    _draw,
)


def _streams_figure(records: Sequence[Record]) -> Figure:
    panels, lacking = [], unavailable(records)
    for shape, some in by_shape(records).items():
        best: dict[str, Record] = {}
        for r in some:
            if not words.usable(r["streams_per_core"]) or r["streams_per_core"] <= 0:
                lacking.append(f"{r['contender']}, {r['way']} on {shape}: not one stream")
            elif r["streams_per_core"] > best.get(r["contender"], {"streams_per_core": 0})["streams_per_core"]:
                best[r["contender"]] = r
        marks = [
            (name, _streams_mark(r)) for name, r in sorted(best.items(), key=lambda kv: -kv[1]["streams_per_core"])
        ]
        if marks:
            alt = f"Streams per core, stack {shape}: " + "; ".join(f"{name} {m.words}" for name, m in marks)
            panels.append(Panel(alt, partial(plots.dots, marks, title=f"Stack {shape}", unit="streams per core")))
    rates = ", ".join(sorted({f"{r['rate']:g}" for r in records}))
    return Figure(
        tuple(panels),
        f"Streams of {rates} frames a second that one core serves in time; further right is cheaper to run. "
        "Each contender in the better of its two ways: stream by stream, or all in one batch. Whiskers reach from the "
        "least to the most of the repeated searches; a question mark where they lie too far apart to trust. Titles: "
        "inputs, hidden units, layers.",
        tuple(records),
        left_out="; ".join(lacking),
    )


def _streams_mark(r: Record) -> plots.Mark:
    per = r["streams_per_core"] / r["streams"] if r["streams"] else 1.0
    low, high = min(r["counts"]) * per, max(r["counts"]) * per
    label = f"{r['streams_per_core']:,.0f}" + ("" if r["meaningful"] else " ?")
    return plots.Mark(r["contender"], r["streams_per_core"], max(low, 0.5), high, label)


def _streams_table(records: Sequence[Record]) -> Table:
    header = [
        "stack (I, H, L)",
        "contender",
        "way",
        "frames per second",
        "streams per core",
        "searches",
        "99th percentile of a round",
    ]
    rows = [
        [
            shape,
            contender(r),
            r["way"],
            f"{r['rate']:g}",
            f"{r['streams_per_core']:g}" if r["meaningful"] else words.NA,
            " ".join(map(str, r["counts"])),
            words.seconds((r["tick"] or {}).get("p99")),
        ]
        for shape, some in by_shape(records).items()
        for r in sorted(some, key=lambda r: -r["streams_per_core"])
    ]
    return table(header, rows, caption="n/a: the repeated searches lie too far apart.", records=records)


def _steps_figure(records: Sequence[Record]) -> Figure:
    panels, lacking = [], unavailable(records)
    for shape, some in by_shape(records).items():
        usable = [r for r in some if all(words.usable(r["seconds"].get(k)) for k in ("median", "p99"))]
        lacking += [f"{r['contender']} on {shape}: no times" for r in some if r not in usable]
        marks = [
            (r["contender"], _step_mark(r["contender"], r["seconds"]))
            for r in sorted(usable, key=lambda r: r["seconds"]["median"])
        ]
        if marks:
            alt = f"Step, stack {shape}: " + "; ".join(f"{name} {m.words}" for name, m in marks)
            draw = partial(plots.dots, marks, title=f"Stack {shape}", unit="time of a step", clock=True)
            panels.append(Panel(alt, draw))
    return Figure(
        tuple(panels),
        "The marker is the median of single steps, its line reaches to the 99th percentile; the words give both. "
        "Further left is faster, a short line is a steady one.",
        tuple(records),
        left_out="; ".join(lacking),
    )


def _step_mark(who: str, timing: Mapping[str, Any]) -> plots.Mark:
    median, tail = timing["median"], timing["p99"]
    return plots.Mark(who, median, median, tail, f"{words.seconds(median)}, {words.seconds(tail)}")


def _cold_table(records: Sequence[Record]) -> Table:
    bases = list(dict.fromkeys(base for r in records for base in r["speed"]))
    header = ["stack (I, H, L)", "contender", "warm", "cold", "95th percentile", *(f"cold, against {b}" for b in bases)]
    rows = [
        [
            shape,
            contender(r),
            words.seconds(r["warm"]["median"]),
            *(words.seconds(r["seconds"].get(k)) for k in ("median", "p95")),
            *(words.times(r["speed"].get(base, {}).get("median")) for base in bases),
        ]
        for shape, some in by_shape(records).items()
        for r in sorted(some, key=lambda r: r["seconds"]["median"])
    ]
    between = ", ".join(sorted({f"{r['between'] / 2**20:.0f} MB" for r in records}))
    reading = "; ".join(
        f"{shape}: {words.seconds(some[0]['reading']['median'])}" for shape, some in by_shape(records).items()
    )
    caption = (
        f"Times of one step, batch 1. Cold: {between} of other memory are written before the step. Ahead: "
        f"`stream.ahead()` was called before that. To read as many bytes as the int8 weights have takes, equally cold, "
        f"{reading}."
    )
    return table(header, rows, caption=caption, records=records)


def _steps_table(records: Sequence[Record]) -> Table:
    bases = list(dict.fromkeys(base for r in records for base in r["speed"]))
    header = [
        "stack (I, H, L)",
        "contender",
        "median",
        "95th percentile",
        "99th percentile",
        *(f"against {b}" for b in bases),
    ]
    rows = [
        [
            shape,
            contender(r),
            *(words.seconds(r["seconds"].get(k)) for k in ("median", "p95", "p99")),
            *(words.times(r["speed"].get(base, {}).get("median")) for base in bases),
        ]
        for shape, some in by_shape(records).items()
        for r in sorted(some, key=lambda r: r["seconds"]["median"])
    ]
    caption = "Times of one step, batch 1. n/a: too noisy to divide, or it did not take part."
    return table(header, rows, caption=caption, records=records)
