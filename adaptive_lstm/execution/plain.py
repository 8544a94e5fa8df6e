"""Which tensors may enter the native core: those whose values lie at their address, as they are."""

from __future__ import annotations

import torch
from torch import nn, strided
from torch._C import _get_tracing_state, _len_torch_dispatch_stack
from torch._C._functorch import is_functorch_wrapped_tensor, maybe_current_level
from torch.autograd import forward_ad
from torch.nn.parameter import is_lazy


def is_plain(x: torch.Tensor) -> bool:
    """Whether nobody traces, transforms or differentiates a dense tensor in forward mode.

    Not plain: subclasses (``FakeTensor``), wrappers of ``torch.func`` and of functionalization, dual tensors with a
    tangent, tensors whose memory was freed, and any tensor while a dispatch mode records operations (``make_fx``), or
    inside a transform, which may have wrapped the weights.
    """
    return (
        (type(x) is torch.Tensor or type(x) is nn.Parameter)
        and x.layout is strided
        and not x.is_nested
        and not is_functorch_wrapped_tensor(x)
        and maybe_current_level() is None
        and not _len_torch_dispatch_stack()
        and (forward_ad._current_level < 0 or forward_ad.unpack_dual(x).tangent is None)
        and (x.data_ptr() != 0 or not x.is_cpu or x.numel() == 0 or x._is_zerotensor())
    )


def may_step(x: torch.Tensor) -> bool:
    """Whether a dense tensor may enter a stream as it is: plain, not traced, and its memory holds its values."""
    return not (
        x.is_neg()
        or is_functorch_wrapped_tensor(x)
        or _len_torch_dispatch_stack()
        or _get_tracing_state() is not None
        or forward_ad._current_level >= 0
        or x.data_ptr() == 0  # zeros without memory, and memory that was freed
    )


def resolved(x: torch.Tensor) -> torch.Tensor:
    """The same values in memory: without a lazy negative bit, and zeros that have memory."""
    if x.is_neg():
        return x.resolve_neg()
    return torch.zeros(x.shape, dtype=x.dtype, device=x.device) if x._is_zerotensor() else x


def is_dense(x: torch.Tensor) -> bool:
    """Whether a tensor is an array of numbers: not sparse, nested, quantized, of oneDNN's layout, lazy or freed."""
    return x.layout is strided and not x.is_nested and not x.is_quantized and not is_lazy(x) and not is_freed(x)


def is_freed(x: torch.Tensor) -> bool:
    """Whether the storage holds less than the tensor spans: all of it was freed, as sharding does, or a part.

    Most of torch reads such memory blindly.
    """
    numbers = x.numel()
    if type(numbers) is not int or not numbers:  # a symbol of an exporter, whose tensors have no memory
        return False
    try:
        if not x.is_contiguous():
            numbers = 1 + sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
        return x.untyped_storage().nbytes() < (x.storage_offset() + numbers) * x.element_size()
    except RuntimeError:  # wrappers of torch.func do not show their storage
        return False


def not_dense(x: torch.Tensor) -> str:
    """What a tensor that is not dense is, and what to do."""
    if x.is_nested:
        return "a nested tensor, expected a dense one; torch.nn.utils.rnn.pack_sequence joins sequences of any lengths"
    if x.is_quantized:
        return f"a quantized tensor ({x.dtype}), expected a dense one; call .dequantize() on it"
    if is_lazy(x):
        return f"{type(x).__name__}, which has no values yet; run the module that holds it once"
    if x.layout is strided:
        return "a tensor whose memory was freed (its storage was resized), expected its values"
    return f"a tensor of layout {x.layout}, expected a dense one; call .to_dense() on it"
