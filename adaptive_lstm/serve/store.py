"""Where snapshots of sequences wait until a replica continues them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from .. import files
from ..errors import InputError, ModelFileError
from .sequences import Key

SUFFIX = ".snapshot"
MOST_BYTES = 2**26  # of a snapshot


class Store(Protocol):
    """A place that all replicas reach. Whoever may write there decides what streams remember, and no more."""

    async def put(self, key: Key, snapshot: bytes) -> None:
        """Keep a snapshot in place of an older one."""

    async def get(self, key: Key) -> bytes | None:
        """The snapshot that was put last, or None."""

    async def drop(self, key: Key) -> None:
        """Forget it, if it is there."""


class FolderStore:
    """A folder, of one machine or on a volume that replicas share.

    Args:
        folder: is made if it is missing; only its owner may look inside then.
        keep: seconds after which a snapshot that nobody asked for is deleted.
        clock: tells the time of files, in seconds.

    Raises:
        InputError: it cannot be made or written.
    """

    def __init__(self, folder: str | os.PathLike[str], *, keep: float = 3600.0, clock: Callable[[], float] = time.time):
        self._folder, self._keep, self._clock = Path(folder), keep, clock
        self._swept = clock()
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            files.require_writable(self._folder / SUFFIX)
        except (OSError, ModelFileError) as error:
            raise InputError(f"got {self._folder} as a folder for snapshots, which cannot be used: {error}") from error

    async def put(self, key: Key, snapshot: bytes) -> None:
        """As ``Store.put``; also deletes what is too old, now and then."""
        await asyncio.to_thread(files.write, self._path(key), snapshot)
        if self._clock() - self._swept > self._keep / 10:
            self._swept = self._clock()
            await asyncio.to_thread(self._sweep)

    async def get(self, key: Key) -> bytes | None:
        """As ``Store.get``."""
        return await asyncio.to_thread(self._read, self._path(key))

    async def drop(self, key: Key) -> None:
        """As ``Store.drop``."""
        await asyncio.to_thread(self._path(key).unlink, missing_ok=True)

    def _path(self, key: Key) -> Path:
        """Names of clients never become names of files."""
        return self._folder / (hashlib.sha256("\0".join(key).encode()).hexdigest() + SUFFIX)

    def _read(self, path: Path) -> bytes | None:
        try:
            with files.open_file(path) as file:
                found = file.read(MOST_BYTES + 1)
                fresh = self._clock() - os.fstat(file.fileno()).st_mtime <= self._keep
        except ModelFileError:
            return None
        return found if fresh and len(found) <= MOST_BYTES else None

    def _sweep(self) -> None:
        for path in self._folder.glob(f"*{SUFFIX}"):
            with contextlib.suppress(OSError):
                if self._clock() - path.stat().st_mtime > self._keep:
                    path.unlink()
