"""Recognise LSTMs among tensors by the names and shapes that `nn.LSTM` gives its parameters, and rebuild them."""

import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from .. import files
from ..errors import ModelFileError

_FIRST = "weight_ih_l0"
_PARAMETER = re.compile(r"(.*\.)?((?:weight|bias)_(?:ih|hh|hr)_l[0-9]+(?:_reverse)?)", re.DOTALL)
_COPIES = 3  # of the weights in memory: those of the file, of torch, and packed


def lstms_among(weights: Mapping[str, Tensor]) -> Iterator[tuple[str, nn.LSTM]]:
    """Every LSTM, in eval mode and float32, with its place in the model.

    Args:
        weights: by name, of any floating-point dtype.

    Raises:
        ModelFileError: tensors with the names of an LSTM's parameters cannot be those.
    """
    found: dict[str, dict[str, Tensor]] = {}
    for name, values in weights.items():
        if match := _PARAMETER.fullmatch(name):
            found.setdefault(match[1] or "", {})[match[2]] = values
    for prefix, state in found.items():
        if _FIRST in state and _is_lstm(state):
            yield prefix.rstrip("."), _rebuild(prefix, state)


def _is_lstm(state: Mapping[str, Tensor]) -> bool:
    """Whether there are four gates: GRU and RNN use the same names, with three gates and one."""
    first, recurrent = state[_FIRST], state.get("weight_hh_l0")
    if "weight_hr_l0" in state or recurrent is None:
        return True  # only LSTMs have a projection
    told = all(_problem(tensor) is None and tensor.dim() == 2 for tensor in (first, recurrent))
    return not told or len(first) == 4 * recurrent.shape[1]


def _rebuild(prefix: str, state: Mapping[str, Tensor]) -> nn.LSTM:
    for name, tensor in state.items():
        _check(prefix + name, tensor, 2 if name.startswith("weight") else 1)
    first, projection = state[_FIRST], state.get("weight_hr_l0")
    if len(first) % 4:
        raise ModelFileError(f"{prefix}{_FIRST}: got the shape {list(first.shape)}, expected [4 * hidden, input]")
    files.require_memory(_COPIES * 4 * sum(tensor.numel() for tensor in state.values()), f"the weights {prefix}*")
    with torch.device("meta"):  # allocates nothing before the shapes are compared
        lstm = nn.LSTM(
            input_size=first.shape[1],
            hidden_size=first.shape[0] // 4,
            num_layers=sum(re.fullmatch(r"weight_ih_l[0-9]+", name) is not None for name in state),
            bias="bias_ih_l0" in state,
            batch_first=True,
            bidirectional=f"{_FIRST}_reverse" in state,
            proj_size=_projected(prefix, first, projection),
        )
    try:
        lstm.load_state_dict({name: _float32(prefix + name, tensor) for name, tensor in state.items()}, assign=True)
    except RuntimeError as error:
        details = " ".join(str(error).split("\n\t")[1:])
        raise ModelFileError(f"the weights {prefix}* do not form an LSTM: {details}") from error
    return lstm.eval()


def _projected(prefix: str, first: Tensor, projection: Tensor | None) -> int:
    if projection is None:
        return 0
    if len(projection) >= len(first) // 4:
        raise ModelFileError(
            f"{prefix}weight_hr_l0: got the shape {list(projection.shape)}, expected fewer rows than the "
            f"{len(first) // 4} hidden units of {_FIRST}"
        )
    return len(projection)


def _problem(tensor: Tensor) -> str | None:
    """Why a tensor is not plain memory with floating-point numbers; None if it is."""
    if tensor.is_nested or tensor.layout != torch.strided:
        return "a sparse or nested tensor"
    if tensor.is_quantized:
        return "a quantized tensor"
    if tensor.device.type != "cpu" or type(tensor) not in (Tensor, nn.Parameter):
        return f"a {type(tensor).__name__} on the device {tensor.device.type}, which holds no values here"
    return None if tensor.is_floating_point() else str(tensor.dtype)


def _check(name: str, tensor: Tensor, dimensions: int) -> None:
    problem = _problem(tensor)
    if problem is not None:
        raise ModelFileError(f"{name}: got {problem}, expected a dense tensor of floating-point numbers")
    if tensor.dim() != dimensions or not tensor.numel():
        raise ModelFileError(
            f"{name}: got the shape {list(tensor.shape)}, expected {dimensions} dimension{'s' * (dimensions > 1)}, "
            "none of them 0"
        )


def _float32(name: str, tensor: Tensor) -> Tensor:
    """A copy of its own."""
    try:
        values = tensor.detach().resolve_neg().to(torch.float32).clone(memory_format=torch.contiguous_format)
    except RuntimeError as error:  # several numbers in a byte
        raise ModelFileError(f"{name}: got {tensor.dtype}, which torch cannot convert to float32") from error
    if not values.isfinite().all():
        raise ModelFileError(f"{name}: it holds NaN, infinity or values beyond float32, expected finite weights")
    return values
