"""How many sequences a second, in batches of varying length and size."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from .. import plots, words
from ..blocks import Block, Figure, Panel, Section, Table, as_table, by_shape, table, unavailable
from ..records import Record, Results

AIM = 0.97  # of the speed of torch: what lies above is noise


def _draw(results: Results) -> list[Block]:
    records, dense = results.of("throughput", "throughput"), results.of("latency", "batch")
    blocks: list[Block] = [_figure(records), as_table(_table(records))] if records else []
    return [*blocks, _equal_lengths(dense)] if dense else blocks


SECTION = Section(
    "throughput",
    "Throughput in batches",
    "The sequences of a batch share every weight that is read, so a runtime made for one stream has the least to offer "
    "here. Sequences of varying length are padded to the longest of their batch, or packed.",
    ("throughput", "latency"),
    _draw,
)


def _figure(records: Sequence[Record]) -> Figure:
    return Figure(
        tuple(_panels(records)),
        "Higher is better. Dashed lines are packed sequences, solid ones padded. Lengths follow "
        f"{records[0]['lengths']['law']} timesteps; random weights.",
        tuple(records),
        layout="two",
        left_out="; ".join(unavailable(records)),
    )


def _panels(records: Sequence[Record]) -> Iterator[Panel]:
    for threads in sorted({r["threads"] for r in records}):
        for shape, some in by_shape([r for r in records if r["threads"] == threads]).items():
            series = []
            for name, form in dict.fromkeys((r["contender"], r["form"]) for r in some):
                of = [r for r in some if (r["contender"], r["form"]) == (name, form)]
                of = sorted((r for r in of if words.usable(r["sequences_per_second"])), key=lambda r: r["batch"])
                if of:
                    xs, ys = [r["batch"] for r in of], [r["sequences_per_second"] for r in of]
                    tint = plots.colour(name)
                    series.append(plots.Series(f"{name}, {form}", tint, xs, ys, dashed=form == "packed"))
            if series:
                alt = f"Sequences per second over batch size, stack {shape}, {threads} threads: " + "; ".join(
                    f"{s.name} {s.ys[0]:.3g} at batch {s.xs[0]:g} to {s.ys[-1]:.3g} at {s.xs[-1]:g}" for s in series
                )
                title = f"Stack {shape}, {threads} thread" + "s" * (threads > 1)
                axes: dict[str, Any] = {"across": "sequences in a batch (log)", "up": "sequences per second (log)"}
                yield Panel(alt, partial(plots.lines, series, title=title, **axes, log="xy"))


def _table(records: Sequence[Record]) -> Table:
    header = ["stack (I, H, L)", "contender", "batch", "threads", "padding", "sequences per second",
              "against torch, padded", "against torch, packed"]  # fmt: skip
    rows = [
        [
            shape,
            f"{'*' if r['ours'] else ''}{r['contender']}, {r['form']}",
            r["batch"],
            r["threads"],
            words.percent(r["lengths"]["padding"]),
            words.number(r["sequences_per_second"]),
            *(words.times(r["speed"].get(f"torch, {form}", {}).get("median")) for form in ("padded", "packed")),
        ]
        for shape, some in by_shape(records).items()
        for r in some
    ]
    return table(header, rows, caption="Random weights, lengths as above.", records=records)


def _slowest(records: Sequence[Record]) -> str:
    """How far the aim, never to be slower than torch, was missed."""
    ratios = [words.speed(r["seconds"]["torch"], r["seconds"]["adaptive fp32"]) for r in records]
    known = [ratio for ratio in ratios if ratio is not None]
    if not known:
        return "The aim is never to be slower than torch."
    slower = sum(ratio < AIM for ratio in known)
    return (
        f"The aim is never to be slower than torch; {slower} of {len(known)} cases fell below "
        f"{words.times(AIM)} of its speed, the slowest at {words.times(min(known))}."
    )


def _equal_lengths(records: Sequence[Record]) -> Table:
    header = ["stack (I, H, L, batch)", "torch fp32", "exact fp32", "against torch"]
    rows = [
        [
            r["case"],
            words.seconds(r["seconds"]["torch"]["median"]),
            words.seconds(r["seconds"]["adaptive fp32"]["median"]),
            words.times(words.speed(r["seconds"]["torch"], r["seconds"]["adaptive fp32"])),
        ]
        for r in records
    ]
    caption = f"Sequences of equal length, exact float32, times per batch. {_slowest(records)}"
    return table(header, rows, caption=caption, records=records)
