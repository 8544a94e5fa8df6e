"""The golden sequence as a C header."""

from __future__ import annotations

import numpy as np

from .golden import Golden
from .literals import array
from .operand import Operand
from .program import Program

ROW_BLOCK, LARGE = 64, 512 << 10  # rows that the runtime stores together (``kRowBlock``); bytes


def golden_source(found: Golden, program: Program) -> str:
    """The text of ``alstm_golden.h``."""
    layers = ", ".join(f"{{{', '.join(map(str, row))}}}" for row in found.layers.tolist())
    checks, exits = (", ".join(map(str, one.tolist())) for one in (found.depth_checks, found.depth_exits))
    values = "".join(
        array(f"alstm_golden_{key}", one).replace("ALSTM_FLASH ALSTM_ALIGNED ", "")
        for key, one in (("x", found.x), ("y", found.y))
    )
    return (
        "/* A sequence, and what the portable kernels of the Python runtime make of it. */\n"
        f"#define ALSTM_GOLDEN_STEPS {len(found.x)}\n"
        f"#define ALSTM_GOLDEN_EXACT {int(exact(program))} /* whether sums are added in the same order */\n"
        f"{values}"
        f"static const alstm_work alstm_golden_work = {{{len(found.x)}, 0, 0, {{{layers}}}, "
        f"{', '.join(map(str, found.exits.tolist()))}, {{{checks}}}, {{{exits}}}}};\n"
    )


def exact(program: Program) -> bool:
    """Whether every sum is exact, or of floats that the runtime adds in the same order.

    It may add floats block by block where some are zeros, and single columns of large matrices a few at a time.
    """
    operands = (one for layer in program.layers for one in layer.operands.values())
    return all(one.integers or not (_large(one) or np.any(one.weights == 0)) for one in operands)


def _large(one: Operand) -> bool:
    """Whether the runtime reads the columns of a thresholded matrix a few at a time (``kLargeMatrix``)."""
    columns, rows = one.weights.shape
    stored = -(-rows // ROW_BLOCK) * ROW_BLOCK * columns * one.weights.itemsize
    return one.thresholds is not None and stored > LARGE
