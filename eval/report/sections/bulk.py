"""How fast many sequences of different lengths run, one by one, in sorted batches, mapped, and in a job of Ray."""

from eval.bulk import BASES
from eval.bulk_ray import GOAL

from .. import words
from ..blocks import Block, Section, Table, by_shape, table
from ..records import Record, Results


def _draw(results: Results) -> list[Block]:
    drawn = (("bulk", _ways), ("bulk_ray", _jobs))
    return [draw(results.of(name)) for name, draw in drawn if results.of(name)]


def _ways(records: tuple[Record, ...]) -> Table:
    header = ["stack (I, H, L)", "contender", "threads", "timesteps per second", *(f"against {base}" for base in BASES)]
    rows = [
        [
            shape,
            f"{'*' if r['ours'] else ''}{r['contender']}, {r['way']}",
            r["threads"],
            words.number(r["timesteps_per_second"]),
            *(words.times(words.quoted(r["speed"].get(base))) for base in BASES),
        ]
        for shape, some in by_shape(records).items()
        for r in some
    ]
    caption = (
        f"{records[0]['sequences']} sequences of {records[0]['timesteps']} timesteps together, the longest of "
        f"{records[0]['longest']}; batches of {records[0]['batch_tokens']} timesteps; random weights."
    )
    return table(header, rows, caption=caption, records=records)


def _jobs(records: tuple[Record, ...]) -> Table:
    ways = ("mapped", "scorer", "ray", "ray with start")
    header = ["stack (I, H, L)", "weights", "cores", *ways, "share", "verdict"]
    rows = [
        [
            shape,
            r["precision"],
            r["cores"],
            *(words.number(r["rates"][way]) for way in ways),
            f"{r['share']:.2f} ({min(r['shares']['ray']):.2f} to {max(r['shares']['ray']):.2f})",
            r["verdict"],
        ]
        for shape, some in by_shape(records).items()
        for r in some
    ]
    caption = (
        "Timesteps per second on all cores together. Mapped: al.map_sequences in a process per core; scorer: a Scorer "
        "called in each of them; ray: a job of Ray Data with as many actors, from its first outputs to its last, and "
        "with its start. "
        f"Share: of Ray in the rate of mapped, which is to be at least {GOAL:g}."
    )
    return table(header, rows, caption=caption, records=records)


SECTION = Section(
    "bulk",
    "How fast do many sequences run?",
    "A pass over sequences of different lengths that keeps all outputs in their order. One by one: a loop of calls. "
    "Sorted: batches of sequences of similar length, padded to the longest. Mapped: al.map_sequences.",
    ("bulk", "bulk_ray"),
    _draw,
)
