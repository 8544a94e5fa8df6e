"""The golden sequence as a C header."""

from __future__ import annotations

import numpy as np

from .golden import Golden
from .literals import array
from .program import Program


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
    """Whether every sum is exact, or of floats without zeros, which the runtime may add block by block."""
    return all(
        one.integers or not np.any(one.weights == 0) for layer in program.layers for one in layer.operands.values()
    )
