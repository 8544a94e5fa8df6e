"""What random cases found, and how differences between executors were explained."""

from collections import Counter
from collections.abc import Mapping, Sequence

from .. import words
from ..blocks import Block, Paragraph, Section, Table, table
from ..records import Record, Results

NAMES = {"lstm": "LSTMs", "files": "mutated files"}
# How the comparisons of the LSTMs came out, in the words of the record.
COMPARED = {
    "compared: close": "equal to 2e-5, every count exactly",
    "compared: step by step": "the same, followed step by step from the native run's own states",
    "compared: rounding grew": "further apart, within what the weights make of a rounding",
    "compared: ties": "equal once decisions at a threshold are turned over",
    "compared: rounding grew beyond what can be judged": "large weights make anything of a rounding: no statement",
    "compared: ties, rounding grew beyond what can be judged": "both: no statement",
    "compared: overflowed": "floats overflowed: no statement",
}
TIES = {
    "tie: send": "whether a column is sent (Delta)",
    "tie: level": "to which int8 level an activation is rounded",
    "tie: hold": "whether a layer is held",
    "tie: exit in time": "whether a row exits in time",
    "tie: exit in depth": "whether a row exits in depth",
}


def _draw(results: Results) -> list[Block]:
    records = results.of("fuzzing")
    blocks: list[Block] = [_runs(records)]
    for record in records:
        if any(name in record["covered"] for name in COMPARED):
            blocks += [_compared(record), _ties(record)]
        blocks.append(_covered(record))
    return [*blocks, Paragraph("AVX-512 and AMX have not been fuzzed where the table does not name them.")]


SECTION = Section(
    "fuzzing",
    "What do random cases find?",
    "Random LSTMs, precisions, pruned patterns, policies, inputs, states and surroundings run on the native kernels, "
    "on the readable reference, and on nn.LSTM where nothing is left out; every exception must be the package's own or "
    "the one that torch raises. Where the two executors differ, the margins of the reference's decisions tell a tie at "
    "a threshold from a fault: a difference is explained only if turning over decisions whose margin is within the "
    "bound of rounding makes everything come out the same. Files are mutated by bytes and by fields: each is read as "
    "it should be, or refused by an error of the package.",
    ("fuzzing",),
    _draw,
)


def _runs(records: Sequence[Record]) -> Table:
    rows = [
        [NAMES.get(r["group"], r["group"]), isa, f"{count:,}", f"{failed(r):,}", r["seed"]]
        for r in records
        for isa, count in r["cases"].items()
    ]
    header = ["what", "instruction set", "cases", "unexplained, in all", "seed"]
    return table(header, rows, caption="Cases of a run.", records=records)


def failed(record: Record) -> int:
    """How many cases failed."""
    return sum(record["faults"].values())


def _compared(record: Record) -> Table:
    covered = record["covered"]
    rows = [[what, f"{covered.get(name, 0):,}"] for name, what in COMPARED.items()]
    caption = "Comparisons of native runs with the reference; a case makes one or more."
    return table(["came out", "comparisons"], rows, caption=caption, records=[record])


def _ties(record: Record) -> Table:
    covered, largest = record["covered"], record["largest"]
    rows = [
        [what, f"{covered.get(name, 0):,}", words.number(largest[name], 2) if name in largest else "0"]
        for name, what in TIES.items()
    ]
    header = ["decision that went the other way", "ties", "largest margin, as a share of its bound"]
    caption = "Ties. A margin above its bound is a fault, however small its effect."
    return table(header, rows, caption=caption, records=[record])


def _covered(record: Record) -> Table:
    rows = [
        [name, ", ".join(f"{value} {count:,}" for value, count in found.most_common())]
        for name, found in dimensions(record["covered"]).items()
        if name not in ("compared", "tie")
    ]
    title = NAMES.get(record["group"], record["group"])
    return table(["of a case", "drawn how often"], rows, caption=f"What was drawn: {title}.", records=[record])


def dimensions(covered: Mapping[str, int]) -> dict[str, Counter[str]]:
    """Counts by dimension and value, from "dimension: value"."""
    found: dict[str, Counter[str]] = {}
    for name, count in covered.items():
        dimension, _, value = name.partition(": ")
        found.setdefault(dimension, Counter())[value] += count
    return found
