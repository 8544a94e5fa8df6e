"""Regular files, read without surprises and written at once.

Bytes are read, never mapped: a mapped file that is truncated meanwhile kills the process. A FIFO or a device may block
or never end, so neither is opened.
"""

from __future__ import annotations

import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from .errors import ModelFileError

FilePath = str | bytes | os.PathLike[str] | os.PathLike[bytes]

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode), "a device"),
)


def open_file(path: FilePath) -> BinaryIO:
    """Open a regular file to read its bytes.

    Args:
        path: of the file.

    Raises:
        ModelFileError: no path, no such file, no regular file, or one that may not be read.
    """
    name = named(path)
    with _refusals(f"cannot read {_short(name)}"):
        try:
            # Before it is opened: opening a device may have effects of its own.
            _require_regular(os.stat(name), f"no such file: {_short(name)}")
            file = open(os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")  # noqa: SIM115 (the caller's)
        except FileNotFoundError as error:
            raise ModelFileError(f"no such file: {_short(name)}") from error
    try:
        _require_regular(os.fstat(file.fileno()), f"no such file: {_short(name)}")
    except ModelFileError:
        file.close()
        raise
    return file


def write(path: FilePath, data: bytes) -> None:
    """Write a file at once: after a failure the old one is still there.

    A new file gets the mode that the umask leaves. An existing one is replaced and its mode kept; a symbolic link stays
    and the file that it names is replaced. Other hard links of a file keep what it held before.

    Args:
        path: where to.
        data: everything that the file will hold.

    Raises:
        ModelFileError: no path, no regular file, or one that cannot be written.
    """
    name = named(path)
    with _refusals(f"cannot write {_short(name)}"):
        _replace(*_target(name), data)


def require_writable(path: FilePath) -> None:
    """Raise ``ModelFileError`` if ``write`` would fail as things are now: before the work whose result it will keep."""
    name = named(path)
    with _refusals(f"cannot write {_short(name)}"):
        folder = os.path.dirname(_target(name)[0])
        os.stat(folder)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise ModelFileError(f"cannot write {_short(name)}: no files may be made in {_short(folder)}")


def require_memory(size: int, name: object) -> None:
    """Raise ``ModelFileError`` if something of this many bytes is larger than the memory of the machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > memory:
        raise ModelFileError(
            f"{name}: reading it takes {size / 1e9:,.1f} GB, and this machine has {memory / 1e9:,.1f} GB of memory"
        )


def named(path: FilePath) -> str:
    """A path as text that names a file."""
    try:
        name = os.fsdecode(path)
    except TypeError as error:
        raise ModelFileError(f"path: got {type(path).__name__}, expected text, bytes or a pathlib.Path") from error
    if not os.path.basename(name):
        raise ModelFileError(f"path: got {name!r:.300}, expected the name of a file")
    return name


def _require_regular(found: os.stat_result, begin: str) -> None:
    """Raise ``ModelFileError``, with a message that begins so, if a path names no regular file."""
    if not stat.S_ISREG(found.st_mode):
        kind = next((words for is_kind, words in _KINDS if is_kind(found.st_mode)), "no regular file")
        raise ModelFileError(f"{begin} is {kind}, expected a file")


def _target(name: str) -> tuple[str, os.stat_result | None]:
    """The file at the end of all links, and what is there now."""
    target, old = os.path.realpath(name), None
    with suppress(FileNotFoundError):
        old = os.stat(target)
        _require_regular(old, f"cannot write {_short(name)}: it")
    return target, old


def _replace(target: str, old: os.stat_result | None, data: bytes) -> None:
    """Write beside the target, so that the rename stays within one file system, and rename."""
    unfinished = os.path.join(os.path.dirname(target), f".{uuid.uuid4().hex}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(unfinished, flags, 0o666 if old is None else 0o600)  # never more open than the old one
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            if old is not None:
                with suppress(OSError):  # another owner's file becomes ours, as when it is deleted and written anew
                    os.fchown(descriptor, old.st_uid, old.st_gid)
                os.fchmod(descriptor, stat.S_IMODE(old.st_mode))
            os.fsync(descriptor)
        os.replace(unfinished, target)
    finally:
        with suppress(OSError):  # renamed already
            os.unlink(unfinished)


def _short(name: str) -> str:
    return name if len(name) <= 300 else f"{name[:300]}... ({len(name):,} characters)"


@contextmanager
def _refusals(begin: str) -> Iterator[None]:
    """What the operating system refuses becomes a ``ModelFileError`` whose message begins so."""
    try:
        yield
    except ModelFileError:
        raise
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ModelFileError(f"{begin}: {reason}") from error
