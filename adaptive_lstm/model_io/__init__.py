"""How any user's model is called, batch by batch, and which of its outputs is compared."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar, cast

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence
from torch.overrides import TorchFunctionMode

from ..codec import brief, is_iterable
from ..errors import AdaptiveLSTMError, InputError
from .attributes import holds_tensors, tensors_in
from .memory import memory_kept, put_back

RUNS = 3  # of one input: torch's generator may give the same draw twice in a row
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
    if isinstance(inputs, str | bytes) or not is_iterable(inputs):
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

    Inside ``memory_kept`` the model starts from what it remembered there at first.

    Raises:
        InputError: ``forward`` does not take such arguments, or fails on an input that is no tensor and holds none.
    """
    put_back(model)
    item = _outside_inference(item) if torch.is_grad_enabled() else item
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
        if not holds_tensors(item):
            raise InputError(
                f"inputs: got {brief(item)} as an input, on which {type(model).__name__} raised {type(error).__name__} "
                f"({error}), expected batches, each as the model takes it"
            ) from error
        raise


def _outside_inference(item: Any) -> Any:
    """The same, with copies of tensors that were made in inference mode, through which no gradients pass."""
    if isinstance(item, PackedSequence):
        return item._replace(data=_outside_inference(item.data))
    if type(item) is dict:
        return {key: _outside_inference(one) for key, one in item.items()}
    if type(item) in (tuple, list):
        return type(item)(map(_outside_inference, item))
    return item.clone() if isinstance(item, torch.Tensor) and item.is_inference() else item


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
            check_repeated(model, [first], [_once(model, item, output)])


def check_repeated(model: nn.Module, outputs: Sequence[torch.Tensor], again: Sequence[torch.Tensor]) -> None:
    """Raise ``InputError`` if the tensors that a model gave for one input are others the next time."""
    how = next(filter(None, map(_difference, outputs, again)), "" if len(outputs) == len(again) else "in number")
    if how:
        on = [name for name, module in model.named_modules() if module.training]
        where = (
            f"in training mode: {', '.join(on[:5])}"
            if on
            else "dropout, sampling, random crops, a state in a closure or a global variable?"
        )
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
        return picked(output, call(model, item)).detach().double()


def float_tensors(output: Any) -> list[torch.Tensor]:
    """All float tensors in what a model returns, in float64."""
    return [tensor.detach().double() for tensor in tensors_in(output) if tensor.is_floating_point()]


def require_function(output: object) -> None:
    """Raise ``InputError`` unless an argument ``output`` can pick a tensor from what a model returns."""
    if not callable(output):
        raise InputError(
            f"output: got {brief(output)}, expected a function that picks a tensor from what the model returns, for "
            "example lambda out: out['logits']"
        )


def picked(output: Callable[[Any], Any], made: Any) -> torch.Tensor:
    """The tensor that an argument ``output`` picks from what a model returned.

    Raises:
        InputError: it picks none.
    """
    try:
        tensor = output(made)
    except AdaptiveLSTMError:
        raise
    except Exception as error:
        what = f"raised {type(error).__name__} ({error!s:.200})"
        raise InputError(f"output: it {what} for what the model returned, {brief(made)}, {_PICKS}") from error
    if not isinstance(tensor, torch.Tensor):
        raise InputError(f"output: it gave {brief(tensor)} for what the model returned, {brief(made)}, {_PICKS}")
    return tensor


_PICKS = "expected a tensor, for example by lambda out: out['logits']"


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


def runs_model(function: Function) -> Function:
    """For functions of a model (the first argument) that run it, whatever surrounds their call.

    What the model remembers is put back afterwards. Inference mode, which lets no gradients pass, and autocast, under
    which torch serves the LSTMs, end at their door.
    """

    @functools.wraps(function)
    def inside(model: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(model, nn.Module):  # the function says what is wrong
            return function(model, *args, **kwargs)
        with ExitStack() as around:
            if torch.is_inference_mode_enabled():
                around.enter_context(torch.inference_mode(False))
                around.enter_context(torch.no_grad())
            for device in ("cpu", "cuda"):
                if torch.is_autocast_enabled(device):
                    around.enter_context(torch.autocast(device, enabled=False))
            around.enter_context(memory_kept(model))
            return function(model, *args, **kwargs)

    return cast("Function", inside)


def require_gradients(model: nn.Module) -> None:
    """Raise ``InputError`` if gradients cannot pass a model because its weights were made in inference mode."""
    if any(value.is_inference() for value in (*model.parameters(), *model.buffers())):
        raise InputError(
            "the model's weights were made under torch.inference_mode(), which lets no gradients pass; give "
            "copy.deepcopy(model), made outside of it"
        )
