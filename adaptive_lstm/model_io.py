"""How any user's model is called, batch by batch, and which of its outputs is compared."""

from __future__ import annotations

import copy
import functools
import inspect
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar, cast

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
    """
    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            module._update_flat_weights()  # torch.func.functional_call leaves its own there
    return cast("Model", deep_copied(model, {}))


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

    That holds for tensors in containers and in objects (dataclasses, for example) too. Parameters, submodules and the
    settings of LSTMs are not touched.
    """
    before = [(module, _memory(module), dict(module._buffers)) for module in model.modules()]
    objects = [(one, _attributes(one)) for one in _objects_of(model)]
    values = [(b, b.detach().clone()) for b in model.buffers()]
    try:
        yield
    finally:
        for module, memory, buffers in before:
            for name in _memory_names(module) - memory.keys():
                del module.__dict__[name]
            module.__dict__.update(memory)
            module._buffers.clear()
            module._buffers.update(buffers)
        for one, attributes in objects:
            _put_back(vars(one), attributes)
        with torch.no_grad():
            for buffer, value in values:
                if not torch.equal(buffer, value):
                    buffer.copy_(value)


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
    """Attributes that a forward may write: neither torch's own nor those of LSTMs."""
    if isinstance(module, nn.LSTM):
        return set()
    return {name for name in module.__dict__ if name != "training" and name not in _TORCHS}


_TORCHS = frozenset(nn.Module().__dict__)


def _memory(module: nn.Module) -> dict[str, Any]:
    return {name: _kept(module.__dict__[name]) for name in _memory_names(module)}


def _kept(value: Any) -> Any:
    """Containers and tensors as they are now, whatever is written into them later; other objects themselves."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone() if type(value) is torch.Tensor and not value.requires_grad else value
    if isinstance(value, dict):
        out = copy.copy(value)  # of its own class
        for key, one in value.items():
            out[key] = _kept(one)
        return out
    if isinstance(value, list | deque):
        row = copy.copy(value)
        for i, one in enumerate(value):
            row[i] = _kept(one)
        return row
    if isinstance(value, tuple):
        return value._make(map(_kept, value)) if hasattr(value, "_make") else tuple(map(_kept, value))
    return value


def _objects_of(model: nn.Module) -> list[Any]:
    """Objects with attributes of their own that the modules of a model hold, also in containers and in each other."""
    found: dict[int, Any] = {}

    def look(value: Any, depth: int) -> None:
        if isinstance(value, dict):
            parts = list(value.values())
        elif isinstance(value, list | tuple | deque):
            parts = list(value)
        elif depth and id(value) not in found and _may_remember(value):
            found[id(value)], depth, parts = value, depth - 1, list(vars(value).values())
        else:
            return
        for part in parts:
            look(part, depth)

    for module in model.modules():
        look([module.__dict__[name] for name in _memory_names(module)], DEPTH)
    return list(found.values())


def _may_remember(value: Any) -> bool:
    known = isinstance(value, nn.Module | torch.Tensor | type) or callable(value)
    return not known and hasattr(value, "__dict__") and not type(value).__module__.startswith("torch.")


def _attributes(one: Any) -> dict[str, tuple[Any, Any]]:
    """Each attribute as it is, and as it is kept."""
    return {name: (value, _kept(value) if _holds_tensors(value) else value) for name, value in vars(one).items()}


def _put_back(now: dict[str, Any], attributes: dict[str, tuple[Any, Any]]) -> None:
    """What has changed or holds tensors; the rest of an object is its own affair."""
    for name in now.keys() - attributes.keys():
        if _holds_tensors(now[name]):
            del now[name]
    for name, (value, kept) in attributes.items():
        if kept is not value or now.get(name) is not value:
            now[name] = kept


def _holds_tensors(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_tensors, value.values()))
    if isinstance(value, list | tuple | deque):
        return any(map(_holds_tensors, value))
    return isinstance(value, torch.Tensor)
