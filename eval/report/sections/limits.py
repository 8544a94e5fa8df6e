"""What keeps every real model from being faster still."""

from eval.frontier.verdict import TARGETS
from eval.report import plots

from .. import page, words
from ..races import USES
from ..records import Record, Results

TITLE = "What limits each model?"


def build(results: Results) -> page.Section:
    records = results.of("limits")
    goals = " and ".join(f"{goal['torch']:g} times in {USES[use]}" for use, goal in TARGETS.items())
    body = [
        page.paragraph(
            "In int8 with nothing skipped, a sequence cannot take less time than its input sides take at the rate at "
            "which this core multiplies int8, and its recurrent sides, one timestep after the other, take to be read "
            "from the cache; a streaming step not less than reading all weights. Probes in the same rounds measure "
            "both. The table holds the time of this project against that limit, and says how many times as fast as "
            f"torch the limit itself would be. The goals against torch are {goals}: where the last column lies below, "
            "int8 does not reach them here without skipping. The rest of the time goes into calls (one of a single "
            "timestep is in the table), gates, the conversion of activations, and the wait of each timestep for the "
            "one before."
        )
    ]
    body += [_figure(records), _table(records)] if records else [page.missing("limits")]
    return page.Section("limits", TITLE, tuple(body))


def _figure(records: tuple[Record, ...]) -> str:
    drawn = []
    for use in USES:
        shares = [(r["group"], r["share"]) for r in records if r["case"] == use and words.usable(r["share"])]
        if shares:
            marks = [(name, plots.Mark(name, s * 100, 0, s * 100, f"{s:.0%}")) for name, s in shares]
            alt = f"{USES[use]}: limit as a share of the time: " + "; ".join(f"{n} {m.words}" for n, m in marks)
            title = f"{USES[use].capitalize()}, limit of the time"
            drawn.append((alt, plots.dots(marks, title=title, unit="%", log=False, line=100)))
    return page.figure(
        drawn,
        caption="At 100 % int8 could not be faster without skipping. Far to the left, a call and gates take most of "
        "the time: those models are small.",
        records=records,
        layout="two",
    )


def _table(records: tuple[Record, ...]) -> str:
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
    return page.table(header, rows, caption="Batch 1, one thread, real inputs; activations of a byte.")
