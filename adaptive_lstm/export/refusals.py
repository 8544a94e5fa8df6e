"""What an export cannot carry, by name."""

from __future__ import annotations

from typing import Any

from ..errors import UnsupportedError
from ..policies import Policy, kind_of, parts
from ..policies.exits import Exit
from ..types import StackShape

MOST_INPUTS, MOST_UNITS, MOST_STATES = 2**16 - 8, 2**14 - 1, 2**16 - 1
"""Columns, and the rows of four gates, are counted in 16 bits; columns are padded to a multiple of eight."""


def check_exportable(name: str, shape: StackShape, policy: Policy) -> None:
    """Raise ``UnsupportedError``, which says what it is and what to do instead, if C code cannot run a stack."""
    for reason in _reasons(shape, policy):
        raise UnsupportedError(f"{name or 'the LSTM'} cannot be exported to C: {reason}")


def _reasons(shape: StackShape, policy: Policy) -> list[str]:
    found = []
    if shape.bidirectional:
        found.append("it is bidirectional, and a stream has no end from which the backward direction could start")
    if shape.proj_size:
        found.append(f"it has a projection (proj_size={shape.proj_size}); use an LSTM without one")
    if shape.input_size > MOST_INPUTS or shape.hidden_size > MOST_UNITS:
        found.append(
            f"got {shape.input_size:,} inputs and {shape.hidden_size:,} units, expected at most {MOST_INPUTS:,} and "
            f"{MOST_UNITS:,}"
        )
    members: Any = parts(policy)
    for part in members.policies:
        kind = kind_of(part)
        if isinstance(part, Exit) and shape.num_layers * shape.output_size > MOST_STATES:
            found.append(f"{kind.name} reads h of all layers, expected at most {MOST_STATES:,} numbers")
        if kind.decision == "split":
            found.append(f"{kind.name} splits whole sequences, and C code runs one timestep after the other")
        elif isinstance(part, Exit) and part.holds_code:
            found.append(f"the head of {kind.name} is Python code; give it a LinearHead or a linear module")
        elif kind.native is None:
            found.append(f"the policy {kind.name} is written in Python; use one of those that adaptive_lstm brings")
        elif getattr(part, "level", None) == "sequence":
            found.append(f"{kind.name}(level='sequence') needs whole sequences; use level='step'")
        elif getattr(part, "action", None) == "queue_input":
            found.append(
                f"{kind.name}(mode='queue_input') replays a queue of any length in one step, so that no time is left "
                "for it; use mode='hold_gates' or 'hold_state'"
            )
    return found
