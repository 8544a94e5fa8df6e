"""A tensor that is given to a stream or a pool, before its memory is read."""

from __future__ import annotations

import torch

from ..errors import InputError
from ..execution.plain import is_dense, is_plain, not_dense


def check_tensor(x: torch.Tensor, dtype: torch.dtype, device: torch.device) -> None:
    """Raise ``InputError`` unless x is plain memory of this dtype, on this device, that nobody traces."""
    if not isinstance(x, torch.Tensor):
        raise InputError(f"got {type(x).__name__}, expected a torch.Tensor")
    if not is_dense(x):
        raise InputError(f"got {not_dense(x)}")
    if x.dtype != dtype or x.device != device:
        raise InputError(f"got {x.dtype} on {x.device}, expected {dtype} on {device} like the weights")
    if not is_plain(x) or torch._C._get_tracing_state() is not None:
        raise InputError(
            "got a tensor that is traced, transformed or differentiated in forward mode, expected plain memory; a "
            "stream changes its own state, so trace or transform the module instead"
        )
