"""How any user's model is called, batch by batch, and which of its outputs is compared."""

from __future__ import annotations

import copy
import functools
import inspect
import operator
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence
from torch.overrides import TorchFunctionMode

from .codec import brief
from .errors import AdaptiveLSTMError, InputError

RUNS = 3  # of one input: torch's generator may give the same draw twice in a row
DEPTH = 3  # of objects in objects that a model remembers something in
REPEATED = 1e-3  # of the largest output: by so much two runs may differ, as sums in another order do

Model = TypeVar("Model", bound=nn.Module)
Function = TypeVar("Function", bound=Callable[..., Any])


class Opaque(nn.Module):
    """A model that something else than torch computes between its LSTMs: gradients end there."""


def as_batches(inputs: Iterable[Any]) -> Iterable[Any]:
    """Inputs batch by batch; one tensor or dict alone is one batch.

    Raises:
        InputError: something else.
    """
    if isinstance(inputs, torch.Tensor | PackedSequence | Mapping):
        return [inputs]
    if isinstance(inputs, str | bytes) or not isinstance(inputs, Iterable):
        raise InputError(f"inputs: got {type(inputs).__name__}, expected batches, each as the model takes it")
    return inputs


def batch_by_shape(sequences: Iterable[torch.Tensor], size: int = 32) -> list[torch.Tensor]:
    """Sequences [1, T, ...] of one shape in batches [n, T, ...], n <= ``size``: a pass takes a fraction of the time."""
    found: dict[tuple[int, ...], list[torch.Tensor]] = {}
    for x in sequences:
        found.setdefault(tuple(x.shape[1:]), []).append(x)
    return [torch.cat(some[i : i + size]) for some in found.values() for i in range(0, len(some), size)]


def call(model: nn.Module, item: Any) -> Any:
    """The model's output for one input.

    A tuple or list holds several arguments. A dict (any mapping) whose keys are all names of arguments of ``forward``
    holds arguments by name; any other dict is one argument. A batch of dataset keys, for example, stays one.

    Raises:
        InputError: ``forward`` does not take such arguments, or fails on an input that is no tensor and holds none.
    """
    if isinstance(item, Mapping) and _takes_names(type(model).forward, frozenset(map(str, item))):
        given: tuple[tuple[Any, ...], dict[str, Any]] = (), dict(item)
    elif isinstance(item, tuple | list) and not isinstance(item, PackedSequence):
        given = tuple(item), {}
    else:
        given = (item,), {}
    try:
        return model(*given[0], **given[1])
    except AdaptiveLSTMError:
        raise
    except Exception as error:
        if isinstance(error, TypeError):
            _check_signature(model, item, given, error)
        if not _holds_tensors(item):
            raise InputError(
                f"inputs: got {brief(item)} as an input, on which {type(model).__name__} raised {type(error).__name__} "
                f"({error}), expected batches, each as the model takes it"
            ) from error
        raise


@functools.lru_cache(maxsize=256)
def _takes_names(forward: Callable[..., Any], names: frozenset[str]) -> bool:
    """Whether all of these are arguments that a forward takes by name."""
    parameters = list(inspect.signature(forward).parameters.values())[1:]
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return bool(names)
    return bool(names) and names <= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}


def _check_signature(
    model: nn.Module, item: Any, given: tuple[tuple[Any, ...], dict[str, Any]], error: TypeError
) -> None:
    """Raise ``InputError`` if a call failed because of how it was made, and not of what happened inside."""
    signature = inspect.signature(model.forward)
    try:
        signature.bind(*given[0], **given[1])
    except TypeError as mismatch:
        got = f"a {type(item).__name__}"
        if isinstance(item, Mapping):
            got += f" with {', '.join(map(str, item))}"
        elif isinstance(item, tuple | list):
            got += f" of {len(item)}"
        raise InputError(
            f"inputs: got {got}, expected what {type(model).__name__}.forward{signature} takes ({mismatch}): an input "
            "alone for one argument, a tuple for several, a dict for arguments by name, such as "
            f"{{{', '.join(f'{name!r}: ...' for name in signature.parameters)}}}"
        ) from error


@torch.no_grad()
def check_repeatable(model: nn.Module, items: Iterable[Any], output: Callable[[Any], torch.Tensor]) -> None:
    """Run a model RUNS times on each of some inputs; to compare it with itself it must be deterministic.

    Raises:
        InputError: it gives another output the next time.
    """
    for item in items:
        first = _once(model, item, output)
        for _ in range(RUNS - 1):
            if how := _difference(first, _once(model, item, output)):
                on = [name for name, module in model.named_modules() if module.training]
                where = f"in training mode: {', '.join(on[:5])}" if on else "dropout, sampling, random crops?"
                raise InputError(
                    f"got two outputs for the same input that differ {how}, expected a model that repeats itself: what "
                    f"skipping or compression changes could not be told from chance. Switch the randomness off "
                    f"({where}), or seed it inside forward"
                )


def _difference(first: torch.Tensor, second: torch.Tensor) -> str:
    """How two outputs differ, in words; empty where they do not, beyond rounding."""
    if first.shape != second.shape:
        return f"in shape, {tuple(first.shape)} and {tuple(second.shape)}"
    size = float(first.nan_to_num(0.0, 0.0, 0.0).abs().max()) if first.numel() else 0.0
    if torch.allclose(first, second, rtol=0.0, atol=REPEATED * size, equal_nan=True):
        return ""
    return f"by up to {float((first - second).abs().max()):.2g} where the largest value is {size:.2g}"


