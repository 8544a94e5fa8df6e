"""How much memory a runtime takes, and how long until its first answer."""

from collections.abc import Callable, Sequence

from eval.report import plots

from .. import page, words
from ..records import Record, Results
from .streaming import by_shape, left_out

TITLE = "Memory and start-up"


def build(results: Results) -> page.Section:
    records = results.of("footprint")
    body = [
        page.paragraph(
            "Every runtime in a fresh process of its own: start Python, import, load the model in the form it is "
            "deployed in, run one sequence. A function in the cloud pays this at every cold start."
        )
    ]
    if not records:
        return page.Section("footprint", TITLE, (*body, page.missing("footprint")))
    body += [_figure(records), page.details("As a table", _table(records))]
    return page.Section("footprint", TITLE, tuple(body))


def _figure(records: Sequence[Record]) -> str:
    panels = []
    for shape, some in by_shape(records).items():
        measures: list[tuple[str, str, bool, Callable[[Record], tuple[float, float, float, str]]]] = [
            ("to the first answer", "time of the process", True, _process),
            ("peak memory", "MB resident", False, _memory),
            ("weights", "MB", False, _weights),
        ]
        for told, unit, clock, measure in measures:
            marks = [
                (r["contender"], plots.Mark(r["contender"], *measure(r))) for r in some if words.usable(measure(r)[0])
            ]
            marks.sort(key=lambda item: item[1].value)
            if marks:
                alt = f"Stack {shape}, {told}: " + "; ".join(f"{name} {m.words}" for name, m in marks)
                panels.append(
                    (alt, plots.dots(marks, title=f"Stack {shape}: {told}", unit=unit, log=clock, clock=clock))
                )
    return page.figure(
        panels,
        caption="Further left is better in all panels. Left: from starting Python to the end of the process, two "
        "sequences included; lines are quartiles. Middle: the largest resident memory. Right: the weights as held by "
        "this project, and the file that is loaded by the others.",
        records=records,
        na="; ".join(left_out(records)),
    )


def _process(r: Record) -> tuple[float, float, float, str]:
    t = r["seconds"]["process"]
    return t["median"], t["p25"], t["p75"], words.seconds(t["median"])


def _memory(r: Record) -> tuple[float, float, float, str]:
    peak = r["memory"]["peak"] / 1e6
    return peak, 0, peak, f"{peak:.0f} MB"


def _weights(r: Record) -> tuple[float, float, float, str]:
    held = r["weights"] / 1e6
    return held, 0, held, f"{held:.3g} MB"


def _table(records: Sequence[Record]) -> str:
    stages = list(dict.fromkeys(stage for r in records for stage in r["seconds"]))
    header = ["stack (I, H, L)", "contender", *stages, "against torch", "weights", "peak memory", "added by the model"]
    rows = [
        [
            shape,
            f"*{r['contender']}" if r["ours"] else r["contender"],
            *(words.seconds(r["seconds"].get(stage, {}).get("median")) for stage in stages),
            words.times(words.quoted(r["speed"].get("torch"))),
            words.size(r["weights"]),
            words.size(r["memory"]["peak"]),
            words.size(r["memory"]["added"]),
        ]
        for shape, some in by_shape(records).items()
        for r in some
    ]
    return page.table(header, rows, caption="Medians over fresh processes. first, second: a sequence of 100 steps; "
                      "process: all of it with starting Python and leaving it; added: by loading and running, beyond "
                      "importing.")  # fmt: skip
