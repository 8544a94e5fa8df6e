"""How soon an audit in operation revokes a promise that is broken, and how rarely one that is kept."""

from functools import partial

from .. import plots, words
from ..blocks import Block, Figure, Panel, Section, Table, as_table, table
from ..records import Record, Results


def _draw(results: Results) -> list[Block]:
    simulated = results.of("audit", "simulated")
    real = tuple(r for r in results.of("audit") if r["group"] != "simulated")
    blocks: list[Block] = [_figure(simulated), as_table(_simulated(simulated))] if simulated else []
    return [*blocks, _real(real)] if real else blocks


SECTION = Section(
    "audit",
    "Does the promise go on holding?",
    "A certificate covers inputs like those of the calibration. In operation an audit runs the original model on a "
    "random share of the calls and collects evidence against the promise. A promise that is kept may be "
    "revoked in at most 1 - confidence of the audits, over all time; one that is broken should be revoked soon.",
    ("audit",),
    _draw,
)


def _figure(records: tuple[Record, ...]) -> Figure:
    marks = []
    for r in records:
        low, high = r["quartiles"]
        marks.append((f"limit {r['limit']:g}, audit", plots.Mark("", r["median"], low, high, f"{r['median']:.0f}")))
        best = r["optimum"]
        marks.append((f"limit {r['limit']:g}, optimum", plots.Mark("", best, best, best, f"{best:.0f}")))
    alt = "Audited calls until revocation at twice the limit: " + "; ".join(f"{name} {m.words}" for name, m in marks)
    title = "Audited calls until revocation, at twice the limit"
    return Figure(
        (Panel(alt, partial(plots.dots, marks, title=title, unit="calls", width=4.9)),),
        "Further left is better. The dot is the median of the audits, the line their quartiles. The optimum is the "
        "mean number of a test that knows both risks.",
        records,
    )


def _simulated(records: tuple[Record, ...]) -> Table:
    header = ["limit", "audited calls", "repeats", "revoked just below the limit", "allowed with slack", "verdict",
              "calls until revoked at twice the limit", "optimum"]  # fmt: skip
    rows = [
        [
            f"{r['limit']:g}",
            f"{r['audits']:,}",
            f"{r['repeats']:,}",
            words.percent(r["revoked"], 1),
            words.percent(r["allowed"], 1),
            r["verdict"],
            f"{r['median']:.0f} ({r['quartiles'][0]:.0f} to {r['quartiles'][1]:.0f})",
            f"{r['optimum']:.0f}",
        ]
        for r in records
    ]
    return table(header, rows, caption="Audits of simulated 0/1 losses.", records=records)


def _real(records: tuple[Record, ...]) -> Table:
    header = ["model", "noise added", "limit", "state", "audited calls", "mean loss", "evidence", "policy"]
    rows = [
        [
            r["group"],
            "none" if not r["noise"] else f"{r['noise']:.2g}",
            f"{r['limit']:g}",
            r["state"],
            f"{r['calls']:,}",
            f"{r['mean_loss']:.4f}",
            f"{r['evidence']:.3g}",
            r["policy"],
        ]
        for r in records
    ]
    return table(
        header, rows, caption="A certified model on fresh inputs, as they are and with noise.", records=records
    )
