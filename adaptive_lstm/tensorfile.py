"""Arrays and a small JSON header in one safetensors file: nothing in it is ever executed."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from .errors import ModelFileError


def write(
    path: str | os.PathLike[str], kind: str, version: int, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> None:
    """Write a file at once: after a failure the old one is still there.

    Args:
        path: where to; an existing file is replaced.
        kind: what the file holds, in words.
        version: of the layout of this kind.
        header: JSON values.
        arrays: by name.

    Raises:
        ModelFileError: the file cannot be written.
    """
    metadata = {"format": f"adaptive_lstm {kind}", "version": str(version), "header": json.dumps(header)}
    data = save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, metadata)
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}")  # beside it: a rename within one file system
    try:
        unfinished.write_bytes(data)
        os.replace(unfinished, path)
    except OSError as error:
        raise ModelFileError(f"cannot write {path}: {error.strerror}") from error
    finally:
        with suppress(OSError):  # renamed already, or never written
            unfinished.unlink()


def read(path: str | os.PathLike[str], kind: str, version: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The header and the arrays of a file of this kind.

    Args:
        path: the file.
        kind: what it must hold.
        version: the newest layout that the caller understands.

    Raises:
        ModelFileError: missing, damaged, of another kind, or of a newer layout.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelFileError(f"no such file: {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            found = metadata.get("format", "another kind of safetensors file")
            if found != f"adaptive_lstm {kind}":
                raise ModelFileError(f"{path}: got {found}, expected adaptive_lstm {kind}")
            if int(metadata["version"]) > version:
                raise ModelFileError(
                    f"{path}: got {kind} of version {metadata['version']}, but this adaptive_lstm reads up to version "
                    f"{version}; upgrade it"
                )
            header = json.loads(metadata["header"])
            return dict(header), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except ModelFileError:
        raise
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ModelFileError(f"{path} is damaged or no {kind} file: {error}") from error
