"""What can be streamed at all. Needs no torch."""

from __future__ import annotations

from ..errors import UnsupportedError
from ..policies import Parts, kind_of
from ..types import StackShape


def check_direction(shape: StackShape) -> None:
    """Raise ``UnsupportedError`` if a direction starts at the end of the sequence."""
    if shape.bidirectional:
        raise UnsupportedError(
            "a bidirectional LSTM cannot stream: its backward direction starts at the end of the sequence"
        )


def check_decisions(policy: Parts) -> None:
    """Raise ``UnsupportedError`` if a decision needs the whole sequence."""
    if policy.split is not None:
        raise UnsupportedError(
            f"{kind_of(policy.split).name} splits long sequences, and a stream is given one timestep after the other; "
            "set another policy before streaming, for example policy = Dense()"
        )
    if not policy.streams:
        raise UnsupportedError(
            "ExitInDepth(level='sequence') decides on final states, which a stream does not have; use level='step'"
        )
