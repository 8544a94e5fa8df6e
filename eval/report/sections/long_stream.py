"""Whether streams stay right for millions of steps."""

from functools import partial

from .. import plots, words
from ..blocks import Block, Figure, Panel, Section, table
from ..records import Record, Results


def _draw(results: Results) -> list[Block]:
    records = results.of("long_stream")
    header = ["stream", "steps", "columns sent", "counters", "off the reference, first half", "second half",
              "off nn.LSTM, first half", "second half", "memory added"]  # fmt: skip
    rows = [
        [
            r["case"],
            f"{r['steps']:,}",
            words.percent(r["activity"]),
            "right" if r["counted"] else "wrong",
            *(words.number(error, 2) for error in (*r["reference"], *r["fresh"])),
            words.size(r["growth"]),
        ]
        for r in records
    ]
    caption = (
        "Largest differences of outputs at 20 checkpoints. The reference starts from the stream's own state, so its "
        "column says what a step does, however late it is; nn.LSTM starts 2,000 steps before. Memory: of the process, "
        "largest in the second half less largest in the first."
    )
    return [_figure(records), table(header, rows, caption=caption, records=records)]


def _figure(records: tuple[Record, ...]) -> Figure:
    ratios = [
        (f"{r['case']}, off {who}", r[key][1] / r[key][0])
        for r in records
        for who, key in (("the reference", "reference"), ("nn.LSTM", "fresh"))
    ]
    marks = [(name, plots.Mark(name, ratio, 0, ratio, f"{ratio:.2f}")) for name, ratio in ratios]
    alt = "Largest error of the second half over that of the first: " + "; ".join(f"{n} {m.words}" for n, m in marks)
    draw = partial(plots.dots, marks, title="Second half over first half", unit="times", log=False, line=1)
    return Figure(
        (Panel(alt, draw),), "Errors that add up would lie far to the right of the dashed line.", records, left_out=""
    )


SECTION = Section(
    "long_stream",
    "Does a stream stay right?",
    "A stream has no end, so nothing may add up: no rounding in what a policy keeps, no counter, no memory. Inputs are "
    "slow waves with noise, silence, and now and then a spike of ten thousand times their size.",
    ("long_stream",),
    _draw,
)
