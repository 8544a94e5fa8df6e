"""Read a model's sequences from an .npz file.

    x       [N, T, I] sequences of one length, or [sum of lengths, I] end to end; integers (tokens) have no I
    length  [N] the lengths, if the sequences lie end to end
    y       [N, ...] targets, one for each sequence; optional
    split   [N] "fit", "search" or "test" for each sequence; optional, for sequences that belong together (one speaker,
            one device) and must stay in one split

The model is called with one sequence at a time, batch first: x [1, T, I], float32, or [1, T], int64.
"""

from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray

from ..calibration.splits import Splits
from ..errors import InputError

ARRAYS = ("x", "length", "y", "split")
SPLITS = ("fit", "search", "test")

Array = NDArray[Any]
LabelledSequence = tuple[torch.Tensor, torch.Tensor | None]


def load_sequences(path: Path) -> list[LabelledSequence] | Splits[LabelledSequence]:
    """The sequences in a file as (inputs, target) pairs; the target is None without `y`.

    Raises:
        FileNotFoundError: there is no file.
        InputError: the file is not as described above.
    """
    arrays = read_arrays(path)
    unknown = sorted(set(arrays) - set(ARRAYS))
    if "x" not in arrays or unknown:
        found = ", ".join(arrays) or "nothing"
        raise InputError(f"{path} holds {found}; expected x, and optionally {', '.join(ARRAYS[1:])}")
    if not all(a.dtype.kind in "fiub" for name, a in arrays.items() if name != "split"):
        kinds = ", ".join(f"{name} {array.dtype}" for name, array in arrays.items())
        raise InputError(f"{path}: got {kinds}, expected numbers")
    inputs = _inputs(path, arrays["x"], arrays.get("length"))
    for name in ("y", "split"):
        if name in arrays and arrays[name].shape[:1] != (len(inputs),):
            shape = arrays[name].shape
            raise InputError(f"{path}: {name} has the shape {shape}, expected one row for each of {len(inputs)} in x")
    targets = list(torch.from_numpy(arrays["y"])) if "y" in arrays else [None] * len(inputs)
    pairs = list(zip(inputs, targets, strict=True))
    return _split(path, pairs, arrays["split"]) if "split" in arrays else pairs


def read_arrays(path: Path) -> dict[str, Array]:
    """All arrays of an .npz file by name.

    Raises:
        FileNotFoundError: there is no file.
        InputError: it is damaged, or holds objects.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (AttributeError, BadZipFile, EOFError, OSError, ValueError) as error:
        raise InputError(f"{path} is damaged or not an .npz file of numbers") from error


def _inputs(path: Path, x: Array, length: Array | None) -> list[torch.Tensor]:
    """The sequences, each with a batch dimension of 1."""
    tokens = x.dtype.kind in "iub"
    dimensions = (1 if tokens else 2) + (length is None)
    if x.ndim != dimensions:
        layout = "[sum of lengths, I]" if length is not None else "[N, T, I], or [sum of lengths, I] with length [N]"
        raise InputError(f"{path}: x has the shape {x.shape}, expected {layout} (no I for integers)")
    if not len(x):
        raise InputError(f"{path}: x has the shape {x.shape}, expected at least one sequence")
    values = torch.from_numpy(np.ascontiguousarray(x)).to(torch.int64 if tokens else torch.float32)
    if length is None:
        return list(values.split(1))
    if length.ndim != 1 or length.dtype.kind not in "iu" or not length.size or length.min() < 1:
        raise InputError(f"{path}: length is {length.dtype} {length.shape}, expected a list of integers above 0")
    if int(length.sum()) != len(x):
        raise InputError(f"{path}: the lengths add up to {int(length.sum())}, but x holds {len(x)} timesteps")
    return [part[None] for part in values.split(length.tolist())]


def _split(path: Path, pairs: list[LabelledSequence], names: Array) -> Splits[LabelledSequence]:
    unknown = sorted(set(names.tolist()) - set(SPLITS))
    missing = sorted(set(SPLITS) - set(names.tolist()))
    if unknown or missing:
        raise InputError(f"{path}: split has {sorted(set(names.tolist()))}, expected {', '.join(SPLITS)}, all three")
    parts = ([pair for pair, name in zip(pairs, names, strict=True) if name == each] for each in SPLITS)
    return Splits(*parts)
