"""Whole batches on a native state, by addresses: in blocks of any size, on any number of threads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import adaptive_lstm as al
from adaptive_lstm.execution.native_stack import NativeStack
from adaptive_lstm.policies import parts
from adaptive_lstm.types import StackShape
from adaptive_lstm.weights.layout import tensors_of
from adaptive_lstm.weights.precision import Quantize
from adaptive_lstm.weights.quantization import quantize_stack

from .helpers import torch_lstm


@dataclass
class Ran:
    """What came out, what was counted, and how many threads served."""

    y: torch.Tensor
    h: torch.Tensor
    c: torch.Tensor
    counts: np.ndarray[Any, Any]
    exits: tuple[Any, ...]
    threads: int


def stack_of(shape: StackShape, policy: al.Policy, precision: Any) -> NativeStack:
    """Random weights in a precision, with a policy."""
    lstm = torch_lstm(
        shape.input_size,
        shape.hidden_size,
        shape.num_layers,
        proj_size=shape.proj_size,
        bidirectional=shape.bidirectional,
    )
    with torch.no_grad():
        matrices = quantize_stack(tensors_of(lstm), shape, Quantize(precision))
    return NativeStack(matrices, shape, parts(policy))


def forward(
    native: NativeStack,
    x: torch.Tensor,
    sizes: Sequence[int] | None,
    given: tuple[torch.Tensor, torch.Tensor],
    block: int,
    threads: int = 1,
) -> Ran:
    """x [B, T, I], or packed rows with ``sizes``, in blocks of so many rows."""
    shape, state = native.shape, native.acquire()
    rows, steps = (sizes[0], len(sizes)) if sizes else x.shape[:2]
    width = shape.directions * shape.output_size
    y, (h_0, c_0) = torch.full((*x.shape[:-1], width), float("nan")), given
    h, c = torch.empty(shape.num_cells, rows, shape.output_size), torch.empty(shape.num_cells, rows, shape.hidden_size)
    alive = torch.tensor(sizes or [0])
    at = (
        (0, x.shape[1], y.data_ptr(), 0, width)
        if sizes
        else (x.stride(1), x.stride(0), y.data_ptr(), width, y.stride(0))
    )
    start = (h_0.data_ptr(), h_0.stride(0), h_0.stride(1), c_0.data_ptr(), c_0.stride(0), c_0.stride(1))
    packed = alive.data_ptr() if sizes else 0
    assert state.forward(
        rows, x.data_ptr(), *at, steps, packed, True, h.data_ptr(), c.data_ptr(), *start, block, threads
    )
    columns, (checks, exits, depth_checks, depth_exits), _ = state.counters()
    used = state.threads
    native.release(state)
    return Ran(y, h, c, np.array(columns), (checks, exits, *depth_checks, *depth_exits), used)
