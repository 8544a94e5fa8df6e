"""LSTM nodes that follow each other, joined into the stack that they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..runtime.from_gates import Cell, assembled
from ..runtime.lstm import AdaptiveLSTM
from ..weights.gate_order import in_torch_order
from .moves import Form, Readers, form_after, readers_of, way
from .node import ORDER, LstmNode
from .scope import Scope, reads

if TYPE_CHECKING:
    from onnx import NodeProto


@dataclass(frozen=True, eq=False)
class Stack:
    """Nodes of which each reads the output of the one before, from the first layer to the last.

    ``absorbed``: the nodes that only hand the output of one layer to the next, or turn that of the last.
    ``y``: the output; empty: not wanted. ``y_form``: how it lies, see ``moves.py``.
    """

    nodes: tuple[LstmNode, ...]
    absorbed: tuple[NodeProto, ...]
    y: str
    y_form: Form

    @property
    def name(self) -> str:
        """That of the first node."""
        return self.nodes[0].name

    def module(self) -> AdaptiveLSTM:
        """The stack as a module in eval mode; of a reverse one it is the LSTM that runs over reversed time."""
        first = self.nodes[0]
        layers = [[_cell(node, d) for d in range(node.directions)] for node in self.nodes]
        dtype = torch.from_numpy(np.empty(0, first.w.dtype)).dtype
        return assembled(layers, batch_first=first.layout == 1, dtype=dtype)


def _cell(node: LstmNode, d: int) -> Cell:
    """The weights of one direction of a node."""
    arrays = [node.w[d], node.r[d], *(() if node.b is None else np.split(node.b[d], 2))]
    return Cell(*(in_torch_order(array, ORDER) for array in arrays))


def join(nodes: Sequence[LstmNode], scope: Scope) -> list[Stack]:
    """The LSTM nodes of one graph as stacks: joined where only moves lie between two and nothing else reads them.

    Args:
        nodes: all of the graph, in its order.
        scope: of the graph.
    """
    readers = readers_of(nodes, scope)
    before: dict[LstmNode, tuple[LstmNode, list[NodeProto]]] = {}
    for node in nodes:
        if (found := _next(node, nodes, scope, readers)) is not None:
            before[found[0]] = node, found[1]
    chains: dict[LstmNode, tuple[list[LstmNode], list[NodeProto]]] = {}  # by their last layer
    for node in nodes:
        last, moves = before.get(node, (None, []))
        layers, absorbed = ([], []) if last is None or _depends(node, chains[last][0], scope) else chains.pop(last)
        chains[node] = [*layers, node], [*absorbed, *(moves if layers else [])]
    stacks = [_ended(layers, absorbed, scope, readers) for layers, absorbed in chains.values()]
    return sorted(stacks, key=lambda stack: nodes.index(stack.nodes[0]))


def _ended(layers: Sequence[LstmNode], absorbed: Sequence[NodeProto], scope: Scope, readers: Readers) -> Stack:
    """A stack with as many of the moves behind it as a view of a tensor can make."""
    last = layers[-1]
    moves = way(last.y, scope, readers)
    for count in range(len(moves), 0, -1):
        form = form_after(last, moves[:count], scope)
        if form is not None:
            return Stack(tuple(layers), (*absorbed, *moves[:count]), moves[count - 1].output[0], form)
    return Stack(tuple(layers), tuple(absorbed), last.y, "node")


def _next(
    node: LstmNode, nodes: Sequence[LstmNode], scope: Scope, readers: Readers
) -> tuple[LstmNode, list[NodeProto]] | None:
    """The node that continues a stack, and the moves between."""
    moves = way(node.y, scope, readers)
    end = moves[-1].output[0] if moves else node.y
    after = readers.get(end, []) if end else []
    for other in nodes:
        if len(after) == 1 and after[0] is other.proto and other.x == end:
            same = ("direction", "layout", "hidden_size", "lengths")
            fits = all(getattr(node, kind) == getattr(other, kind) for kind in same) and node.w.dtype == other.w.dtype
            wanted: Form = "batch" if node.layout == 1 else "time"
            return (other, moves) if fits and form_after(node, moves, scope) == wanted else None
    return None


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
