"""``load_lstms``: the LSTMs of an ONNX file as modules."""

from __future__ import annotations

import logging
from os import PathLike

from ..errors import ModelFileError
from ..runtime.lstm import AdaptiveLSTM
from .node import LstmNode, named, parse
from .scope import Scope, read
from .stack import Stack, join

_log = logging.getLogger("adaptive_lstm")


def load_lstms(path: str | PathLike[str] | bytes) -> dict[str, AdaptiveLSTM]:
    """Every LSTM of an ONNX file as an ``AdaptiveLSTM`` in eval mode, by the name of its node.

    Nodes that follow each other as layers of one stack (equal direction and H; between them only Squeeze, Transpose and
    Reshape as exporters write them; nothing else reads what lies between) become one module of several layers under the
    name of the first. A node without a name is called LSTM_0, LSTM_1, ... by its place among the LSTMs of the file.
    LSTMs in the bodies of If, Loop and Scan are loaded too.

    A module takes what ``nn.LSTM`` takes: [T, B, I], or [B, T, I] if its node has ``layout=1``; initial states and
    lengths are arguments of a call (h_0 and c_0, a ``PackedSequence``). The module of a node with
    ``direction="reverse"`` runs forward: give it reversed time, and reverse its output; the logger "adaptive_lstm"
    names such nodes.

    Args:
        path: an ONNX file, or the bytes of one.

    Raises:
        UnsupportedError: the package onnx is missing, or a node is no plain LSTM (peepholes, clip, other activations,
            input_forget) or has weights that are computed at run time; the message names node and attribute.
        ModelFileError: the file cannot be read, or holds no LSTM, or weights of impossible sizes.
    """
    model = read(path)
    scope = Scope(model.graph, model.opset_import)
    stacks = [stack for some in stacks_of(scope).values() for stack in some]
    reverse = [node.name for stack in stacks for node in stack.nodes if node.direction == "reverse"]
    if reverse:
        _log.warning("these run from the last timestep to the first; reverse time around them: %s", ", ".join(reverse))
    return {stack.name: stack.module() for stack in stacks}


def _kinds(scope: Scope) -> set[str]:
    """Of all nodes of a graph and of the bodies in it."""
    return {node.op_type for node in scope.graph.node}.union(*(_kinds(body) for _, body in scope.inner))


def _instead(kinds: set[str]) -> str:
    """What a file without LSTM nodes holds."""
    if others := sorted(kinds & {"GRU", "RNN"}):
        return f"; it holds {', '.join(others)}"
    if {"Sigmoid", "Tanh"} <= kinds and kinds & {"MatMul", "Gemm"}:
        return (
            "; cells that an exporter wrote as products of matrices, Sigmoid and Tanh are not found, and their weights "
            "can be given to al.from_gates"
        )
    return ", so there is nothing to adapt"


def stacks_of(scope: Scope) -> dict[Scope, list[Stack]]:
    """The stacks of a graph and of the bodies in it, by where they lie.

    Raises:
        UnsupportedError, ModelFileError: as ``load_lstms``.
    """
    parsed: dict[Scope, list[LstmNode]] = {}
    for name, node, where in named(scope):
        parsed.setdefault(where, []).append(parse(name, node, where))
    if not parsed:
        raise ModelFileError(f"the file holds no node of the kind LSTM{_instead(_kinds(scope))}")
    return {where: join(nodes, where) for where, nodes in parsed.items()}
