"""Read a model's sequences from an .npz file.

    x       [N, T, I] sequences of one length, or [sum of lengths, I] end to end; integers (tokens) have no I
    length  [N] the lengths, if the sequences lie end to end
    y       [N, ...] targets, one for each sequence; optional
    split   [N] "fit", "search" or "test" for each sequence; optional, for sequences that belong together (one speaker,
            one device) and must stay in one split

The model is called with one sequence at a time, batch first: x [1, T, I], float32, or [1, T], int64. Numbers may have
any byte order; complex ones, objects and records are refused.
"""

from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
import numpy.typing as npt
import torch

from .. import files
from ..calibration.splits import Splits
from ..errors import AdaptiveLSTMError, InputError

ARRAYS = ("x", "length", "y", "split")
SPLITS = ("fit", "search", "test")

Array = npt.NDArray[Any]
LabelledSequence = tuple[torch.Tensor, torch.Tensor | None]


def load_sequences(path: Path) -> list[LabelledSequence] | Splits[LabelledSequence]:
    """The sequences in a file as (inputs, target) pairs; the target is None without `y`.

    Raises:
        ModelFileError: there is no file, or no regular one, or it unfolds to more than the memory.
        InputError: the file is not as described above.
    """
    arrays = read_arrays(path)
    unknown = sorted(set(arrays) - set(ARRAYS))
    if "x" not in arrays or unknown:
        found = ", ".join(arrays) or "nothing"
        raise InputError(f"{path} holds {found:.300}; expected x, and optionally {', '.join(ARRAYS[1:])}")
    if not all(a.dtype.kind in "fiub" for name, a in arrays.items() if name != "split"):
        kinds = ", ".join(f"{name} {array.dtype}" for name, array in arrays.items())
        raise InputError(f"{path}: got {kinds}, expected numbers")
    inputs = _inputs(path, arrays["x"], arrays.get("length"))
    for name in ("y", "split"):
        if name in arrays and arrays[name].shape[:1] != (len(inputs),):
            shape = arrays[name].shape
            raise InputError(f"{path}: {name} has the shape {shape}, expected one row for each of {len(inputs)} in x")
    targets = list(_targets(path, arrays["y"])) if "y" in arrays else [None] * len(inputs)
    pairs = list(zip(inputs, targets, strict=True))
    return _split(path, pairs, arrays["split"]) if "split" in arrays else pairs


def read_arrays(path: Path) -> dict[str, Array]:
    """All arrays of an .npz file by name.

    Raises:
        ModelFileError: there is no file, or no regular one, or it unfolds to more than the memory.
        InputError: it is damaged, or holds objects or something else than arrays.
    """
    with files.open_file(path) as file:
        try:
            with ZipFile(file) as entries:
                stored = entries.infolist()
                files.require_memory(sum(entry.file_size for entry in stored), path)
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                if len(set(arrays.files)) != len(stored):
                    raise InputError(f"{path} holds several arrays of one name: {', '.join(arrays.files):.300}")
                found = {name: arrays[name] for name in arrays.files}
        except AdaptiveLSTMError:
            raise
        except BadZipFile as error:
            file.seek(0)
            one = file.read(6) == b"\x93NUMPY"
            what = "is one .npy array" if one else "is damaged or not an .npz file of numbers"
            raise InputError(f"{path} {what}; save it with numpy.savez(path, x=...)") from error
        except Exception as error:  # damaged archives make zipfile, zlib and numpy raise anything
            raise InputError(f"{path} is damaged or not an .npz file of numbers") from error
    for name, array in found.items():
        if not isinstance(array, np.ndarray):
            raise InputError(f"{path} is damaged or not an .npz file of numbers: {name:.100} is no array")
    return found


def _inputs(path: Path, x: Array, length: Array | None) -> list[torch.Tensor]:
    """The sequences, each with a batch dimension of 1."""
    tokens = x.dtype.kind in "iub"
    dimensions = (1 if tokens else 2) + (length is None)
    if x.ndim != dimensions:
        layout = "[sum of lengths, I]" if length is not None else "[N, T, I], or [sum of lengths, I] with length [N]"
        raise InputError(f"{path}: x has the shape {x.shape}, expected {layout} (no I for integers)")
    if not len(x):
        raise InputError(f"{path}: x has the shape {x.shape}, expected at least one sequence")
    if not x.size:
        raise InputError(f"{path}: x has the shape {x.shape}, expected at least one timestep and one feature")
    values = torch.from_numpy(_converted(path, "x", x, np.int64 if tokens else np.float32))
    if length is None:
        return list(values.split(1))
    if length.ndim != 1 or length.dtype.kind not in "iu" or not length.size or length.min() < 1:
        raise InputError(f"{path}: length is {length.dtype} {length.shape}, expected a list of integers above 0")
    lengths = length.tolist()  # Python's integers, whose sum cannot overflow
    if sum(lengths) != len(x):
        raise InputError(f"{path}: the lengths add up to {sum(lengths)}, but x holds {len(x)} timesteps")
    return [part[None] for part in values.split(lengths)]


def _targets(path: Path, y: Array) -> torch.Tensor:
    """The targets [N, ...] in a dtype that torch has."""
    dtype = y.dtype.newbyteorder("=")
    if dtype.kind == "u" and dtype.itemsize > 1:
        dtype = np.dtype(np.int64)
    elif dtype.kind == "f" and dtype.itemsize > 8:
        dtype = np.dtype(np.float64)
    return torch.from_numpy(_converted(path, "y", y, dtype))


def _converted(path: Path, name: str, array: Array, dtype: npt.DTypeLike) -> Array:
    """The same numbers as another dtype, in the byte order of this machine and contiguous."""
    with np.errstate(over="ignore", invalid="ignore"):
        found = np.ascontiguousarray(array, dtype)
    if np.can_cast(array.dtype, found.dtype):
        return found
    lost = np.isinf(found) & np.isfinite(array) if found.dtype.kind == "f" else (found < 0) != (array < 0)
    if lost.any():
        raise InputError(f"{path}: {name} is {array.dtype} and holds numbers beyond {found.dtype}")
    return found


def _split(path: Path, pairs: list[LabelledSequence], names: Array) -> Splits[LabelledSequence]:
    if names.ndim != 1 or names.dtype.kind != "U":
        raise InputError(f"{path}: split is {names.dtype} {names.shape}, expected a list of {', '.join(SPLITS)}")
    unknown = sorted(set(names.tolist()) - set(SPLITS))
    missing = sorted(set(SPLITS) - set(names.tolist()))
    if unknown or missing:
        raise InputError(f"{path}: split has {sorted(set(names.tolist()))}, expected {', '.join(SPLITS)}, all three")
    parts = ([pair for pair, name in zip(pairs, names, strict=True) if name == each] for each in SPLITS)
    return Splits(*parts)
