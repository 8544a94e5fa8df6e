"""A voice detector that many use, beside its own files in ONNX Runtime."""

from functools import partial

from eval.silero import BAR

from .. import plots, words
from ..blocks import Block, Figure, Panel, Paragraph, Section, Table, table
from ..records import Record, Results

PARTS = {"lstm": "the LSTM alone", "whole": "the whole model"}


def _draw(results: Results) -> list[Block]:
    records = results.of("silero")
    alone = [r for r in records if r["group"] == "lstm"]
    reached = [r["case"] for r in alone if (words.quoted(r["speed"]) or 0.0) >= BAR]
    where = ", ".join(reached) or "no number of streams"
    said = f"The bar for the LSTM alone, {BAR:g} times ONNX Runtime, is reached with {where} in a call."
    whole = [r for r in records if r["group"] == "whole"]
    return [Paragraph(said), _figure(records), _against(records), *(_streams(some) for some in (alone, whole) if some)]


def _figure(records: tuple[Record, ...]) -> Figure:
    marks = []
    for r in records:
        if words.usable(median := r["speed"]["median"]):
            mark = plots.Mark(r["ours"], median, r["speed"]["p25"], r["speed"]["p75"], f"{median:.2f}")
            marks.append((f"{r['case']}, {PARTS[r['group']]}", mark))
    alt = "Times as many streams as ONNX Runtime: " + "; ".join(f"{name} {mark.words}" for name, mark in marks)
    draw = partial(plots.dots, marks, title="Streams per core, ours over ONNX Runtime", unit="times", line=1, width=5)
    left = [f"{r['case']}, {PARTS[r['group']]}" for r in records if not words.usable(r["speed"]["median"])]
    return Figure((Panel(alt, draw),), "Right of the dashed line ours serves more.", records, left_out=", ".join(left))


def _against(records: tuple[Record, ...]) -> Table:
    rows = [
        [r["case"], PARTS[r["group"]], r["ours"], r["peer"], words.times(words.quoted(r["speed"]))] for r in records
    ]
    caption = "The fastest of ours against the fastest file of the package in ONNX Runtime, call by call."
    return table(["in a call", "of", "ours", "theirs", "times as fast"], rows, caption=caption, records=records)


def _streams(records: list[Record]) -> Table:
    """Of one group."""
    names = dict.fromkeys(name for r in records for name in r["seconds"])
    rows = [[name, *(_cell(r, name) for r in records)] for name in names]
    caption = f"Streams per core, and the time of a call that advances so many, of {PARTS[records[0]['group']]}."
    return table(["contender", *(r["case"] for r in records)], rows, caption=caption, records=records)


def _cell(record: Record, name: str) -> str:
    if name not in record["seconds"]:
        return ""
    return f"{record['streams'][name]:,.0f} ({words.seconds(record['seconds'][name]['median'])})"


SECTION = Section(
    "silero",
    "How many microphones does one core serve with Silero VAD?",
    "Frames of 32 ms of real speech, states carried from call to call. The LSTM alone: its node and weights as a graph "
    "of their own in ONNX Runtime, also quantized there, against our streams. The whole model: files of the package "
    "against one of them behind al.onnx.Session. The LSTM is a small part of it; the convolutions before it run in "
    "ONNX Runtime either way, and a session starts it twice a call.",
    ("silero",),
    _draw,
)
