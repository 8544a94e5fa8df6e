"""Gates in the orders that others store them in, put into torch's. Needs no torch."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..codec import brief
from ..errors import InputError
from .layout import GATES

_CELL_GATE = "gcjz"  # what torch, Keras, TensorFlow 1 and the literature call the gate that goes through tanh


def check_order(order: object) -> str:
    """An order with torch's letters, from one with anybody's.

    Args:
        order: four letters: i, f, o, and g, c, j or z for the cell gate.

    Raises:
        InputError: it does not name each gate once.
    """
    letters = "".join("g" if letter in _CELL_GATE else letter for letter in order) if isinstance(order, str) else ""
    if sorted(letters) != sorted(GATES):
        raise InputError(
            f"order: got {brief(order)}, expected the four gates in the order of your arrays: 'ifgo' (torch), 'ifco' "
            "(Keras), 'iofc' (ONNX), 'ijfo' (TensorFlow 1's cells)"
        )
    return letters


def in_torch_order(rows: np.ndarray[Any, Any], order: str) -> np.ndarray[Any, Any]:
    """Rows [4H, ...] in torch's order of gates.

    Args:
        rows: H rows of each gate, gate after gate.
        order: of the gates in ``rows``, as ``check_order`` returns it.
    """
    of_gate = dict(zip(order, np.split(rows, len(GATES)), strict=True))
    return np.concatenate([of_gate[gate] for gate in GATES])
