"""Arrays and a small JSON header in one safetensors file: nothing in it is ever executed.

A SHA-256 covers both, because safetensors does not notice altered numbers.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from . import files, strict_json
from .errors import ModelFileError
from .files import FilePath

MAX_HEADER = 2**23  # bytes of what safetensors says about its arrays, our JSON header included
MAX_VALUES = 2**15  # in our JSON header
_MAX_VALUES_OF_ALL = 2**20  # in the header of safetensors
_CHECKSUM = "sha256"  # its name in our JSON header


def write(path: FilePath, kind: str, version: int, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write a file at once, as ``files.write`` does: after a failure the old one is still there.

    Args:
        path: where to; an existing file is replaced.
        kind: what the file holds, in words.
        version: of the layout of this kind.
        header: JSON values.
        arrays: by name.

    Raises:
        ModelFileError: the file cannot be written, or ``read`` would refuse it for its size.
    """
    name = files.named(path)
    files.write(name, dumps(kind, version, header, arrays, name))


def dumps(
    kind: str, version: int, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray], name: str = "it"
) -> bytes:
    """What ``write`` writes, as bytes: the same for the same content.

    Raises ``ModelFileError``, with ``name`` in its message, as ``write`` does.
    """
    text = json.dumps(dict(header) | {_CHECKSUM: checksum(header, arrays)}, separators=(",", ":"))
    metadata = {"format": f"adaptive_lstm {kind}", "version": str(version), "header": text}
    try:
        strict_json.loads(text, MAX_VALUES)
        data = _in_order(save({key: np.asarray(array, order="C") for key, array in arrays.items()}, metadata))
        if _length(data) > MAX_HEADER:
            raise ValueError(f"got a header of {_length(data):,} bytes, expected at most {MAX_HEADER:,}")
    except (SafetensorError, ValueError) as error:
        raise ModelFileError(f"cannot write {name}: {error}") from error
    return data


def read(path: FilePath, kind: str, version: int, *, unsigned: int = 0) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The header and the arrays of a file of this kind.

    Args:
        path: the file.
        kind: what it must hold.
        version: the newest layout that the caller understands.
        unsigned: the newest layout whose files have no checksum; 0: all have one.

    Raises:
        ModelFileError: missing, damaged, altered, of another kind, of a newer layout, or larger than a header may be.
    """
    name = files.named(path)
    with files.open_file(name) as file, _damaged(name, f"{kind} file"):
        return _parsed(file, os.fstat(file.fileno()).st_size, kind, (version, unsigned), name)


def loads(data: bytes, kind: str, version: int, name: str = "it") -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The header and the arrays of what ``dumps`` made. Raises ``ModelFileError`` as ``read`` does."""
    with _damaged(name, kind):
        return _parsed(io.BytesIO(data), len(data), kind, (version, 0), name)


def checksum(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of a header and all arrays, in hexadecimal."""
    found = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        found.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def contents(path: FilePath) -> bytes:
    """All bytes of any safetensors file, whose header is strict JSON and describes a file of its size.

    Raises:
        ModelFileError: missing or damaged.
    """
    name = files.named(path)
    with files.open_file(name) as file, _damaged(name, "safetensors file"):
        size = os.fstat(file.fileno()).st_size
        return _with_data(_head(file, size, name)[0], file, size)


@contextmanager
def _damaged(name: str, what: str) -> Iterator[None]:
    """What the block raises because something is damaged becomes a ``ModelFileError``."""
    try:
        yield
    except ModelFileError:
        raise
    except (OSError, MemoryError, SafetensorError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ModelFileError(f"{name} is damaged or no {what}: {error!s:.300}") from error


def _parsed(
    file: BinaryIO, size: int, kind: str, versions: tuple[int, int], name: str
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """``versions``: the newest that is understood, and the newest without a checksum."""
    head, said = _head(file, size, name)
    metadata = said.get("__metadata__", {})
    found = metadata.get("format", "another kind of safetensors file")
    if found != f"adaptive_lstm {kind}":
        raise ModelFileError(f"{name}: got {found!s:.100}, expected adaptive_lstm {kind}")
    signed = _checked_version(metadata["version"], kind, versions[0], name) > versions[1]
    header = strict_json.loads(metadata["header"], MAX_VALUES)
    if not isinstance(header, dict):
        raise TypeError(f"got {type(header).__name__} as its header, expected an object")
    arrays = load(_with_data(head, file, size))
    if signed and header.pop(_CHECKSUM, None) != checksum(header, arrays):
        raise ModelFileError(f"{name} is damaged: its contents have changed since it was written; save it again")
    return header, arrays


def _with_data(head: bytes, file: BinaryIO, size: int) -> bytes:
    return head + file.read(size - len(head))


def _head(file: BinaryIO, size: int, name: str) -> tuple[bytes, dict[str, Any]]:
    """The bytes before the data, and what they say; checked before as much is read as they promise.

    Raises:
        ValueError, TypeError, LookupError, AttributeError: damaged.
        ModelFileError: larger than memory.
    """
    head = file.read(8)
    length = _length(head)
    if len(head) < 8 or length > size - 8:
        raise ValueError(f"got {size:,} bytes, which no header of safetensors begins or which end within it")
    if length > MAX_HEADER:
        raise ValueError(f"got a header of {length:,} bytes, expected at most {MAX_HEADER:,}")
    head += file.read(length)
    said: dict[str, Any] = strict_json.loads(head[8:].decode(), _MAX_VALUES_OF_ALL)
    end = max((one["data_offsets"][1] for key, one in said.items() if key != "__metadata__"), default=0)
    if len(head) + end != size:
        raise ValueError(f"got {size:,} bytes, but its header describes {len(head) + end:,}")
    files.require_memory(2 * size, name)  # as bytes and as arrays
    return head, said


def _in_order(data: bytes) -> bytes:
    """A file whose metadata is sorted: safetensors writes it in an order drawn at random."""
    end = 8 + _length(data)
    said = json.loads(data[8:end])
    said["__metadata__"] = dict(sorted(said["__metadata__"].items()))
    head = json.dumps(said, separators=(",", ":"), ensure_ascii=False).encode()
    head += b" " * (-len(head) % 8)  # so that the arrays stay aligned
    return len(head).to_bytes(8, "little") + head + data[end:]


def _length(data: bytes) -> int:
    """Of the header of safetensors."""
    return int.from_bytes(data[:8], "little")


def _checked_version(found: object, kind: str, newest: int, name: str) -> int:
    if not isinstance(found, str) or not re.fullmatch("[1-9][0-9]{0,8}", found, re.ASCII):
        raise ValueError(f"got version {found!r:.50}, expected a whole number from 1")
    if int(found) > newest:
        raise ModelFileError(
            f"{name}: got {kind} of version {found}, but this adaptive_lstm reads up to version {newest}; upgrade it"
        )
    return int(found)
