"""How much memory a runtime takes, and how long until its first answer."""

from collections.abc import Callable, Sequence
from functools import partial

from .. import plots, words
from ..blocks import Block, Figure, Panel, Section, Table, as_table, by_shape, contender, table, unavailable
from ..records import Record, Results


def _draw(results: Results) -> list[Block]:
    records = results.of("footprint")
    return [_figure(records), as_table(_table(records))]


SECTION = Section(
    "footprint",
    "Memory and start-up",
    "Every runtime in a fresh process of its own: start Python, import, load the model in the form it is deployed in, "
    "run one sequence. A function in the cloud pays this at every cold start.",
    ("footprint",),
    _draw,
)


def _figure(records: Sequence[Record]) -> Figure:
    panels = []
    for shape, some in by_shape(records).items():
        measures: list[tuple[str, str, bool, Callable[[Record], plots.Mark]]] = [
            ("to the first answer", "time of the process", True, _process),
            ("peak memory", "MB resident", False, _memory),
            ("weights", "MB", False, _weights),
        ]
        for name, unit, clock, measure in measures:
            marks = [(r["contender"], measure(r)) for r in some if words.usable(measure(r).value)]
            marks.sort(key=lambda item: item[1].value)
            if marks:
                alt = f"Stack {shape}, {name}: " + "; ".join(f"{who} {m.words}" for who, m in marks)
                title = f"Stack {shape}: {name}"
                panels.append(Panel(alt, partial(plots.dots, marks, title=title, unit=unit, log=clock, clock=clock)))
    return Figure(
        tuple(panels),
        "Further left is better in all panels. Left: from starting Python to the end of the process, two sequences "
        "included; lines are quartiles. Middle: the largest resident memory. Right: the weights as held by this "
        "project, and the file that the others load.",
        tuple(records),
        left_out="; ".join(unavailable(records)),
    )


def _process(r: Record) -> plots.Mark:
    t = r["seconds"]["process"]
    return plots.Mark(r["contender"], t["median"], t["p25"], t["p75"], words.seconds(t["median"]))


def _memory(r: Record) -> plots.Mark:
    peak = r["memory"]["peak"] / 1e6
    return plots.Mark(r["contender"], peak, 0, peak, f"{peak:.0f} MB")


def _weights(r: Record) -> plots.Mark:
    held = r["weights"] / 1e6
    return plots.Mark(r["contender"], held, 0, held, f"{held:.3g} MB")


def _table(records: Sequence[Record]) -> Table:
    stages = list(dict.fromkeys(stage for r in records for stage in r["seconds"]))
    header = ["stack (I, H, L)", "contender", *stages, "against torch", "weights", "peak memory", "added by the model"]
    header += ["installed"]
    rows = [
        [
            shape,
            contender(r),
            *(words.seconds(r["seconds"].get(stage, {}).get("median")) for stage in stages),
            words.times(words.quoted(r["speed"].get("torch"))),
            words.size(r["weights"]),
            words.size(r["memory"]["peak"]),
            words.size(r["memory"]["added"]),
            words.size(r.get("installed")),
        ]
        for shape, some in by_shape(records).items()
        for r in some
    ]
    caption = (
        "Medians over fresh processes. first, second: a sequence of 100 steps; process: everything, from the start "
        "of Python to its end; added: by loading and running, beyond importing; "
        "installed: what pip writes to disk, with all that is required."
    )
    return table(header, rows, caption=caption, records=records)
