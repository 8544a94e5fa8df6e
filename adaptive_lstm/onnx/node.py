"""One LSTM node of a graph: what it says, checked.

Its gates lie in the order i, o, f, c (the operator LSTM of ONNX, https://onnx.ai/onnx/operators/onnx__LSTM.html).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ModelFileError, UnsupportedError
from .packages import need
from .scope import Array, Scope

if TYPE_CHECKING:
    from onnx import NodeProto

ORDER = "iofg"  # of the gates; ONNX calls the cell gate c
DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}
ACTIVATIONS = ("Sigmoid", "Tanh", "Tanh")
_DTYPES = ("float16", "float32", "float64")


@dataclass(frozen=True, eq=False)
class LstmNode:
    """A node with constant weights that computes a plain LSTM layer.

    ``name``: unique in the file.
    ``direction``: "forward", "reverse" or "bidirectional"; D is 2 for the last, else 1.
    ``layout``: 0: X is [T, B, I], Y [T, D, B, H], states [D, B, H]; 1: X [B, T, I], Y [B, T, D, H], states [B, D, H].
    ``w`` [D, 4H, I], ``r`` [D, 4H, H], ``b`` [D, 8H] or None: weights and biases, gates in the order i, o, f, c.
    ``x``, ``lengths``, ``h``, ``c``: the values that it reads; empty: not given, or a state that is always zero.
    ``y``, ``y_h``, ``y_c``: the values that it makes; empty: not wanted.
    """

    name: str
    proto: NodeProto
    direction: str
    layout: int
    w: Array
    r: Array
    b: Array | None
    x: str
    lengths: str
    h: str
    c: str
    y: str
    y_h: str
    y_c: str

    @property
    def directions(self) -> int:
        """D."""
        return DIRECTIONS[self.direction]

    @property
    def reads(self) -> set[str]:
        """The values that it depends on at run time."""
        return {name for name in (self.x, self.lengths, self.h, self.c) if name}

    @property
    def hidden_size(self) -> int:
        """H."""
        return int(self.r.shape[2])


def is_lstm(node: NodeProto) -> bool:
    """Whether a node is the LSTM of ONNX."""
    return node.op_type == "LSTM" and node.domain in ("", "ai.onnx")


def named(scope: Scope) -> Iterator[tuple[str, NodeProto, Scope]]:
    """Every LSTM node of a graph and of the bodies in it, with a name of its own and its scope.

    An unnamed node is LSTM_0, LSTM_1, ... by its place among all of them; a name that was there before gets a number.
    """
    taken: set[str] = set()
    for place, (node, where) in enumerate(_nodes(scope)):
        first = name = node.name or f"LSTM_{place}"
        number = 1
        while name in taken:
            number += 1
            name = f"{first}_{number}"
        taken.add(name)
        yield name, node, where


def _nodes(scope: Scope) -> Iterator[tuple[NodeProto, Scope]]:
    for node in scope.graph.node:
        if is_lstm(node):
            yield node, scope
        for owner, body in scope.inner:
            if owner is node:
                yield from _nodes(body)


def parse(name: str, node: NodeProto, scope: Scope) -> LstmNode:
    """What a node says.

    Raises:
        UnsupportedError: it is no plain LSTM, or its weights are computed at run time; the message names the attribute
            or the input.
        ModelFileError: its weights do not have the sizes that ONNX demands.
    """
    settings = {a.name: need("onnx.helper").get_attribute_value(a) for a in node.attribute}
    direction = _text(settings.get("direction", "forward"))
    if direction not in DIRECTIONS:
        raise ModelFileError(f"LSTM {name}: direction: got {direction!r}, expected one of {', '.join(DIRECTIONS)}")
    d = DIRECTIONS[direction]
    _check_plain(name, settings, d)
    given = dict(zip(("X", "W", "R", "B", "lengths", "h", "c", "P"), node.input, strict=False))
    if given.get("P"):
        raise UnsupportedError(f"LSTM {name}: input P: peepholes are not supported, expected an LSTM without them")
    w, r = (_weight(name, kind, given.get(kind, ""), scope) for kind in ("W", "R"))
    b = _weight(name, "B", given["B"], scope) if given.get("B") else None
    _check_sizes(name, w, r, b, d, settings.get("hidden_size"))
    if w.dtype.name not in _DTYPES or len({a.dtype for a in (w, r, b) if a is not None}) > 1:
        raise UnsupportedError(f"LSTM {name}: weights of {w.dtype}, expected one of {', '.join(_DTYPES)} for all")
    made = [*node.output, "", "", ""][:3]
    states = ("" if not given.get(kind) or scope.zero(given[kind]) else given[kind] for kind in ("h", "c"))
    read = (given.get("X", ""), given.get("lengths", ""), *states)
    return LstmNode(name, node, direction, int(settings.get("layout", 0)), w, r, b, *read, *made)


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _check_plain(name: str, settings: Mapping[str, Any], d: int) -> None:
    activations = tuple(map(_text, settings.get("activations", ACTIVATIONS * d)))
    if tuple(a.lower() for a in activations) != tuple(a.lower() for a in ACTIVATIONS * d):
        raise UnsupportedError(
            f"LSTM {name}: attribute activations: got {', '.join(activations)}, expected {', '.join(ACTIVATIONS)} for "
            "each direction"
        )
    if "clip" in settings:
        raise UnsupportedError(
            f"LSTM {name}: attribute clip: got {settings['clip']:g}, expected an LSTM that does not clip its gates"
        )
    if settings.get("input_forget", 0):
        raise UnsupportedError(
            f"LSTM {name}: attribute input_forget: got {settings['input_forget']}, expected 0: gates of their own"
        )


def _weight(name: str, kind: str, source: str, scope: Scope) -> Array:
    value = scope.constant(source) if source else None
    if value is None:
        found = f"{source!r}, which is computed at run time" if source else "nothing"
        raise UnsupportedError(f"LSTM {name}: input {kind}: got {found}, expected a constant or an initializer")
    return value


def _check_sizes(name: str, w: Array, r: Array, b: Array | None, d: int, hidden: int | None) -> None:
    h = int(hidden if hidden is not None else r.shape[-1])
    width = int(w.shape[-1])
    expected = {"W": (w, (d, 4 * h, width)), "R": (r, (d, 4 * h, h))} | ({} if b is None else {"B": (b, (d, 8 * h))})
    for kind, (array, shape) in expected.items():
        if array.shape != shape:
            raise ModelFileError(
                f"LSTM {name}: input {kind}: got shape {array.shape}, expected {shape} for {d} direction(s) of "
                f"hidden_size {h}"
            )
    if min(width, h) < 1 or not all(np.isfinite(a).all() for a, _ in expected.values()):
        raise ModelFileError(f"LSTM {name}: got weights with NaN, infinity or no elements, expected finite numbers")
