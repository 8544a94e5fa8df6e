"""What a model needs of the engine: sizes of its arrays, and which of its parts are compiled."""

from __future__ import annotations

from collections.abc import Iterable

from .operand import Operand
from .program import Program

PUBLIC = ("INPUTS", "OUTPUTS", "LAYERS", "WEIGHT_BYTES", "FLOATS", "INTS", "SHORTS")


def sizes(program: Program) -> dict[str, int]:
    """Name, without the prefix, and value of every macro; the public ones first."""
    shape, pools = program.shape, program.pools
    operands = [one for layer in program.layers for one in layer.operands.values()]
    x, h = ([layer.operands[name] for layer in program.layers] for name in "xh")
    top = program.layers[-1].h
    beyond = [top] if program.depth_exit and top.integers and top.thresholds is not None else []
    time, depth = program.time_exit, program.depth_exit
    public = (
        shape.input_size, shape.output_size, shape.num_layers, program.weight_bytes,
        *(max(n, 1) for n in (pools.floats, pools.ints, pools.shorts)),
    )  # fmt: skip
    return dict(zip(PUBLIC, public, strict=True)) | {
        **{f"HAS_{kind}": _any(one.format == kind for one in operands) for kind in ("F32", "BF16", "S8_FLOAT", "S8")},
        "QUADS": int(program.quads),
        "HAS_S8_DELTA": _any(one.integers and one.thresholds is not None for one in operands),
        "HAS_FLOAT_DELTA": _any(not one.integers and one.thresholds is not None for one in operands),
        "HOLDS": int(program.holds),
        "HOLDS_GATES": int(program.holds_gates),
        "TIME_EXITS": int(time is not None),
        "DEPTH_EXITS": int(depth is not None),
        "HEADS": _any(one is not None and one.head is not None for one in (time, depth)),
        "ROOM_X_FLOATS": _most(one.columns for one in _whole(x, integers=False) if not one.all),
        "ROOM_H_FLOATS": _most(one.columns for one in _whole(h, integers=False)),
        "ROOM_X_SHORTS": _most(one.pitch for one in _whole(x, integers=True)),
        "ROOM_H_SHORTS": _most(one.pitch for one in [*_whole(h, integers=True), *beyond]),
        "LIST": _most(one.columns for one in operands if not one.integers and one.thresholds is not None),
        "MAPPED": _most(len(bias) for _, bias in program.maps),
    }


def _whole(operands: Iterable[Operand], *, integers: bool) -> list[Operand]:
    """Those whose every column is sent, as integers or as floats."""
    return [one for one in operands if one.thresholds is None and one.integers == integers]


def _any(found: Iterable[bool]) -> int:
    return int(any(found))


def _most(counts: Iterable[int]) -> int:
    return max([1, *counts])
