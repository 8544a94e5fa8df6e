"""Mutated files: refused with an error of the package, or read as something that works: ``python -m tests.fuzz files``.

A case is a kind of file and changes to the bytes of a good one. It must not crash, hang, need more than ``MEMORY`` or
``SECONDS``, or end in another exception than the package's. Where a checksum covers a file, changes that do not
recompute it must be refused or without effect.
"""

from __future__ import annotations

import functools
import os
import random
import resource
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from adaptive_lstm.errors import AdaptiveLSTMError

from .damage import DAMAGES
from .file_kinds import KINDS, FileKind
from .target import Case, Fault, Seen

SECONDS = 2.0  # of this process's own time
MEMORY = 2**29  # bytes
_FOLDER = "/dev/shm" if os.path.isdir("/dev/shm") else None  # removing a folder costs more than a case elsewhere

_BY_NAME = {kind.name: kind for kind in KINDS}
_original = functools.cache(lambda name: _BY_NAME[name].original())


class Files:
    """The target: a case is {"kind": name, "changes": [[name, seed], ...]}; "other" becomes a file of another kind."""

    def draw(self, choice: random.Random) -> Case:
        """A random case."""
        kind = choice.choice(KINDS)
        own = [name for name in kind.changes if name not in DAMAGES]
        own += [name for name in own if name in ("say", "arrays")] * 2  # these are read to the end
        changes = []
        for _ in range(choice.choice((1, 1, 1, 2, 4))):
            names = own if own and choice.random() < 0.7 else list(DAMAGES)
            name = "other" if choice.random() < 0.01 else choice.choice(names)
            changes.append([name, choice.randrange(2**32)])
        return {"kind": kind.name, "changes": changes}

    def check(self, case: Case) -> Seen:
        """Read the file of a case, and use what was read."""
        kind = _BY_NAME[case["kind"]]
        data = mutated(case)
        _original(kind.name), _warm(kind.name)
        begun, memory = time.process_time(), _peak()
        with tempfile.TemporaryDirectory(dir=_FOLDER) as folder:
            path = Path(folder) / kind.name
            path.write_bytes(data)
            outcome = _outcome(kind, path, sealed=all(name in DAMAGES for name, _ in case["changes"]))
        seconds, grown = time.process_time() - begun, _peak() - memory
        if seconds > SECONDS:
            raise Fault(f"{kind.name}: slower than {SECONDS:g} seconds ({outcome})\n{seconds:.1f} seconds")
        if grown > MEMORY:
            raise Fault(f"{kind.name}: more than {MEMORY // 2**20} MB ({outcome})\n{grown / 2**20:.0f} MB")
        covered = [f"{kind.name}: {outcome}", *(f"change: {name}" for name, _ in case["changes"])]
        return Seen(covered, {"seconds": round(seconds, 3), "megabytes": round(grown / 2**20, 1)})

    def simpler(self, case: Case) -> Iterable[Case]:
        """With one change less."""
        changes = case["changes"]
        if len(changes) > 1:
            for i in range(len(changes)):
                yield {**case, "changes": changes[:i] + changes[i + 1 :]}


def mutated(case: Case) -> bytes:
    """The bytes of a case; a change that cannot read what those before it have left does nothing."""
    kind = _BY_NAME[case["kind"]]
    data = _original(kind.name)
    for name, seed in case["changes"]:
        choice = random.Random(seed)
        if name == "other":
            data = _original(choice.choice(KINDS).name)
            continue
        try:
            data = kind.changes[name](data, choice)
        except Exception:  # noqa: BLE001 (the file is broken already)
            continue
    return data


def _outcome(kind: FileKind, path: Path, sealed: bool) -> str:
    """What came of a file in one word; every exception but the package's goes through."""
    try:
        found = kind.read(path)
    except AdaptiveLSTMError as error:
        if len(str(error)) > 2000:
            raise Fault(f"{kind.name}: a message of {len(str(error)):,} characters") from error
        return "refused"
    if sealed and kind.same is not None and not kind.same(found):
        raise Fault(f"{kind.name}: read as something else than was written")
    return _used(kind.use, found)


def _used(use: Callable[[Any], object], found: Any) -> str:
    try:
        use(found)
    except AdaptiveLSTMError:
        return "loaded, and refused when it was used"
    return "loaded, and works"


@functools.cache
def _warm(name: str) -> None:
    """Read the original once, so that the first case of a kind does not pay for what is loaded or compiled then."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(_original(name))
        _BY_NAME[name].use(_BY_NAME[name].read(path))


def _peak() -> int:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


TARGET = Files()
