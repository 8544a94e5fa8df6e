"""What a model holds outside its parameters and saved buffers, and no call changes; a certificate covers that too.

Buffers that are not saved, tensors and arrays in attributes, also in containers, objects and modules there, and whether
an LSTM takes batches first. Numbers and texts there often name or count something, or are settings of training.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from .. import codec
from ..model_io.attributes import Attributes, is_of_user, may_remember
from ..model_io.memory import DEPTH, memory_names
from ..weights.fingerprint import of_bytes

MOST_OF_NAME = 100  # characters of a key in a dict


def constants_of(model: nn.Module, lstms: Mapping[str, nn.Module], changed: Collection[int] = ()) -> dict[str, str]:
    """Shape and SHA-256 of every value, by where the model holds it.

    Args:
        model: any model.
        lstms: its LSTMs and cells by name.
        changed: ids of values that calls have changed or replaced; neither they nor what they hold is listed.
    """
    found = {
        f"{name}.batch_first".lstrip("."): _described((), repr(bool(lstm.batch_first)))
        for name, lstm in lstms.items()
        if isinstance(lstm, nn.LSTM)
    }
    values = itertools.islice(_Walk(model, changed).values(), codec.MAX_ITEMS - len(found))  # as a file may hold
    return found | {path.lstrip("."): one for path, value in values if (one := _digest(value))}


def other_constant(known: Mapping[str, str] | None, model: nn.Module, lstms: Mapping[str, nn.Module]) -> str | None:
    """Where a model holds another value than the one that was known there, or None.

    What a model no longer holds, or in another shape, it is expected to make by itself, such as a table that grows with
    the longest input: that is no other value.

    Args:
        known: what ``constants_of`` has found once; None: nothing.
        model: any model.
        lstms: its LSTMs and cells by name.
    """
    if not known:
        return None
    now = constants_of(model, lstms)
    return next((path for path, one in known.items() if path in now and _differ(now[path], one)), None)


class _Walk:
    """All values of a model by where it holds them, in an order that copies of the model share."""

    def __init__(self, model: nn.Module, changed: Collection[int]):
        self._model, self._changed, self._seen = model, changed, set[int]()
        self._known = {id(parameter) for parameter in model.parameters()}  # and what state_dict holds otherwise
        for module in model.modules():
            unsaved = module._non_persistent_buffers_set
            self._known.update(id(value) for name, value in module._buffers.items() if name not in unsaved)

    def values(self) -> Iterator[tuple[str, Any]]:
        for path, module in self._model.named_modules():
            self._seen.add(id(module))
            unsaved = {name: module._buffers.get(name) for name in sorted(module._non_persistent_buffers_set)}
            for name, value in (unsaved | _own(module)).items():
                yield from self._parts(f"{path}.{name}", value, DEPTH)

    def _parts(self, path: str, value: Any, depth: int) -> Iterator[tuple[str, Any]]:
        if id(value) in self._changed or id(value) in self._seen or id(value) in self._known:
            return
        if isinstance(value, torch.Tensor | np.ndarray):
            yield path, value
            return
        if not isinstance(value, dict | list | tuple | deque | nn.Module) and not (depth and may_remember(value)):
            return
        self._seen.add(id(value))
        if isinstance(value, dict):
            parts = {f"{path}[{key!r}]": one for key, one in value.items() if _is_name(key)}
        elif isinstance(value, list | tuple | deque):
            parts = {f"{path}[{i}]": one for i, one in enumerate(value)}
        elif isinstance(value, nn.Module):
            held = {**value._parameters, **value._buffers, **value._modules}
            parts = {f"{path}.{name}": one for name, one in (held | _own(value)).items()}
        else:
            parts = {f"{path}.{name}": one for name, one in sorted(Attributes(value).before.items())}
            depth -= 1
        for name, one in parts.items():
            yield from self._parts(name, one, depth)


def _is_name(key: Any) -> bool:
    return isinstance(key, str | int) and len(str(key)) <= MOST_OF_NAME


def _own(module: nn.Module) -> dict[str, Any]:
    """Attributes of a module, and of its classes."""
    of_classes = [Attributes(kind).before for kind in reversed(type(module).__mro__) if is_of_user(kind)]
    own = {name: module.__dict__[name] for name in memory_names(module)}
    return dict(sorted(({name: value for held in of_classes for name, value in held.items()} | own).items()))


def _digest(value: torch.Tensor | np.ndarray) -> str:
    """Shape and digest of a value; empty for what holds no numbers of its own."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "biufc":
            return ""
        numbers = value.astype(np.complex128 if value.dtype.kind == "c" else np.float64)
        return _described(value.shape, value.dtype.kind, numbers.tobytes())
    if type(value) not in (torch.Tensor, nn.Parameter):
        return ""
    if value.is_meta or value.is_nested or value.layout is not torch.strided:
        return ""
    return _described(tuple(value.shape), codec.digest(of_bytes(value)))


def _described(shape: tuple[int, ...], text: str, data: bytes = b"") -> str:
    return f"{list(shape)} {hashlib.sha256(text.encode() + data).hexdigest()}"


def _differ(now: str, known: str) -> bool:
    """Whether values of one shape are others."""
    return now != known and now.partition("]")[0] == known.partition("]")[0]
