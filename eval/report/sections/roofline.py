"""How close a step comes to the rates at which this machine can read and multiply."""

from functools import partial

from .. import plots, words
from ..blocks import Block, Figure, Panel, Section, Table, table
from ..records import Record, Results


def _draw(results: Results) -> list[Block]:
    records = results.of("roofline")
    return [_figure(records), _table(records)]


SECTION = Section(
    "roofline",
    "How close to the machine's limits?",
    "A streaming step must read every weight once, so memory bandwidth bounds it. A probe in the same run reads as "
    "many bytes as fast as one core can. A step near 100 % can only become faster by reading fewer bytes: smaller "
    "weights, or skipped columns.",
    ("roofline",),
    _draw,
)


def _figure(records: tuple[Record, ...]) -> Figure:
    shares = [(r, r["step_of_bandwidth"]) for r in records if words.usable(r["step_of_bandwidth"])]
    marks = [
        (r["case"].replace("adaptive ", ""), plots.Mark(r["case"], s * 100, 0, s * 100, f"{s:.0%}")) for r, s in shares
    ]
    alt = "Share of the read bandwidth that a step uses: " + "; ".join(f"{name} {m.words}" for name, m in marks)
    draw = partial(plots.dots, marks, title="A step, of the read bandwidth", unit="%", log=False, line=100)
    return Figure(
        (Panel(alt, draw),),
        "Rows are (inputs, hidden units, layers) and precision. The dashed line is the probe: as fast as one core "
        "reads memory or cache of that size.",
        records,
        left_out=", ".join(r["case"] for r in records if not words.usable(r["step_of_bandwidth"])),
    )


def _table(records: tuple[Record, ...]) -> Table:
    header = ["stack (I, H, L)", "weights", "core reads", "step", "of bandwidth", "step within a sequence",
              "recurrent reads", "of fp32 multiply rate"]  # fmt: skip
    rows = [
        [
            r["case"],
            words.size(r["megabytes"] * 1e6),
            f"{words.size(r['read_bandwidth'])}/s",
            words.seconds(r["step_seconds"]),
            words.percent(r["step_of_bandwidth"]),
            words.seconds(r["whole_step_seconds"]),
            words.percent(r["whole_of_bandwidth"]),
            words.percent(r["whole_of_multiply"]),
        ]
        for r in records
    ]
    caption = (
        "Batch 1, nothing skipped. Within a sequence, input matrices are shared between timesteps; above 100 % weights "
        "stay in a cache, or int8 multiplies faster."
    )
    return table(header, rows, caption=caption, records=records)
