"""What an LSTM from an ONNX file costs beside the same in torch."""

from eval.onnx import BAR, NAMES

from .. import words
from ..blocks import Block, Paragraph, Section, table
from ..records import Results


def _draw(results: Results) -> list[Block]:
    records = results.of("onnx")
    above = sum(r["ratio"] > BAR for r in records)
    header = ["LSTM (I, H, L)", *(NAMES.values()), "session against al.adapt"]
    rows = [
        [r["case"], *(words.seconds(r["seconds"][name]["median"]) for name in NAMES), words.number(r["ratio"])]
        for r in records
    ]
    caption = "Median times of a call; the last column is a share of time, so that less than 1 is faster."
    return [
        Paragraph(f"In {above} of {len(records)} cases the session takes more than {BAR:g} times as long."),
        table(header, rows, caption=caption, records=records),
    ]


SECTION = Section(
    "onnx",
    "What does the way through an ONNX file cost?",
    "An LSTM with a linear head, written to an ONNX file by torch and read by al.onnx.Session, beside the same model "
    "given to al.adapt, and beside ONNX Runtime. Batch 1, exact, random weights. The nodes around the LSTM are run by "
    f"ONNX Runtime. The bar is {BAR:g} times as long as al.adapt.",
    ("onnx",),
    _draw,
)
