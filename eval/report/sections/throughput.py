"""How many sequences a second, in batches of varying length and size."""

from collections.abc import Sequence
from typing import Any

from eval.report import plots

from .. import page, words
from ..records import Record, Results
from .streaming import by_shape, left_out

TITLE = "Throughput in batches"


def build(results: Results) -> page.Section:
    records, plain = results.of("throughput", "throughput"), results.of("latency", "batch")
    body = [
        page.paragraph(
            "Batches share every weight that is read among their sequences, so a runtime made for one stream has the "
            "least to offer here. Sequences of varying length are padded to the longest of their batch, or packed."
        )
    ]
    body += [_figure(records), page.details("As a table", _table(records))] if records else [page.missing("throughput")]
    body += [_plain_table(plain)] if plain else [page.missing("latency")]
    return page.Section("throughput", TITLE, tuple(body))


def _figure(records: Sequence[Record]) -> str:
    panels = []
    for threads in sorted({r["threads"] for r in records}):
        for shape, some in by_shape([r for r in records if r["threads"] == threads]).items():
            series = []
            for name in dict.fromkeys((r["contender"], r["form"]) for r in some):
                of = [
                    r for r in some if (r["contender"], r["form"]) == name and words.usable(r["sequences_per_second"])
                ]
                of.sort(key=lambda r: r["batch"])
                if of:
                    xs, ys = [r["batch"] for r in of], [r["sequences_per_second"] for r in of]
                    series.append(
                        plots.Series(f"{name[0]}, {name[1]}", plots.colour(name[0]), xs, ys, dashed=name[1] == "packed")
                    )
            if series:
                alt = f"Sequences per second over batch size, stack {shape}, {threads} threads: " + "; ".join(
                    f"{s.name} {s.ys[0]:.3g} at batch {s.xs[0]:g} to {s.ys[-1]:.3g} at {s.xs[-1]:g}" for s in series
                )
                title = f"Stack {shape}, {threads} thread" + "s" * (threads > 1)
                axes: dict[str, Any] = {"across": "sequences in a batch (log)", "up": "sequences per second (log)"}
                panels.append((alt, plots.lines(series, title=title, **axes, log="xy")))
    return page.figure(
        panels,
        caption="Higher is better. Dashed lines are packed sequences, solid ones padded. Lengths follow "
        f"{records[0]['lengths']['law']} timesteps; random weights.",
        records=records,
        layout="two",
        na="; ".join(left_out(records)),
    )


def _table(records: Sequence[Record]) -> str:
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
    return page.table(header, rows, caption="Random weights, lengths as above.")


def _plain_table(records: Sequence[Record]) -> str:
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
    return page.table(header, rows, caption="Sequences of equal length, exact float32: never slower than torch is the "
                      "promise. Times per batch, from python -m eval.latency.")  # fmt: skip
