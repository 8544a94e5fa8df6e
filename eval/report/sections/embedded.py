"""What exported C costs on a microcontroller."""

from eval.embedded.verdict import OURS, judge

from .. import words
from ..blocks import Block, Paragraph, Section, table
from ..records import Record, Results


def _draw(results: Results) -> list[Block]:
    records = results.of("embedded")
    judged = list(judge(records))
    passed = sum(one.verdict == "PASS" for one in judged)
    goals = table(
        ["LSTM", "processor", "goal in int8", "reached", "allowed", "verdict", "best rival"],
        [[one.group, one.processor, one.goal, *one.told.split(" of "), one.verdict, one.rival or ""] for one in judged],
        caption="All columns: without a policy. The best rival: the one that takes the fewest instructions in int8.",
        records=records,
    )
    told = Paragraph(f"{passed} of {len(judged)} goals are reached.")
    kinds = dict.fromkeys(r["who"] == OURS for r in records)
    return [told, goals, *(_costs(own, records) for own in kinds)]


def _costs(own: bool, records: tuple[Record, ...]) -> Block:
    some = tuple(r for r in records if (r["who"] == OURS) == own)
    whole = {(r["group"], r["processor"], r["precision"]): r["instructions"]
             for r in records if r["who"] == OURS and r["wanted"] == 1}  # fmt: skip
    header = ["LSTM", "processor", "weights", "columns computed" if own else "runtime", "instructions a step",
              "of ours of all columns", "code", "constants", "state", "stack",
              "as the runtime" if own else "largest difference from torch"]  # fmt: skip
    rows = [
        [
            r["group"],
            r["processor"],
            r["precision"],
            words.percent(r["activity"]) if own else r["who"],
            f"{r['instructions']:,.0f}",
            words.percent(r["instructions"] / whole[r["group"], r["processor"], r["precision"]]),
            *(f"{r[key]:,}" for key in ("code", "weights", "state", "stack")),
            ("bit for bit" if r["exact"] else "differs") if own else f"{r['difference']:.1g}",
        ]
        for r in some
    ]
    return table(header, rows, caption=OURS_CAPTION if own else RIVALS_CAPTION, records=some)


OURS_CAPTION = (
    "Layers x units; random weights. Bytes: of the engine and of the constants in flash, of one stream and of the "
    "deepest point of a step in RAM."
)
RIVALS_CAPTION = (
    "The same weights and inputs in other runtimes, which compute all columns. Their int8 steps take int8 inputs, ours "
    "take floats. CMSIS-NN: its int8 LSTM with a 16-bit cell, one layer a call, of -Ofast as its CMakeLists builds it. "
    "emx-onnx-cgen: C from ONNX, of -O3; int8 as `quantize_dynamic` of ONNX Runtime leaves it. tflite-micro: its "
    "interpreter with reference kernels, of -O2. Code: with what it takes from libm. Constants: with the model's file. "
    "State: all memory but the stack."
)

SECTION = Section(
    "embedded",
    "Exported C on emulated microcontrollers",
    "`al.export_c` for boards that QEMU emulates, which counts instructions and not cycles: no board was at hand. "
    "Inputs move little by little; `Delta` leaves out columns. Outputs are compared with those of the Python runtime's "
    "portable kernels. Code of -O3, as the exported CMakeLists builds it.",
    ("embedded",),
    _draw,
)
