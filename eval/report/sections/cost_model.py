"""Whether predicted times order candidates as measured ones do."""

from functools import partial

from .. import plots, words
from ..blocks import Block, Figure, Panel, Section, Table, table
from ..records import Record, Results


def _draw(results: Results) -> list[Block]:
    records = results.of("cost_model")
    return [_figure(records), _table(records)]


SECTION = Section(
    "cost-model",
    "Does the cost model order candidates as the clock does?",
    "A calibration by time orders its search by predicted times, and times its finalists. Here candidates of a search "
    "were timed, from the cheapest to the dearest by prediction: Spearman's rank correlation of prediction and clock.",
    ("cost_model",),
    _draw,
)


def _figure(records: tuple[Record, ...]) -> Figure:
    marks = [(r["case"], plots.Mark("", r["rank"], r["rank"], r["rank"], words.number(r["rank"], 3))) for r in records]
    alt = "Rank correlation: " + ", ".join(f"{name} {mark.words}" for name, mark in marks)
    draw = partial(plots.dots, marks, title="Rank correlation", unit="Spearman", log=False, line=records[0]["least"])
    return Figure((Panel(alt, draw),), "The dashed line is what was asked for.", records)


def _table(records: tuple[Record, ...]) -> Table:
    header = ["model", "candidates", "rank correlation", "fastest candidate, time left", "slowest candidate, time left"]
    rows = [[r["case"], len(r["candidates"]), words.number(r["rank"], 3), *_extremes(r)] for r in records]
    return table(header, rows, caption="Time left: of the same int8 model with nothing skipped.", records=records)


def _extremes(r: Record) -> list[str]:
    times = [one["time"]["median"] for one in r["candidates"]]
    return [words.percent(min(times)), words.percent(max(times))]
