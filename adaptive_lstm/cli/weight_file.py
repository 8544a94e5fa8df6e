"""Read the tensors of a weight file, .safetensors or what torch.save writes, without executing code in it."""

import pickle
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import BinaryIO
from zipfile import BadZipFile, ZipFile

import torch
from safetensors.torch import load
from torch import Tensor

from .. import files, tensorfile
from ..errors import ModelFileError

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
_MAX_ENTRIES, _MAX_DEPTH = 10**6, 32  # of nested dicts


def read_weights(path: str) -> dict[str, Tensor]:
    """All tensors of a weight file by name; names in nested dicts are joined by dots.

    Raises:
        ModelFileError: missing, damaged, larger than memory, or with more in it than weights.
    """
    try:
        if path.endswith(".safetensors"):
            return load(tensorfile.contents(path))
        with files.open_file(path) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, for old kinds of storages
            _require_memory(file, path)
            return dict(_tensors(torch.load(file, map_location="cpu", weights_only=True), path))
    except ModelFileError:
        raise
    except pickle.UnpicklingError as error:
        raise ModelFileError(
            f"{path} is damaged or holds more than weights, which is not loaded because it may execute code; "
            "save a state_dict, or give file.py:factory"
        ) from error
    except Exception as error:  # damaged pickles make torch raise anything
        what = f"{type(error).__name__}: {error!s:.300}".splitlines()[0]
        raise ModelFileError(f"{path} is damaged or not a file of weights: {what}") from error


def _require_memory(file: BinaryIO, path: str) -> None:
    """Raise ``ModelFileError`` if what a compressed file unfolds to is larger than memory."""
    with suppress(BadZipFile), ZipFile(file) as entries:  # an older file is no archive
        files.require_memory(sum(entry.file_size for entry in entries.infolist()), path)
    file.seek(0)


def _tensors(found: object, path: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors in nested dicts, in order. Dicts in a file may contain themselves, or each other again and again."""
    left, seen = [(0, "", found)], 0
    while left:
        depth, name, value = left.pop()
        if isinstance(value, Tensor):
            yield name, value
        elif isinstance(value, Mapping):
            seen += len(value)
            if depth == _MAX_DEPTH or seen > _MAX_ENTRIES:
                raise ModelFileError(
                    f"{path}: got dicts nested deeper than {_MAX_DEPTH} levels, or more than {_MAX_ENTRIES:,} entries; "
                    "save a state_dict"
                )
            inner = [(depth + 1, f"{name}.{key}" if name else str(key), one) for key, one in value.items()]
            left += reversed(inner)
