"""Whether contenders race for calls: ``ADAPTIVE_LSTM_RACE``."""

from __future__ import annotations

import functools
import os

from ..errors import BackendError


@functools.cache
def races() -> bool:
    """Whether real calls are timed to find out who serves them faster. Holds for the process.

    Raises:
        BackendError: the environment variable is neither ``on`` nor ``off``.
    """
    wanted = os.environ.get("ADAPTIVE_LSTM_RACE", "")
    if wanted not in ("", "on", "off"):
        raise BackendError(f"ADAPTIVE_LSTM_RACE: got {wanted!r}, expected 'on' or 'off'")
    return wanted != "off"
