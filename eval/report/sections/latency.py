"""Plain speed with random weights and nothing skipped: the same arithmetic, done by everyone."""

from eval.report import plots

from .. import page, words
from ..records import Record, Results

TITLE = "Plain speed, nothing skipped"
MODES = {"whole": "100 steps in one call", "stream": "one step per call", "tiny": "one step of a tiny layer"}


def build(results: Results) -> page.Section:
    records = results.of("latency", *MODES)
    body = [
        page.paragraph(
            "What remains when no input helps: random weights, batch 1, every column computed. Int8 here is only "
            "speed; what it does to a model's quality is in the section on quality against time."
        )
    ]
    if not records:
        return page.Section("latency", TITLE, (*body, page.missing("latency")))
    for mode, told in MODES.items():
        if some := [r for r in records if r["group"] == mode]:
            body += [f"<h3>{told.capitalize()}</h3>", _figure(some)]
    body.append(page.details("As a table", _table(records)))
    return page.Section("latency", TITLE, tuple(body))


def _figure(records: list[Record]) -> str:
    panels, lacking = [], []
    for r in records:
        usable = {
            n: t for n, t in r["seconds"].items() if all(words.usable(t.get(k)) for k in ("median", "p25", "p75"))
        }
        lacking += [f"{name} on {r['case']}" for name in r["seconds"] if name not in usable]
        marks = [
            (name, plots.Mark(name, t["median"], t["p25"], t["p75"], words.seconds(t["median"])))
            for name, t in sorted(usable.items(), key=lambda item: item[1]["median"])
        ]
        alt = f"Time on stack {r['case']}: " + "; ".join(f"{name} {m.words}" for name, m in marks)
        panels.append(
            (alt, plots.dots(marks, title=f"Stack {r['case'].strip('()')}", unit="time of a call", clock=True))
        )
    return page.figure(
        panels,
        caption="Median time per call with quartiles; further left is faster. Titles: inputs, hidden units, layers.",
        records=records,
        na=", ".join(lacking),
    )


def _table(records: tuple[Record, ...]) -> str:
    rows = [
        [
            f"{r['case']}, {MODES[r['group']]}",
            f"*{name}" if name.startswith("adaptive") else name,
            words.seconds(t["median"]),
            f"{words.seconds(t.get('p25'))} to {words.seconds(t.get('p75'))}",
            words.times(words.speed(r["seconds"].get("torch"), t)),
        ]
        for r in records
        for name, t in sorted(r["seconds"].items(), key=lambda item: item[1]["median"])
    ]
    return page.table(["stack (I, H, L)", "contender", "median", "quartiles", "against torch"], rows,
                      caption="Random weights, batch 1.")  # fmt: skip
