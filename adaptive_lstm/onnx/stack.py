"""LSTM nodes that follow each other, joined into the stack that they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..runtime.lstm import AdaptiveLSTM
from .node import LstmNode
from .scope import MOVES, Array, Scope, evaluate, reads

if TYPE_CHECKING:
    from onnx import NodeProto

_PROBES = ((3, 5), (4, 2))  # T and B with which the way from one node to the next is followed


@dataclass(frozen=True, eq=False)
class Stack:
    """Nodes of which each reads the output of the one before, from the first layer to the last.

    ``between``: the nodes that only hand the output of one layer to the next.
    """

    nodes: tuple[LstmNode, ...]
    between: tuple[NodeProto, ...] = ()

    @property
    def name(self) -> str:
        """That of the first node."""
        return self.nodes[0].name

    def module(self) -> AdaptiveLSTM:
        """The stack as a module in eval mode; of a reverse one it is the LSTM that runs over reversed time."""
        first, biased = self.nodes[0], any(node.b is not None for node in self.nodes)
        lstm = AdaptiveLSTM(
            input_size=first.w.shape[2],
            hidden_size=first.hidden_size,
            num_layers=len(self.nodes),
            bias=biased,
            batch_first=first.layout == 1,
            bidirectional=first.directions == 2,
            dtype=torch.from_numpy(np.empty(0, first.w.dtype)).dtype,
            device="meta",  # so that nobody's random numbers are drawn
        ).to_empty(device="cpu")
        with torch.no_grad():
            for layer, node in enumerate(self.nodes):
                for d, suffix in enumerate(("", "_reverse")[: node.directions]):
                    _fill(lstm, node, d, f"l{layer}{suffix}")
        return lstm.eval()


def _fill(lstm: AdaptiveLSTM, node: LstmNode, d: int, cell: str) -> None:
    """Copy the weights of one direction of a node: gates i, o, f, c become torch's i, f, g, o."""
    halves = np.zeros(8 * node.hidden_size) if node.b is None else node.b[d]
    values = {"weight_ih": node.w[d], "weight_hh": node.r[d]}
    if lstm.bias:
        values |= dict(zip(("bias_ih", "bias_hh"), np.split(halves, 2), strict=True))
    for kind, value in values.items():
        i, o, f, c = np.split(value, 4)
        getattr(lstm, f"{kind}_{cell}").copy_(torch.from_numpy(np.concatenate([i, f, c, o])))


def join(nodes: Sequence[LstmNode], scope: Scope) -> list[Stack]:
    """The LSTM nodes of one graph as stacks: joined where only moves lie between two and nothing else reads them.

    Args:
        nodes: all of the graph, in its order.
        scope: of the graph.
    """
    readers = _readers(nodes, scope)
    before: dict[LstmNode, tuple[LstmNode, list[NodeProto]]] = {}
    for node in nodes:
        if (found := _next(node, nodes, scope, readers)) is not None:
            before[found[0]] = node, found[1]
    stacks: dict[LstmNode, Stack] = {}  # by their last layer
    for node in nodes:
        last, moves = before.get(node, (None, []))
        if last is None or _depends(node, stacks[last].nodes, scope):
            stacks[node] = Stack((node,))
        else:
            lower = stacks.pop(last)
            stacks[node] = Stack((*lower.nodes, node), (*lower.between, *moves))
    return sorted(stacks.values(), key=lambda stack: nodes.index(stack.nodes[0]))


def _readers(nodes: Sequence[LstmNode], scope: Scope) -> Mapping[str, list[NodeProto | None]]:
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


def _way(source: str, scope: Scope, readers: Mapping[str, list[NodeProto | None]]) -> list[NodeProto]:
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


def _next(
    node: LstmNode, nodes: Sequence[LstmNode], scope: Scope, readers: Mapping[str, list[NodeProto | None]]
) -> tuple[LstmNode, list[NodeProto]] | None:
    """The node that continues a stack, and the moves between."""
    moves = _way(node.y, scope, readers)
    end = moves[-1].output[0] if moves else node.y
    after = readers.get(end, []) if end else []
    for other in nodes:
        if len(after) == 1 and after[0] is other.proto and other.x == end:
            same = ("direction", "layout", "hidden_size", "lengths")
            fits = all(getattr(node, kind) == getattr(other, kind) for kind in same) and node.w.dtype == other.w.dtype
            return (other, moves) if fits and _leads_on(node, moves, scope) else None
    return None


def _leads_on(node: LstmNode, moves: Sequence[NodeProto], scope: Scope) -> bool:
    """Whether moves turn Y into the features of both directions beside each other, whatever T and B are."""
    return all(_moved(node, moves, scope, t, b) for t, b in _PROBES)


def _moved(node: LstmNode, moves: Sequence[NodeProto], scope: Scope, t: int, b: int) -> bool:
    d, h = node.directions, node.hidden_size
    numbers: Array = np.arange(t * b * d * h, dtype=np.float32).reshape(t, b, d, h)  # [T, B, D, H]
    wanted, y = numbers.reshape(t, b, d * h), numbers.transpose(0, 2, 1, 3)
    if node.layout == 1:
        wanted, y = wanted.swapaxes(0, 1), numbers.transpose(1, 0, 2, 3)
    if not moves:
        return False  # Y has one dimension more than X
    given = {name: scope.constant(name) for move in moves for name in move.input[1:] if name}
    try:
        got = evaluate(moves, {node.y: np.ascontiguousarray(y), **given}, moves[-1].output[0], scope.opsets)
    except (ValueError, IndexError):  # a reshape or squeeze that such sizes do not allow
        return False
    return np.array_equal(got, wanted)


def _depends(node: LstmNode, layers: Sequence[LstmNode], scope: Scope) -> bool:
    """Whether the initial states of a node come from states that the layers before it leave."""
    targets = {name for layer in layers for name in (layer.y, layer.y_h, layer.y_c) if name}
    seen: set[str] = set()
    left = [name for name in (node.h, node.c, node.lengths) if name]
    while left:
        name = left.pop()
        if name in targets:
            return True
        if name not in seen:
            seen.add(name)
            maker = scope.makers.get(name)
            left += [] if maker is None else sorted(reads(maker))
    return False
