"""How fast many sequences of different lengths run, one by one, in sorted batches, and mapped."""

from eval.bulk import BASES

from .. import words
from ..blocks import Block, Section, by_shape, table
from ..records import Results


def _draw(results: Results) -> list[Block]:
    records = results.of("bulk")
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
    return [table(header, rows, caption=caption, records=records)]


SECTION = Section(
    "bulk",
    "How fast do many sequences run?",
    "A pass over sequences of different lengths that keeps all outputs in their order. One by one: a loop of calls. "
    "Sorted: batches of sequences of similar length, padded to the longest. Mapped: al.map_sequences.",
    ("bulk",),
    _draw,
)
