"""How often certificates are false when a calibration is repeated hundreds of times."""

from functools import partial

from .. import plots, words
from ..blocks import Block, Figure, Panel, Section, Table, as_table, table
from ..records import Record, Results

TRUTH = {"curve": "known risks, realistic", "edge": "known risks, worst case"}


def _draw(results: Results) -> list[Block]:
    records = results.of("validity")
    return [_figure(records), as_table(_table(records))]


SECTION = Section(
    "validity",
    "Are the certificates valid?",
    "A certificate at confidence 0.95 may be false in at most 5 % of all calibrations. Here calibrations were "
    "repeated, on data whose true risk is known and on resampled losses of real models, and the false ones were "
    "counted. The obvious shortcut, to trust the split that the candidate was chosen on, is shown beside.",
    ("validity",),
    _draw,
)


def _name(r: Record) -> str:
    return f"{TRUTH.get(r['group'], r['group'])}: {r['case']}"


def _figure(records: tuple[Record, ...]) -> Figure:
    panels = []
    levels = sorted({row["confidence"] for r in records for row in r["rows"]})
    for level in levels:
        rows = [(_name(r), row) for r in records for row in r["rows"] if row["confidence"] == level]
        marks = [
            (name, plots.Mark("", row["false"] * 100, 0, row["false"] * 100, words.percent(row["false"], 1)))
            for name, row in rows
        ]
        allowed = (1 - level) * 100
        alt = f"False certificates at confidence {level:g}: " + "; ".join(f"{n} {m.words}" for n, m in marks)
        options = {"unit": "% of calibrations false", "log": False, "line": allowed, "width": 4.9}
        panels.append(Panel(alt, partial(plots.dots, marks, title=f"Confidence {level:g}", **options)))
    return Figure(
        tuple(panels),
        "Every row is one kind of loss; the dot is the share of calibrations whose certificate was false. The dashed "
        "line is what the confidence allows; a finite number of repeats may lie above it by a little (the table gives "
        "the bound with binomial slack).",
        records,
        layout="two",
    )


def _table(records: tuple[Record, ...]) -> Table:
    header = ["data", "repeats", "confidence", "false", "allowed with slack", "verdict", "shortcut false", "certified",
              "saving, of the best possible"]  # fmt: skip
    rows = [
        [
            _name(r),
            r["repeats"],
            f"{row['confidence']:g}",
            words.percent(row["false"], 1),
            words.percent(row["allowed"], 1),
            row["verdict"],
            words.percent(row["untested"], 1),
            words.percent(row["certified"], 1),
            words.percent(row["saving_of_oracle"]),
        ]
        for r in records
        for row in r["rows"]
    ]
    return table(header, rows, caption="Shares are of all repeated calibrations.", records=records)
