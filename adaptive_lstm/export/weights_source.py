"""The model as constant data: the text of ``NAME_weights.c``."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from ..policies.affine import Affine
from ..policies.native_form import NativeDepthExit, NativeTimeExit
from .literals import array, double
from .operand import Operand
from .program import NONE, Layer, Program

MEASURES = {"margin": "ALSTM_MARGIN", "max": "ALSTM_LARGEST", "entropy": "ALSTM_ENTROPY"}
ACTIONS = {"hold_gates": "ALSTM_HOLD_GATES", "hold_state": "ALSTM_HOLD_STATE"}


def weights_source(program: Program) -> str:
    """The definitions of all arrays, then of ``alstm_the_model``."""
    out = ['/* Weights and settings; read by alstm.c. */\n#include "alstm_model.h"\n\n']
    layers = [_layer(f"l{k}", layer, program, k, out) for k, layer in enumerate(program.layers)]
    out.append(f"ALSTM_FLASH static const alstm_layer layers[ALSTM_LAYERS] = {{\n{''.join(layers)}}};\n\n")
    time = depth = "NULL"
    if program.time_exit is not None:
        _time_exit(program.time_exit, program, out)
        time = "&time_exit"
    if program.depth_exit is not None:
        _depth_exit(program.depth_exit, out)
        depth = "&depth_exit"
    described = "".join(out)
    return f"{described}const alstm_model alstm_the_model = {{0x{_stamp(described):08x}u, layers, {time}, {depth}}};\n"


def _stamp(described: str) -> int:
    """32 bits by which a state knows its model; never zero, as memory often is."""
    return int.from_bytes(hashlib.sha256(described.encode()).digest()[:4], "little") | 1


def _layer(name: str, layer: Layer, program: Program, k: int, out: list[str]) -> str:
    """Add the arrays of a layer to ``out``; returns its initializer."""
    places = layer.places
    operands = [
        _operand(f"{name}_{letter}", one, places.sent.get(letter, NONE), places.sums.get(letter, NONE), out)
        for letter, one in layer.operands.items()
    ]
    bias = _array(f"{name}_bias", layer.bias, out)
    pruned = layer.constant is not None
    live = _array(f"{name}_live", layer.live, out) if pruned else "NULL"
    constant = "NULL"
    if layer.constant is not None:
        values = layer.constant.copy()
        values[layer.live] = 0
        constant = _array(f"{name}_constant", values, out)
    hold = "NULL"
    if layer.hold is not None:
        hold = f"&{name}_hold"
        x, h = layer.hold.x_share, layer.hold.h
        out.append(
            f"ALSTM_FLASH static const alstm_hold {name}_hold = {{{double(x or 0)}, {double(h or 0)}, "
            f"{int(x is not None)}, {int(h is not None)}, {ACTIONS[layer.hold.action]}, {layer.hold.cap}, "
            f"{places.x_used}, {places.h_used}}};\n"
        )
    gates = "ALSTM_NONE" if places.gates == NONE else str(places.gates)
    sizes = f"{program.shape.input_width(k)}, {program.shape.output_size}, {len(layer.live)}"
    return (
        f"    {{{operands[0]},\n     {operands[1]},\n     {bias}, {live}, {constant}, {hold}, {places.h}, {places.c}, "
        f"{gates}, {sizes}}},\n"
    )


def _operand(name: str, one: Operand, sent: int, sums: int, out: list[str]) -> str:
    def optional(kind: str, values: np.ndarray | None) -> str:
        return "NULL" if values is None else _array(f"{name}_{kind}", values, out)

    fields = [
        _array(f"{name}_weights", one.weights, out),
        *(optional(kind, getattr(one, kind)) for kind in ("scale", "factor", "step", "thresholds")),
        optional("kept", None if one.all else one.kept),
        *("ALSTM_NONE" if place == NONE else str(place) for place in (sent, sums)),
        str(one.columns),
        str(one.pitch),
        str(one.levels),
        f"ALSTM_{one.format}",
        str(int(one.own_range)),
    ]
    return f"{{{', '.join(fields)}}}"


def _time_exit(exit_: NativeTimeExit, program: Program, out: list[str]) -> None:
    starts = _array("time_starts", np.array(exit_.starts, np.int32), out)
    map_starts = _array("time_map_starts", np.array(exit_.map_starts, np.int32), out)
    thresholds = _array("time_thresholds", np.array(exit_.thresholds, np.float32), out)
    translation = _maps("time_translation", exit_.maps, out)
    question = _maps("time_logits", exit_.logits, out) if exit_.head else translation
    head = (1, int(exit_.head.sigmoid), MEASURES[exit_.head.measure]) if exit_.head else (0, 0, 0)
    states = program.shape.num_layers if exit_.maps else 1
    counts = f"{exit_.window}, {len(exit_.starts)}, {len(exit_.map_starts)}, {states}"
    out.append(
        f"ALSTM_FLASH static const alstm_time_exit time_exit = {{{exit_.check_every}, {exit_.patience}, {counts}, "
        f"{', '.join(map(str, head))}, {starts}, {map_starts}, {thresholds}, {question}, {translation}, "
        f"{program.translated}, {program.past}}};\n"
    )


def _depth_exit(exit_: NativeDepthExit, out: list[str]) -> None:
    thresholds = _array("depth_thresholds", np.array(exit_.thresholds, np.float32), out)
    steps = _maps("depth_translations", exit_.steps, out)
    questions = _maps("depth_logits", exit_.logits, out) if exit_.head else steps
    tables = {
        "question": [f"&{questions}[{k}]" for k in range(len(exit_.checks))],
        "translation": [f"&{steps}[{k}]" for k in range(len(exit_.checks))],
        "below": ["NULL" if exit_.head or not k else f"&{steps}[{k - 1}]" for k in range(len(exit_.checks))],
    }
    for name, entries in tables.items():
        kept = [entry if check else "NULL" for entry, check in zip(entries, exit_.checks, strict=True)]
        out.append(f"ALSTM_FLASH static const alstm_map *const depth_{name}[] = {{{', '.join(kept)}}};\n")
    head = (1, int(exit_.head.sigmoid), MEASURES[exit_.head.measure]) if exit_.head else (0, 0, 0)
    out.append(
        f"ALSTM_FLASH static const alstm_depth_exit depth_exit = {{{', '.join(map(str, head))}, {thresholds}, "
        f"{', '.join(f'depth_{name}' for name in tables)}}};\n"
    )


def _maps(name: str, maps: Sequence[Affine], out: list[str]) -> str:
    """An array of affine maps; "NULL" for none."""
    if not maps:
        return "NULL"
    entries = []
    for k, one in enumerate(maps):
        weight, bias = _array(f"{name}_{k}_weights", one.weight, out), _array(f"{name}_{k}_bias", one.bias, out)
        entries.append(f"{{{weight}, {bias}, {one.weight.shape[0]}, {one.weight.shape[1]}}}")
    out.append(f"ALSTM_FLASH static const alstm_map {name}[{len(maps)}] = {{{', '.join(entries)}}};\n")
    return name


def _array(name: str, values: np.ndarray, out: list[str]) -> str:
    out.append(array(name, values))
    return name
