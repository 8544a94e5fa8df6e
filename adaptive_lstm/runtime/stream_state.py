"""A state of torch tensors, before a stream takes it over."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..errors import StateError
from ..execution.plain import is_dense, is_plain, not_dense
from ..policies import Parts
from ..types import StackShape, StreamState
from . import state_check

_DTYPES: dict[type[np.generic], torch.dtype] = {np.int64: torch.int64, np.bool_: torch.bool}


def check_state(
    state: StreamState, shape: StackShape, batch: int, policy: Parts, dtype: torch.dtype, device: torch.device
) -> None:
    """Raise ``StateError`` unless a state is of this stack, batch size, policy, dtype and device, and is finite."""

    def read(name: str, tensor: Any, kind: type[np.generic] | None) -> np.ndarray:
        if not isinstance(tensor, torch.Tensor):
            raise StateError(f"{name}: got {type(tensor).__name__}, expected a tensor or None")
        if not is_dense(tensor):
            raise StateError(f"{name}: got {not_dense(tensor)}")
        want = dtype if kind is None else _DTYPES[kind]
        if tensor.dtype != want or tensor.device != device:
            raise StateError(f"{name}: got {tensor.dtype} on {tensor.device}, expected {want} on {device}")
        if not is_plain(tensor):
            raise StateError(f"{name}: got a tensor that is traced or transformed, expected plain memory")
        return tensor.numpy(force=True)

    state_check.check_state(state, shape, batch, policy, read)
