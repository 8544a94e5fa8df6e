"""Do certificates keep their word when a calibration is repeated hundreds of times?"""

from eval.report import plots

from .. import page, words
from ..records import Record, Results

TITLE = "Are the certificates valid?"
TRUTH = {"curve": "known risks, realistic", "edge": "known risks, worst case"}


def build(results: Results) -> page.Section:
    records = results.of("validity")
    body = [
        page.paragraph(
            "A certificate at confidence 0.95 may be false in at most 5 % of all calibrations. Here calibrations were "
            "repeated, on data whose true risk is known and on resampled losses of real models, and the false ones "
            "were counted. The obvious shortcut, to trust the split that the candidate was chosen on, is shown beside."
        )
    ]
    if not records:
        return page.Section("validity", TITLE, (*body, page.missing("validity")))
    return page.Section("validity", TITLE, (*body, _figure(records), page.details("As a table", _table(records))))


def _name(r: Record) -> str:
    return f"{TRUTH.get(r['group'], r['group'])}: {r['case']}"


def _figure(records: tuple[Record, ...]) -> str:
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
        title = f"Confidence {level:g}"
        panels.append(
            (alt, plots.dots(marks, title=title, unit="% of calibrations false", log=False, line=allowed, width=4.9))
        )
    return page.figure(
        panels,
        caption="Every row is one kind of loss; the dot is the share of calibrations whose certificate was false. The "
        "dashed line is what the confidence allows; a finite number of repeats may lie above it by a little "
        "(the table gives the bound with binomial slack).",
        records=records,
        layout="two",
    )


def _table(records: tuple[Record, ...]) -> str:
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
    return page.table(header, rows, caption="Shares are of all repeated calibrations.")
