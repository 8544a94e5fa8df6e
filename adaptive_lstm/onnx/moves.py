"""Nodes that move values and change none, between an LSTM and what reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from .node import LstmNode
from .scope import MOVES, Array, Scope, evaluate, reads

if TYPE_CHECKING:
    from onnx import NodeProto

Form = Literal["node", "time", "batch"]
"""How an output lies: as the node makes it; [T, B, D * H], as the next layer reads it; or [B, T, D * H]."""

Readers = Mapping[str, list["NodeProto | None"]]

_PROBES = ((3, 5), (4, 2))  # T and B with which moves are followed where the graph takes any


def readers_of(nodes: Sequence[LstmNode], scope: Scope) -> Readers:
    """Who reads each value of a graph, of the LSTMs and of what its outputs depend on; None: it is an output.

    Exporters size zero states by what lies between two layers: nobody asks for that size, since zeros are recognised.
    """
    found: dict[str, list[NodeProto | None]] = {output.name: [None] for output in scope.graph.output}
    for node in reversed(scope.graph.node):
        lstm = next((one for one in nodes if one.proto is node), None)
        if lstm is not None or any(name in found for name in node.output):
            for name in reads(node) if lstm is None else lstm.reads:
                found.setdefault(name, []).append(node)
    return found


def way(source: str, scope: Scope, readers: Readers) -> list[NodeProto]:
    """The moves that a value goes through, one after the other, as long as nothing else reads it."""
    found: list[NodeProto] = []
    while source and len(some := readers.get(source, [])) == 1:
        node = some[0]
        if node is None or node.op_type not in MOVES or node.input[0] != source:
            break
        if any(scope.constant(name) is None for name in node.input[1:] if name):
            break
        found.append(node)
        source = node.output[0]
    return found


def form_after(node: LstmNode, moves: Sequence[NodeProto], scope: Scope) -> Form | None:
    """How the output Y of a node lies after some moves, for all T and B that the graph allows; None: otherwise."""
    found = {_form(node, moves, scope, t, b) for t, b in _sizes(node, scope)} if moves else {None}
    return found.pop() if len(found) == 1 else None


def _sizes(node: LstmNode, scope: Scope) -> tuple[tuple[int, int], ...]:
    """T and B to try: those that the graph fixes for Y, or two others."""
    y = scope.fixed_shapes.get(node.y, ())
    if len(y) != 4:
        return _PROBES
    return ((y[1], y[0]) if node.layout == 1 else (y[0], y[2]),)


def _form(node: LstmNode, moves: Sequence[NodeProto], scope: Scope, t: int, b: int) -> Form | None:
    d, h = node.directions, node.hidden_size
    numbers: Array = np.arange(t * b * d * h, dtype=np.float32).reshape(t, b, d, h)
    y = numbers.transpose(1, 0, 2, 3) if node.layout == 1 else numbers.transpose(0, 2, 1, 3)
    given = {name: scope.constant(name) for move in moves for name in move.input[1:] if name}
    try:
        got = evaluate(moves, {node.y: np.ascontiguousarray(y), **given}, moves[-1].output[0], scope.opsets)
    except (ValueError, IndexError):  # a reshape or squeeze that such sizes do not allow
        return None
    rows = numbers.reshape(t, b, d * h)
    return "time" if np.array_equal(got, rows) else "batch" if np.array_equal(got, rows.swapaxes(0, 1)) else None
