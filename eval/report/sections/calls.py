"""What a call costs beyond its arithmetic."""

from eval.calls import BAR, CELL_BAR, PARTS

from .. import words
from ..blocks import Block, Paragraph, Section, Table, table
from ..records import Record, Results

NAMES = {"call": "call", "native": "native core alone", "step": "stream step", "torch": "nn.LSTM"}


def _draw(results: Results) -> list[Block]:
    calls, parts = results.of("calls", "call"), results.of("calls", "parts")
    worst = max(calls, key=lambda r: float(r["added"]))
    above = sum(r["added"] > BAR for r in calls)
    text = (
        f"{above} of {len(calls)} calls add more than {words.seconds(BAR)}. The most: {worst['case']}, "
        f"{words.seconds(worst['added'])}."
    )
    cells = results.of("calls", "cell")
    return [Paragraph(text), _calls(calls), *([_cells(cells)] if cells else []), *([_parts(parts)] if parts else [])]


SECTION = Section(
    "calls",
    "What does a call cost?",
    "One sequence, one thread, random weights. The native core alone runs on memory that is there, without tensors and "
    "without checks; what a call adds is the difference of the two medians. "
    f"The bar is {words.seconds(BAR)}.",
    ("calls",),
    _draw,
)


def _calls(records: tuple[Record, ...]) -> Table:
    rows = [[r["case"], *(_median(r, name) for name in NAMES), words.seconds(r["added"])] for r in records]
    header = ["LSTM (I, H, L), precision, timesteps", *NAMES.values(), "added"]
    return table(header, rows, caption="Median times; added: call without the native core alone.", records=records)


def _cells(records: tuple[Record, ...]) -> Table:
    names = {**NAMES, "torch": "nn.LSTMCell"}
    rows = [[r["case"], *(_median(r, name) for name in names), words.seconds(r["added"])] for r in records]
    above = sum(r["added"] > CELL_BAR for r in records)
    caption = (
        "A step of an LSTM cell with given states, one row. Median times; added: what it takes longer than the step of "
        "a stream. "
        f"{above} of {len(records)} add more than {words.seconds(CELL_BAR)}."
    )
    return table(["cell (I, H), precision", *names.values(), "added"], rows, caption=caption, records=records)


def _parts(records: tuple[Record, ...]) -> Table:
    rows = [[r["case"], *(words.seconds(r["added"][name]) for name in PARTS)] for r in records]
    caption = (
        "What is added to one timestep of the native core by nn.Module calling a forward that does nothing, and by "
        "torch.empty_like making three results."
    )
    return table(["LSTM (I, H, L), precision", *PARTS], rows, caption=caption, records=records)


def _median(record: Record, name: str) -> str:
    return words.seconds(record["seconds"][name]["median"]) if name in record["seconds"] else ""
