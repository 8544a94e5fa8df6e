"""LSTMs as bytes in a tensor: what ``save(lstm, path, weights=True)`` writes, unpacked when a process first runs it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..artifact.artifact import dumps
from ..artifact.stacks import Stack, loads_stack
from ..artifact.weights import standing_in
from ..errors import InputError, ModelFileError, UnsupportedError
from ..execution.batch import Batch
from ..execution.executor import Executor
from ..runtime.in_graph import SIZE, by_handle
from ..weights.matrices import CellMatrices
from .torch_operator import Result

MOST = 64  # LSTMs that are kept unpacked


class StoredExecutor(Executor):
    """A compiled stack whose weights are in their precision already."""

    def __init__(self, stack: Stack, dtype: torch.dtype):
        settings = stack.settings
        super().__init__(
            standing_in(stack.cells),
            stack.shape,
            settings.quantize,
            settings.policy,
            replaced=stack.replaced,
            dtype=dtype,
        )
        self._stored = stack.cells

    def _matrices(self) -> tuple[CellMatrices, ...]:
        return self._stored


_unpacked: dict[tuple[str, torch.dtype], StoredExecutor] = {}


def packed(handle: str) -> torch.Tensor:
    """The LSTM of this process with a handle: uint8 [n], the 32 bytes of a digest and those of a file.

    Raises:
        UnsupportedError: its policy, or a head of it, is written in Python.
    """
    try:
        data, digest = dumps(by_handle(handle))
    except InputError as error:
        raise UnsupportedError(f"a saved program cannot hold this LSTM: {error}") from error
    return torch.from_numpy(np.frombuffer(bytes.fromhex(digest) + data, np.uint8).copy())


def run(x: torch.Tensor, hx: Any, model: torch.Tensor, digest: str, batch_first: bool) -> Result:
    """``output, h_n, c_n`` of what ``packed`` gave; all contiguous.

    Raises:
        InputError: an empty input, or one that does not fit.
        ModelFileError: the bytes are damaged.
        NonFiniteError: as a call of the LSTM.
    """
    executor = _executor(model, digest, x.dtype)
    if not x.numel():
        raise InputError(f"LSTM: got an empty input, {tuple(x.shape)}, expected at least one row and one timestep")
    with torch.no_grad():
        batch = Batch.of(x, hx, executor.shape, batch_first)
        y, h, c, *_ = executor.runner.run(batch)
        y, (h, c) = batch.restore(y, h, c)
        return y.contiguous(), h.contiguous(), c.contiguous()


def _executor(model: torch.Tensor, digest: str, dtype: torch.dtype) -> StoredExecutor:
    found = _unpacked.get((digest, dtype))
    if found is None:
        stack, of_stack = loads_stack(model.numpy(force=True)[SIZE:].tobytes())
        if of_stack != digest:
            raise ModelFileError("the LSTM in a program is not the one that was exported; export it again")
        found = StoredExecutor(stack, dtype)
        while len(_unpacked) >= MOST:
            _unpacked.pop(next(iter(_unpacked)), None)
        _unpacked[digest, dtype] = found
    return found
