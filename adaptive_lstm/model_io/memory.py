"""What a model remembers on itself between calls, and how it is put back by all that runs the model."""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import nn

from .attributes import Attributes, holds_tensors, is_of_user, may_remember

DEPTH = 3  # of objects in objects that a model remembers something in

_kept: ContextVar[Mapping[int, _Memory]] = ContextVar("kept", default=MappingProxyType({}))  # by id of models


@contextmanager
def memory_kept(model: nn.Module) -> Iterator[None]:
    """Inside the block the model may run; what it remembers on itself, buffers included, is then put back.

    So it is ahead of every ``model_io.call`` inside the block: what an input gives does not depend on those before.

    That holds for tensors and arrays in containers, in objects (dataclasses, for example, also with slots), in
    attributes of the classes of modules, and in modules that a container holds, too. All of them stay the same objects,
    which may be shared. Parameters, submodules and the settings of LSTMs are not touched. What a closure or a global
    variable holds is not found.
    """
    around = _kept.get()
    memory = around.get(id(model)) or _Memory(model)
    memory.put_back()
    token = _kept.set({**around, id(model): memory})
    try:
        yield
    finally:
        _kept.reset(token)
        memory.put_back()


def put_back(model: nn.Module) -> None:
    """Inside ``memory_kept``, what the model remembered when the block began."""
    if memory := _kept.get().get(id(model)):
        memory.put_back()


def changed(model: nn.Module) -> frozenset[int]:
    """Ids of the values that runs inside ``memory_kept`` have written to, or put others in place of."""
    memory = _kept.get().get(id(model))
    return frozenset() if memory is None else frozenset(memory.changed)


def memory_names(module: nn.Module) -> set[str]:
    """Attributes that a forward may write: neither torch's own nor, of LSTMs, weights and settings."""
    names = {name for name in module.__dict__ if name != "training" and name not in _TORCHS}
    if isinstance(module, nn.LSTM):
        return {name for name in names if not name.startswith("_")} - {*_OF_LSTMS, *module._flat_weights_names}
    if hasattr(type(module), "as_lstm"):  # an adaptive cell
        return {name for name in names if not name.startswith("_")} - _OF_CELLS
    return names


_TORCHS = frozenset(nn.Module().__dict__)
_OF_LSTMS = frozenset(nn.LSTM(1, 1, device="meta").__dict__)
_OF_CELLS = frozenset({*nn.LSTMCell(1, 1, device="meta").__dict__, "weight_ih", "weight_hh", "bias_ih", "bias_hh"})


class _Memory:
    """What a model remembers now, also in containers and in objects with attributes of their own, to be put back."""

    def __init__(self, model: nn.Module):
        self.changed: set[int] = set()  # ids of values that a run has written to or replaced
        self._modules: list[tuple[nn.Module, dict[str, Any]]] = []
        self._buffers: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._tensors: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._arrays: list[tuple[np.ndarray, np.ndarray]] = []
        self._containers: list[tuple[Any, list[Any], bool]] = []  # what is in each, and whether an object holds it
        self._objects: list[Attributes] = []
        self._seen: set[int] = set()
        self._ahead: deque[tuple[Any, int]] = deque()  # those of least depth first
        self._add_modules(model, DEPTH)
        while self._ahead:
            value, depth = self._ahead.popleft()
            if id(value) not in self._seen:
                self._add(value, depth)

    def _add_modules(self, model: nn.Module, depth: int) -> None:
        """A module with those inside, and the attributes of their classes, which others may share."""
        for module in model.modules():
            if id(module) in self._seen:
                continue
            self._seen.add(id(module))
            own, buffers = {name: module.__dict__[name] for name in memory_names(module)}, dict(module._buffers)
            self._modules.append((module, own))
            self._buffers.append((module._buffers, buffers))
            self._ahead.extend((value, depth) for value in (*own.values(), *buffers.values()))
            for kind in filter(is_of_user, type(module).__mro__):
                if id(kind) not in self._seen:
                    self._seen.add(id(kind))
                    self._add_object(kind, DEPTH)

    def _add_object(self, value: Any, depth: int) -> None:
        self._objects.append(Attributes(value))
        self._ahead.extend((part, depth - 1) for part in self._objects[-1].before.values())

    def _add(self, value: Any, depth: int) -> None:
        container = isinstance(value, dict | list | tuple | set | deque)
        if not container and not depth and may_remember(value):
            return
        if isinstance(value, nn.Module):
            self._add_modules(value, depth)
            return
        self._seen.add(id(value))
        if container:
            parts = _entries(value)
            self._containers.append((value, parts, depth < DEPTH))
            self._ahead.extendleft((part, depth) for part in (value.values() if isinstance(value, dict) else parts))
        elif isinstance(value, torch.Tensor):
            if _may_be_written(value):
                self._tensors.append((value, value.detach().clone()))
        elif type(value) is np.ndarray and value.flags.writeable and not value.dtype.hasobject:
            self._arrays.append((value, value.copy()))
        elif may_remember(value):
            self._add_object(value, depth)

    def put_back(self) -> None:
        """As it was; what has not changed is not written to."""
        for module, own in self._modules:
            self._replaced(module.__dict__, own)
            for name in memory_names(module) - own.keys():
                del module.__dict__[name]
            module.__dict__.update(own)
        for held, buffers in self._buffers:
            self._replaced(held, buffers)
            if list(held) != list(buffers) or any(map(operator.is_not, held.values(), buffers.values())):
                held.clear()
                held.update(buffers)
        for one in self._objects:
            self._replaced(one.now(), one.before)
            one.put_back()
        for container, parts, inside in self._containers:
            found = _entries(container)
            if len(found) != len(parts) or any(map(operator.is_not, found, parts)):
                self.changed.update([id(container), *map(id, parts)])
                if not inside or holds_tensors(parts) or holds_tensors(found):
                    _refill(container, parts)
        with torch.inference_mode():  # tensors may have been made there
            for tensor, value in self._tensors:
                if tensor.shape != value.shape:
                    tensor.data = value.clone()
                elif not torch.equal(tensor, value):
                    tensor.copy_(value)
                else:
                    continue
                self.changed.add(id(tensor))
        for array, content in self._arrays:
            if not np.array_equal(array, content):
                self.changed.add(id(array))
                array[...] = content

    def _replaced(self, now: Mapping[str, Any], before: Mapping[str, Any]) -> None:
        self.changed.update(id(value) for name, value in before.items() if now.get(name) is not value)


def _may_be_written(value: torch.Tensor) -> bool:
    """Not parameters, and of other tensors those with values of their own."""
    plain = type(value) is torch.Tensor and value.layout is torch.strided and not (value.is_nested or value.is_meta)
    repeats = plain and any(size > 1 and not stride for size, stride in zip(value.shape, value.stride(), strict=True))
    return plain and not repeats and not value.requires_grad


def _entries(container: Any) -> list[Any]:
    """What is in a container: values, or keys and values one after another."""
    if isinstance(container, dict):
        return [part for item in container.items() for part in item]
    return list(container)


def _refill(container: Any, entries: list[Any]) -> None:
    container.clear()
    if isinstance(container, dict):
        for key, value in zip(entries[::2], entries[1::2], strict=True):
            container[key] = value
    elif isinstance(container, set):
        container.update(entries)
    else:
        container.extend(entries)
