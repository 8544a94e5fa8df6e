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
    said = f"The bar for the LSTM alone, {BAR:g} times ONNX Runtime, is reached for {', '.join(reached) or 'no case'}."
    return [Paragraph(said), _figure(records), _against(records), *(_streams(r) for r in records)]


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
    caption = "The fastest of ours against the fastest of ONNX Runtime, call by call."
    return table(["in a call", "of", "ours", "ONNX Runtime", "times as fast"], rows, caption=caption, records=records)


def _streams(record: Record) -> Table:
    rows = [
        [name, words.seconds(timing["median"]), f"{record['streams'][name]:,.0f}"]
        for name, timing in record["seconds"].items()
    ]
    caption = f"{PARTS[record['group']].capitalize()}, {record['case']} advanced by a call."
    return table(["contender", "call", "streams per core"], rows, caption=caption, records=[record])


SECTION = Section(
    "silero",
    "How many microphones does one core serve with Silero VAD?",
    "The detector as its package ships it, frames of 32 ms of real speech, states carried from call to call. The LSTM "
    "alone is its node and weights as a graph of their own against our streams; the whole model is a file of the "
    "package against the same file behind al.onnx.Session. All contenders give the same probabilities.",
    ("silero",),
    _draw,
)
