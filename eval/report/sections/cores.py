"""What a second core gives: rows, directions and layers at once, with the bits of one thread."""

from .. import words
from ..blocks import Block, Section, table
from ..records import Results


def _draw(results: Results) -> list[Block]:
    records = results.of("cores")
    header = ["stack and input", "weights", "one thread", "several", "times as fast", "goal", "chosen"]
    rows = [
        [
            r["case"].rsplit(", ", 2)[0],
            r["precision"],
            words.seconds(r["seconds"]["one"]["median"]),
            words.seconds(r["seconds"]["many"]["median"]),
            words.times(words.quoted(r["speed"])),
            "" if r["goal"] is None else f"{r['goal']:.1f}×",
            f"{r['chosen']} of {r['threads']} threads",
        ]
        for r in records
    ]
    caption = "Goals are for two cores. Chosen: what the first calls settled on; one thread where several do not pay."
    return [table(header, rows, caption=caption, records=records)]


SECTION = Section(
    "cores",
    "What do more cores give?",
    "Whole batches with random weights on the native core, with one thread and with several allowed, in turn. Every "
    "result has the same bits as on one thread.",
    ("cores",),
    _draw,
)
