"""States of streams as numpy arrays, which the native core reads and writes, and as tensors, which users hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..types import StreamState
from .plain import resolved


def tensors(state: StreamState[np.ndarray]) -> StreamState:
    """Tensors that share the memory of the arrays."""
    return state.map(torch.from_numpy)


def arrays(state: StreamState) -> StreamState[np.ndarray]:
    """Arrays of contiguous values on the CPU, in memory of their own: an array would pin a tensor's storage."""

    def array(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
        return resolved(tensor.detach()).cpu().clone(memory_format=torch.contiguous_format).numpy()

    return state.map(array)
