"""Real pretrained models with real inputs, for the evaluations and ``tests/eval/test_zoo.py``.

The files are no part of the project. A folder holds one subfolder per family, with its weights, its data, and a
SOURCE.txt with their origin, their licence, and the figures of the dense model. Every module
here builds one family from its subfolder: ``eval.zoo.load(name, folder)`` gives one model, ``NAMES`` are all of them,
``FOLDERS`` the subfolders of those that nobody has to fetch.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

from . import (
    arabic,
    beatnet,
    charrnn,
    chemnet,
    fsdd,
    nakdimon,
    nnsplit,
    pjm,
    pyannote,
    resemblyzer,
    silero,
    tesseract,
    textgenrnn,
    turbofan,
)
from .base import ZooModel as ZooModel
from .base import family

_KEPT = (arabic, beatnet, charrnn, chemnet, fsdd, nnsplit, pjm, pyannote, resemblyzer, textgenrnn, turbofan)
PACKAGED = {"nakdimon": nakdimon, "silero": silero, "tesseract": tesseract}
"""Those that ``eval.zoo fetch`` gets from packages, weights and all; a zoo need not hold them."""
_LOADERS: Mapping[str, Callable[[Path], ZooModel]] = {
    "arabic": arabic.load,
    "beatnet": beatnet.load,
    **{f"charrnn-{author}": partial(charrnn.load, author=author) for author in charrnn.BITS},
    "chemnet": chemnet.load,
    **{f"fsdd-{task}": partial(fsdd.load, task=task) for task in fsdd.ACCURACY},
    **{f"nnsplit-{language}": partial(nnsplit.load, language=language) for language in nnsplit.TEXT},
    **{name: module.load for name, module in PACKAGED.items()},
    "pjm": pjm.load,
    "pyannote": pyannote.load,
    "resemblyzer": resemblyzer.load,
    **{f"textgenrnn-{variant}": partial(textgenrnn.load, variant=variant) for variant in textgenrnn.TITLES},
    "turbofan": turbofan.load,
}
NAMES = tuple(_LOADERS)
FOLDERS = frozenset(module.FOLDER for module in _KEPT)


def absent(name: str, zoo: Path) -> str:
    """Why a model that has to be fetched cannot be loaded; empty: it was, or it is one of those kept in ``FOLDERS``."""
    if name not in PACKAGED or family(zoo, PACKAGED[name].FOLDER).is_dir():
        return ""
    return f"{name} was not fetched: python -m eval.zoo fetch {name}"


def present(names: Iterable[str], zoo: Path) -> list[str]:
    """What there is of the names; of all ``NAMES``, those that were not fetched are left out and said so."""
    chosen = list(names)
    if set(chosen) != set(NAMES):
        return chosen
    for reason in filter(None, (absent(name, zoo) for name in chosen)):
        print(reason, file=sys.stderr)
    return [name for name in chosen if not absent(name, zoo)]


def load(name: str, zoo: Path) -> ZooModel:
    """A model of the zoo by one of ``NAMES``, from the folder that holds the families.

    Raises KeyError for another name, FileNotFoundError if a file is missing.
    """
    loader = _LOADERS[name]
    try:
        return loader(zoo)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{name} needs {error.filename}; SOURCE.txt beside it says from where") from error


def with_material(names: Iterable[str], zoo: Path) -> Iterator[ZooModel]:
    """Those of the named models that have real sequences, one at a time."""
    for name in present(names, zoo):
        if (model := load(name, zoo)).material is not None:
            yield model
