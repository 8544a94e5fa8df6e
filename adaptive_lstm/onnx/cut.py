"""A graph, cut at its LSTMs: parts for ONNX Runtime, stacks, and branches that hold stacks, in the order they run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any

from ..errors import UnsupportedError
from .node import is_lstm
from .packages import need
from .part import Part, part_of, type_name
from .scope import Array, Scope, reads
from .stack import Stack
from .stack_call import StackCall

if TYPE_CHECKING:
    from onnx import NodeProto

Stacks = Mapping[Scope, Sequence[Stack]]


@dataclass(frozen=True, eq=False, slots=True)
class Branch:
    """An If whose bodies hold LSTMs.

    ``condition``: the value that decides.
    ``bodies``: what runs if it is false, and if it is true.
    ``outputs``: its outputs; those of the body that ran, in their order.
    """

    condition: str
    bodies: tuple[Plan, Plan]
    outputs: tuple[str, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Plan:
    """What computes the outputs of a graph from its inputs, and from the values around it; it never changes.

    ``constants``: values that steps or outputs read and that are always the same.
    """

    steps: tuple[Part | StackCall | Branch, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, Array]

    def __deepcopy__(self, memo: dict[int, Any]) -> Plan:
        return self


@dataclass(frozen=True, eq=False)
class _Item:
    """What runs at once: a node of ONNX Runtime, a stack, or a node with a body that holds stacks."""

    what: NodeProto | StackCall
    reads: frozenset[str]
    writes: frozenset[str]
    bodies: tuple[Scope, ...] = ()

    @property
    def in_runtime(self) -> bool:
        return not isinstance(self.what, StackCall) and not self.bodies


def plan(scope: Scope, stacks: Stacks, keys: Mapping[Stack, str], types: dict[str, str]) -> Plan:
    """Cut a graph.

    Args:
        scope: of the graph.
        stacks: of the graph and of the bodies in it.
        keys: of the modules of the stacks.
        types: of the values that are known so far, as ONNX Runtime writes them; those of the graph are added.

    Raises:
        UnsupportedError: an LSTM lies in the body of a Loop, a Scan or a similar node.
    """
    outputs = tuple(o.name for o in scope.graph.output)
    items = _needed(_items(scope, stacks, keys), outputs)
    levels = _levels(items)
    to_array = need("onnx.numpy_helper").to_array
    steps: list[Part | StackCall | Branch] = []
    for level in sorted(set(levels.values())):
        here = [item for item in items if levels[item] == level]
        inside = [item for item in here if item.in_runtime]
        if inside:
            part = _part(inside, [item for item in items if item not in inside], outputs, scope, types)
            steps.append(part)
            types.update(part.types)
        for item in here:
            if isinstance(item.what, StackCall):
                steps.append(item.what)
                types.update(dict.fromkeys(item.writes, _type_of(item.what, stacks[scope])))
            elif item.bodies:
                steps.append(_branch(item, scope, stacks, keys, types))
    read = {name for item in items if not item.in_runtime for name in item.reads} | set(outputs)
    stated = {name: tensor for name in sorted(read) if (tensor := scope.initializer(name)) is not None}
    types.update({name: type_name(tensor.data_type) for name, tensor in stated.items()})
    return Plan(tuple(steps), outputs, {name: to_array(tensor) for name, tensor in stated.items()})


def _items(scope: Scope, stacks: Stacks, keys: Mapping[Stack, str]) -> list[_Item]:
    """Everything in a graph, in an order in which it can run; constants are no items."""
    found = []
    here = stacks.get(scope, ())
    absorbed = [node for stack in here for node in stack.absorbed]
    for stack in here:
        call = StackCall.of(stack, keys[stack], scope)
        found.append(_Item(call, frozenset(call.reads), frozenset(call.writes)))
    for node in scope.graph.node:
        if is_lstm(node) or node.op_type == "Constant" or any(node is one for one in absorbed):
            continue
        bodies = tuple(body for owner, body in scope.inner if owner is node)
        if not any(_holds(body, stacks) for body in bodies):
            bodies = ()
        elif node.op_type != "If":
            inner = next(stack.name for body in bodies for stack in _all(body, stacks))
            raise UnsupportedError(
                f"LSTM {inner} lies in the body of {node.op_type} {node.name}, where it cannot be taken out, expected "
                "LSTMs in the main graph or in branches of an If; al.onnx.load_lstms loads it by itself"
            )
        read = {name for name in reads(node) if scope.initializer(name) is None} | (
            {node.input[0]} if bodies else set()
        )
        found.append(_Item(node, frozenset(read), frozenset(filter(None, node.output)), bodies))
    return _sorted(found)


def _all(scope: Scope, stacks: Stacks) -> list[Stack]:
    return [*stacks.get(scope, ()), *(stack for _, body in scope.inner for stack in _all(body, stacks))]


def _holds(scope: Scope, stacks: Stacks) -> bool:
    return bool(_all(scope, stacks))


def _sorted(items: Sequence[_Item]) -> list[_Item]:
    makers = {name: item for item in items for name in item.writes}
    graph = {item: [makers[name] for name in sorted(item.reads) if name in makers] for item in items}
    return list(TopologicalSorter(graph).static_order())


def _needed(items: Sequence[_Item], outputs: Iterable[str]) -> list[_Item]:
    """The items that outputs depend on; stacks make nothing that nobody reads."""
    wanted, kept = set(outputs), []
    for item in reversed(items):
        if item.writes & wanted:
            call = item.what
            if isinstance(call, StackCall):
                item = replace(item, what=call.only(wanted), writes=item.writes & wanted)
            kept.append(item)
            wanted |= item.reads
    return kept[::-1]


def _levels(items: Sequence[_Item]) -> dict[_Item, int]:
    """How many stacks and branches lie one behind the other before each item."""
    of_value: dict[str, int] = {}
    found = {}
    for item in items:
        level = max((of_value.get(name, 0) for name in item.reads), default=0)
        found[item] = level
        of_value |= dict.fromkeys(item.writes, level + (not item.in_runtime))
    return found


def _part(
    inside: Sequence[_Item], later: Sequence[_Item], outputs: Sequence[str], scope: Scope, types: Mapping[str, str]
) -> Part:
    made = {name for item in inside for name in item.writes}
    read = {name for item in inside for name in item.reads}
    wanted = {name for item in later for name in item.reads} | set(outputs)
    nodes = [item.what for item in inside if not isinstance(item.what, StackCall)]
    constants = [
        tensor for name in sorted(set().union(*map(reads, nodes))) if (tensor := scope.initializer(name)) is not None
    ]
    given = {name: types[name] for name in sorted(read - made)}
    return part_of(nodes, given, sorted(made & wanted), constants, scope.opsets)


def _type_of(call: StackCall, stacks: Sequence[Stack]) -> str:
    """The type of what a stack makes: that of its weights."""
    stack = next(one for one in stacks if one.name == call.name)
    return type_name(int(need("onnx.helper").np_dtype_to_tensor_dtype(stack.nodes[0].w.dtype)))


def _branch(item: _Item, scope: Scope, stacks: Stacks, keys: Mapping[Stack, str], types: dict[str, str]) -> Branch:
    """Of a condition that never changes only the body that runs is cut."""
    node = item.what
    assert not isinstance(node, StackCall)
    graphs = {a.name: a.g for a in node.attribute}
    scopes = [next(b for b in item.bodies if b.graph is graphs[name]) for name in ("else_branch", "then_branch")]
    always = scope.constant(node.input[0])
    if always is not None:
        scopes = [scopes[bool(always.all())]]
    cut = [plan(one, stacks, keys, types) for one in scopes]
    types.update({out: types[inner] for out, inner in zip(node.output, cut[-1].outputs, strict=True)})
    return Branch(node.input[0], (cut[0], cut[-1]), tuple(node.output))
