"""What exported C costs on a microcontroller."""

from .. import words
from ..blocks import Block, Section, table
from ..records import Results


def _draw(results: Results) -> list[Block]:
    records = results.of("embedded")
    header = ["LSTM", "processor", "weights", "columns computed", "instructions a step", "of those of all columns",
              "of CMSIS-NN", "code", "constants", "state", "stack", "as the runtime"]  # fmt: skip
    whole = {(r["group"], r["processor"], r["precision"]): r["instructions"] for r in records if r["wanted"] == 1}
    rows = [
        [
            r["group"],
            r["processor"],
            r["precision"],
            words.percent(r["activity"]),
            f"{r['instructions']:,.0f}",
            words.percent(r["instructions"] / whole[r["group"], r["processor"], r["precision"]]),
            words.percent(r["instructions"] / r["cmsis_nn"]) if r["cmsis_nn"] else "",
            *(f"{r[key]:,}" for key in ("code", "weights", "state", "stack")),
            "bit for bit" if r["exact"] else "differs",
        ]
        for r in records
    ]
    caption = (
        "Layers x units; random weights. Bytes: of the engine and of the constants in flash, of one stream and of the "
        "deepest point of a step in RAM. All columns: without a policy. CMSIS-NN: its int8 LSTM with a 16-bit cell, "
        "one layer a call, which computes all columns."
    )
    return [table(header, rows, caption=caption, records=records)]


SECTION = Section(
    "embedded",
    "Exported C on emulated microcontrollers",
    "`al.export_c` for boards that QEMU emulates, which counts instructions and not cycles: no board was at hand. "
    "Inputs move little by little; `Delta` leaves out columns. Outputs are compared with those of the Python runtime's "
    "portable kernels.",
    ("embedded",),
    _draw,
)
