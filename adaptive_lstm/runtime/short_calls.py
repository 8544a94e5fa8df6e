"""Tells, once, who steps by calls with given states that every call forgets what skipping depends on."""

from __future__ import annotations

import sys
import warnings
from typing import Any

from ..execution.batch import Batch

FEW_TIMESTEPS, MANY_SHORT_CALLS = 2, 32  # a user who steps by calls makes many short ones in a row


def note_length(attributes: dict[str, Any], batch: Batch) -> None:
    """Count a call of an LSTM whose policy skips over time, and warn where a stream is wanted.

    Args:
        attributes: of the LSTM; ``_short_calls`` counts the short ones in a row, below zero once it has been told.
        batch: of the call.
    """
    short, before = batch.timesteps <= FEW_TIMESTEPS * batch.rows, attributes.get("_short_calls", 0)
    count = before + 1 if short else min(before, 0)
    attributes["_short_calls"] = count
    if count == MANY_SHORT_CALLS:
        warnings.warn(
            f"adaptive_lstm: {count} calls in a row were given (h_0, c_0) and at most {FEW_TIMESTEPS} timesteps. "
            "Every call starts with nothing sent or held, so the policy can hardly skip anything. A stream "
            "remembers: stream = adaptive_lstm.stream(lstm, batch_size); y = stream.step(x). Shown once per LSTM.",
            UserWarning,
            stacklevel=4,
        )
        attributes["_short_calls"] = -sys.maxsize
