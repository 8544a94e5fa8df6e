"""Real pretrained models with real inputs, for the evaluations and ``tests/eval/test_zoo.py``.

The files are no part of the project. A folder holds one subfolder per family, with its weights, its data, and a
SOURCE.txt with their origin, their licence, and the figures of the dense model. Every module
here builds one family from its subfolder: ``eval.zoo.load(name, folder)`` gives one model, ``NAMES`` are all of them,
``FOLDERS`` the subfolders.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

from . import arabic, beatnet, charrnn, chemnet, fsdd, nnsplit, pjm, pyannote, resemblyzer, textgenrnn, turbofan
from .base import ZooModel as ZooModel

_FAMILIES = (arabic, beatnet, charrnn, chemnet, fsdd, nnsplit, pjm, pyannote, resemblyzer, textgenrnn, turbofan)
_LOADERS: Mapping[str, Callable[[Path], ZooModel]] = {
    "arabic": arabic.load,
    "beatnet": beatnet.load,
    **{f"charrnn-{author}": partial(charrnn.load, author=author) for author in charrnn.BITS},
    "chemnet": chemnet.load,
    **{f"fsdd-{task}": partial(fsdd.load, task=task) for task in fsdd.ACCURACY},
    **{f"nnsplit-{language}": partial(nnsplit.load, language=language) for language in nnsplit.TEXT},
    "pjm": pjm.load,
    "pyannote": pyannote.load,
    "resemblyzer": resemblyzer.load,
    **{f"textgenrnn-{variant}": partial(textgenrnn.load, variant=variant) for variant in textgenrnn.TITLES},
    "turbofan": turbofan.load,
}
NAMES = tuple(_LOADERS)
FOLDERS = frozenset(family.FOLDER for family in _FAMILIES)


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
    for name in names:
        if (model := load(name, zoo)).material is not None:
            yield model
