"""Numbers as C source."""

from __future__ import annotations

import math

import numpy as np

TYPES = {"float32": "float", "uint16": "uint16_t", "int8": "int8_t", "int64": "uint16_t", "int32": "int32_t"}
LINE = 120
FLT_MAX, DBL_MAX = "3.402823466e+38f", "1.7976931348623157e+308"


def array(name: str, values: np.ndarray) -> str:
    """A constant array; nothing becomes a single zero, because C has no empty arrays."""
    kind = TYPES[values.dtype.name]
    flat = values.ravel()
    texts = [_float(v) for v in flat.tolist()] if kind == "float" else [str(v) for v in flat.tolist()]
    texts = texts or ["0"]
    return f"ALSTM_FLASH ALSTM_ALIGNED static const {kind} {name}[{len(texts)}] = {{\n{_lines(texts)}}};\n"


def double(value: float) -> str:
    """A double; infinity becomes the largest finite one."""
    return _signed(DBL_MAX, value) if math.isinf(value) else repr(float(value))


def _float(value: float) -> str:
    """The shortest text that gives the same float; infinity becomes the largest finite one."""
    if math.isinf(value):
        return _signed(FLT_MAX, value)
    text = np.format_float_scientific(np.float32(value), unique=True, trim="0", exp_digits=1)
    return f"{text}f"


def _signed(text: str, like: float) -> str:
    return text if like > 0 else f"-{text}"


def _lines(texts: list[str]) -> str:
    """Comma-separated, in lines that fit."""
    lines, line = [], " "
    for text in texts:
        if len(line) + len(text) + 2 > LINE:
            lines.append(line)
            line = " "
        line += f" {text},"
    return "".join(f"{one}\n" for one in [*lines, line])
