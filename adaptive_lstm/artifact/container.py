"""The file that ``save`` writes: its kind, its versions, and the entry of every LSTM in its header. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import codec, tensorfile
from ..files import FilePath

KIND = "model"
SETTINGS_ONLY, WITH_WEIGHTS = 1, 2  # versions: a reader of settings alone refuses the second

_LSTM = ("shape", "parameters", "quantize", "replaced", "policy", "monitor")


def write(path: FilePath, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray], *, weights: bool) -> None:
    """Write a file at once, as ``tensorfile.write`` does; ``weights``: whether it holds those that are executed."""
    tensorfile.write(path, KIND, WITH_WEIGHTS if weights else SETTINGS_ONLY, header, arrays)


def dumps(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """A file with weights, as bytes."""
    return tensorfile.dumps(KIND, WITH_WEIGHTS, header, arrays)


def loads(data: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Header and arrays of what ``dumps`` made. Raises ``ModelFileError`` as ``read`` does."""
    return tensorfile.loads(data, KIND, WITH_WEIGHTS)


def read(path: FilePath) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Header and arrays, as they were written.

    Raises:
        ModelFileError: the file is missing, damaged, altered, of another kind, or of a newer version.
    """
    return tensorfile.read(path, KIND, WITH_WEIGHTS)


def lstms_in(header: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The entry of every LSTM in the header, by module name; ``weights``: whether the file holds those executed."""
    described = codec.mapping(codec.mapping(header, "header", ("lstms", "certificate"))["lstms"], "lstms")
    out = {}
    for name, found in described.items():
        names = (*_LSTM, "weights") if isinstance(found, dict) and "weights" in found else _LSTM
        out[name] = {"weights": False} | codec.mapping(found, name or "the LSTM", names)
        if type(out[name]["weights"]) is not bool:
            raise codec.unexpected(out[name]["weights"], f"{name or 'the LSTM'}.weights", "true or false")
    return out
