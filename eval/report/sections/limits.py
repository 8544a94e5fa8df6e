"""What keeps every real model from being faster still."""

from functools import partial

from eval.frontier.verdict import TARGETS

from .. import plots, words
from ..blocks import Block, Figure, Panel, Section, Table, table
from ..races import USES
from ..records import Record, Results

_GOALS = " and ".join(f"{goal['torch']:g} times for a {USES[use]}" for use, goal in TARGETS.items())


def _draw(results: Results) -> list[Block]:
    records = results.of("limits")
    return [_figure(records), _table(records)]


SECTION = Section(
    "limits",
    "What limits each model?",
    "With int8 and nothing skipped, a sequence takes at least the time of its input products, at the rate at which "
    "this core multiplies int8, plus the time to read its recurrent matrices from the cache, one timestep after the "
    "other. A streaming step takes at least the time to read all weights. Probes in the same rounds measure both "
    "rates. The table compares the time of this project with that limit, and says how many times as fast as torch the "
    f"limit itself would be. The goals against torch are {_GOALS}: where the last column lies below, int8 cannot reach "
    "them here without skipping. The rest of the time goes into calls (one of a single timestep is in the table), "
    "gates, the conversion of activations, and the wait of each timestep for the one before.",
    ("limits",),
    _draw,
)


def _figure(records: tuple[Record, ...]) -> Figure:
    panels = []
    for use in USES:
        shares = [(r["group"], r["share"]) for r in records if r["case"] == use and words.usable(r["share"])]
        if shares:
            marks = [(name, plots.Mark(name, s * 100, 0, s * 100, f"{s:.0%}")) for name, s in shares]
            alt = f"{USES[use]}: limit as a share of the time: " + "; ".join(f"{n} {m.words}" for n, m in marks)
            title = f"{USES[use].capitalize()}, limit of the time"
            panels.append(Panel(alt, partial(plots.dots, marks, title=title, unit="%", log=False, line=100)))
    return Figure(
        tuple(panels),
        "At 100 % int8 could not be faster without skipping. Far to the left, a call and gates take most of the time: "
        "those models are small.",
        records,
        layout="two",
    )


def _table(records: tuple[Record, ...]) -> Table:
    header = ["model", "mode", "torch fp32", "int8, nothing skipped", "times as fast", "a call of one timestep",
              "limit", "limit, of the time", "torch / limit"]  # fmt: skip
    rows = [
        [
            r["group"],
            USES.get(r["case"], r["case"]),
            words.seconds(r["torch"]["median"]),
            words.seconds(r["ours"]["median"]),
            words.times(r["torch"]["median"] / r["ours"]["median"]),
            words.seconds(r["call"]["median"]) if "call" in r else "",
            words.seconds(r["limit"]),
            words.percent(r["share"]),
            words.times(r["at the limit"]),
        ]
        for r in records
    ]
    caption = "Batch 1, one thread, real inputs; activations of a byte."
    return table(header, rows, caption=caption, records=records)
