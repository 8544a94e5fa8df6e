"""The packages of the extra ``serve``, and Ray Serve, imported when something needs them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ..errors import UnsupportedError


def needed(name: str) -> Any:
    """A module that needs packages which may be missing.

    Raises:
        UnsupportedError: one is.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        if missing == "adaptive_lstm":
            raise
        extra = "ray[serve]" if missing == "ray" else "adaptive-lstm[serve]"
        raise UnsupportedError(
            f"serving needs the package {missing}, which is not installed: pip install '{extra}'"
        ) from error