def _once(model: nn.Module, item: Any, output: Callable[[Any], torch.Tensor]) -> torch.Tensor:
    with memory_kept(model):
        return output(call(model, item)).detach().double()


def require_function(output: object) -> None:
    """Raise ``InputError`` unless an argument ``output`` can pick a tensor from what a model returns."""
    if not callable(output):
        raise InputError(
            f"output: got {brief(output)}, expected a function that picks a tensor from what the model returns, for "
            "example lambda out: out['logits']"
        )


def first_tensor(output: Any) -> torch.Tensor:
    """The first tensor in what a model returns.

    Raises:
        InputError: it is no float tensor.
    """
    found = output
    while isinstance(found, tuple | list) and len(found):
        found = found[0]
    if not (isinstance(found, torch.Tensor) and found.is_floating_point()):
        raise InputError(
            f"the model returned {type(output).__name__}, and its first element is no float tensor; choose one, "
            "for example output=lambda out: out['logits']"
        )
    return found


def copied(model: Model) -> Model:
    """A deep copy, also of a pruned or weight-normed model: its computed weights are copied as they are now.

    What the model remembers after a forward with gradients, such as ``self.hx = (h, c)``, is copied too.

    Raises:
        InputError: it holds what cannot be copied, such as a lock or a generator.
    """
    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            module._update_flat_weights()  # torch.func.functional_call leaves its own there
    try:
        return cast("Model", deep_copied(model, {}))
    except AdaptiveLSTMError:
        raise
    except Exception as error:
        raise InputError(
            f"{type(model).__name__} cannot be copied by copy.deepcopy ({error!s:.200}); a copy is what is changed"
        ) from error


def deep_copied(value: Any, memo: dict[int, Any]) -> Any:
    """As ``copy.deepcopy``, and tensors of a graph too, as they are now."""
    with _AlsoOfGraphs():
        return copy.deepcopy(value, memo)


class _AlsoOfGraphs(TorchFunctionMode):
    """Inside the block tensors of a graph are deep-copied as they are now, wherever they lie: torch copies leaves."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch.Tensor.__deepcopy__ or args[0].is_leaf:
            return func(*args, **(kwargs or {}))
        tensor, memo = args
        if id(tensor) not in memo:
            memo[id(tensor)] = tensor.detach().clone()
        return memo[id(tensor)]


@contextmanager
def memory_kept(model: nn.Module) -> Iterator[None]:
    """Inside the block the model may run; what it remembers on itself, buffers included, is then put back.

    That holds for tensors and arrays in containers and in objects (dataclasses, for example) too. All of them stay the
    same objects, which may be shared. Parameters, submodules and the settings of LSTMs are not touched.
    """
    modules = [(module, {name: module.__dict__[name] for name in _memory_names(module)}) for module in model.modules()]
    buffers = [(module._buffers, dict(module._buffers)) for module in model.modules()]
    memory = _Memory([value for _, own in (*modules, *buffers) for value in own.values()])
    try:
        yield
    finally:
        for module, own in modules:
            for name in _memory_names(module) - own.keys():
                del module.__dict__[name]
            module.__dict__.update(own)
        for held, before in buffers:
            held.clear()
            held.update(before)
        memory.put_back()


def keeps_memory(function: Function) -> Function:
    """For functions of a model (the first argument) that run it: what it remembers is put back afterwards."""

    @functools.wraps(function)
    def inside(model: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(model, nn.Module):  # the function says what is wrong
            return function(model, *args, **kwargs)
        with memory_kept(model):
            return function(model, *args, **kwargs)

    return cast("Function", inside)


def _memory_names(module: nn.Module) -> set[str]:
    """Attributes that a forward may write: neither torch's own nor, of LSTMs, weights and settings."""
    names = {name for name in module.__dict__ if name != "training" and name not in _TORCHS}
    if isinstance(module, nn.LSTM):
        return {name for name in names if not name.startswith("_")} - {*_OF_LSTMS, *module._flat_weights_names}
    return names


_TORCHS = frozenset(nn.Module().__dict__)
_OF_LSTMS = frozenset(nn.LSTM(1, 1, device="meta").__dict__)


class _Memory:
    """What values hold now, also in containers and in objects with attributes of their own: all can be put back.

    Args:
        values: where to look.
    """

    def __init__(self, values: list[Any]):
        self._tensors: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._arrays: list[tuple[np.ndarray, np.ndarray]] = []
        self._containers: list[tuple[Any, list[Any]]] = []
        self._objects: list[tuple[dict[str, Any], dict[str, Any]]] = []
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
                self._containers.append((value, parts))
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
        for now, before in self._objects:
            for name in now.keys() - before.keys():
                if _holds_tensors(now[name]):  # the rest of an object is its own affair
                    del now[name]
            now.update({name: value for name, value in before.items() if now.get(name) is not value})
        for container, parts in self._containers:
            found = _entries(container)
            if len(found) != len(parts) or any(map(operator.is_not, found, parts)):
                _refill(container, parts)
        with torch.inference_mode():  # tensors may have been made there
            for tensor, value in self._tensors:
                if tensor.shape != value.shape:
                    tensor.data = value
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


def _holds_tensors(value: Any) -> bool:
    seen, ahead = set[int](), [value]
    while ahead:
        one = ahead.pop()
        if isinstance(one, torch.Tensor):
            return True
        if isinstance(one, dict | list | tuple | set | deque) and id(one) not in seen:
            seen.add(id(one))
            ahead.extend(one.values() if isinstance(one, dict) else one)
    return False
