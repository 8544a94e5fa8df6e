"""What the NEON kernels could reach, on paper."""

from .. import words
from ..blocks import Block, Paragraph, Section, table
from ..records import Results

PROCESSORS = "Cortex-A55", "Cortex-A76", "Neoverse N1", "Neoverse N2"


def _draw(results: Results) -> list[Block]:
    records = results.of("arm_bounds")
    rows = [
        [
            r["case"],
            r["product"].upper(),
            f"{r['products']} of {r['instructions']}",
            *(words.percent(r["shares"][p]) if p in r["shares"] else "" for p in PROCESSORS),
        ]
        for r in records
    ]
    header = ["inner loop", "product", "products of instructions", *PROCESSORS]
    caption = (
        "Products per cycle, as a share of what a loop of independent products alone reaches in the same model; data "
        "in the first-level cache. LLVM describes the Cortex-A76 by the A57, which reads once a cycle; the Neoverse "
        "N1, which is the same core, has a model of its own."
    )
    return [
        table(header, rows, caption=caption, records=records),
        Paragraph(
            "No ARM device was at hand: these are bounds on paper, not times. With one row a register of weights is "
            "read for every product, so that reading bounds the loop. Listed columns are put together four by four, "
            "which takes two permutations for every product. The A55 hardly starts anything beside a product of 16 "
            "bytes in this model, so that every load and every step of an address costs it a place. "
            "`python -m adaptive_lstm.deploy bench --json` measures a device that you have."
        ),
    ]


SECTION = Section(
    "arm_bounds",
    "How fast could it be on ARM?",
    "A simulator of processors, llvm-mca, reads the machine code of the inner loops and counts cycles.",
    ("arm_bounds",),
    _draw,
)
