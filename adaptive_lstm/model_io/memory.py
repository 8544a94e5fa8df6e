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

DEPTH = 3  # of objects in objects that a model remembers something in

_kept: ContextVar[Mapping[int, _Memory]] = ContextVar("kept", default=MappingProxyType({}))  # by id of models


@contextmanager
def memory_kept(model: nn.Module) -> Iterator[None]:
    """Inside the block the model may run; what it remembers on itself, buffers included, is then put back.

    So it is ahead of every ``model_io.call`` inside the block: what an input gives does not depend on those before.

    That holds for tensors and arrays in containers and in objects (dataclasses, for example) too. All of them stay the
    same objects, which may be shared. Parameters, submodules and the settings of LSTMs are not touched.
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


def _memory_names(module: nn.Module) -> set[str]:
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
        self._modules = [
            (module, {name: module.__dict__[name] for name in _memory_names(module)}) for module in model.modules()
        ]
        self._buffers = [(module._buffers, dict(module._buffers)) for module in model.modules()]
        self._tensors: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._arrays: list[tuple[np.ndarray, np.ndarray]] = []
        self._containers: list[tuple[Any, list[Any], bool]] = []  # what is in each, and whether an object holds it
        self._objects: list[tuple[dict[str, Any], dict[str, Any]]] = []
        values = [value for _, own in (*self._modules, *self._buffers) for value in own.values()]
        seen: set[int] = set()
        ahead = deque([(value, DEPTH) for value in values])  # those of least depth first
        while ahead:
            value, depth = ahead.popleft()
            if id(value) in seen:
                continue
            container = isinstance(value, dict | list | tuple | set | deque)
            if not container and not depth and _may_remember(value):
                continue
            seen.add(id(value))
            if container:
                parts = _entries(value)
                self._containers.append((value, parts, depth < DEPTH))
                ahead.extendleft((part, depth) for part in (value.values() if isinstance(value, dict) else parts))
            elif isinstance(value, torch.Tensor):
                if _may_be_written(value):
                    self._tensors.append((value, value.detach().clone()))
            elif type(value) is np.ndarray and value.flags.writeable and not value.dtype.hasobject:
                self._arrays.append((value, value.copy()))
            elif _may_remember(value):
                self._objects.append((vars(value), dict(vars(value))))
                ahead.extend((part, depth - 1) for part in vars(value).values())

    def put_back(self) -> None:
        """As it was; what has not changed is not written to."""
        for module, own in self._modules:
            for name in _memory_names(module) - own.keys():
                del module.__dict__[name]
            module.__dict__.update(own)
        for held, buffers in self._buffers:
            if list(held) != list(buffers) or any(map(operator.is_not, held.values(), buffers.values())):
                held.clear()
                held.update(buffers)
        for now, before in self._objects:
            for name in now.keys() - before.keys():
                if holds_tensors(now[name]):  # the rest of an object is its own affair
                    del now[name]
            now.update({name: value for name, value in before.items() if now.get(name) is not value})
        for container, parts, inside in self._containers:
            found = _entries(container)
            changed = len(found) != len(parts) or any(map(operator.is_not, found, parts))
            if changed and (not inside or holds_tensors(parts) or holds_tensors(found)):
                _refill(container, parts)
        with torch.inference_mode():  # tensors may have been made there
            for tensor, value in self._tensors:
                if tensor.shape != value.shape:
                    tensor.data = value.clone()
                elif not torch.equal(tensor, value):
                    tensor.copy_(value)
        for array, content in self._arrays:
            array[...] = content


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


def _may_remember(value: Any) -> bool:
    known = isinstance(value, nn.Module | torch.Tensor | type) or callable(value)
    return not known and hasattr(value, "__dict__") and not type(value).__module__.startswith("torch.")


def holds_tensors(value: Any) -> bool:
    """Whether a value is a tensor, or a container with one inside."""
    return next(tensors_in(value), None) is not None


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """A tensor itself, or those in a container, however deep."""
    seen, ahead = set[int](), [value]
    while ahead:
        one = ahead.pop()
        if isinstance(one, torch.Tensor):
            yield one
        if isinstance(one, dict | list | tuple | set | deque) and id(one) not in seen:
            seen.add(id(one))
            ahead.extend(one.values() if isinstance(one, dict) else one)
