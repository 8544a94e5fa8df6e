"""A ``PackedSequence`` that was put together by hand may lead anywhere: it is checked before its memory is read."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence

from ..errors import InputError
from .plain import is_plain

MAKE = "torch.nn.utils.rnn.pack_padded_sequence makes one"


def check_packed(packed: PackedSequence) -> None:
    """Raise ``InputError`` unless the sizes cover the data, and the indices are permutations of the rows."""
    data, sizes = packed.data, packed.batch_sizes
    _check_sizes(data, sizes)
    rows = int(sizes[0])
    given = {"sorted_indices": packed.sorted_indices, "unsorted_indices": packed.unsorted_indices}
    orders = [_permutation(name, order, rows, data.device) for name, order in given.items() if order is not None]
    if len(orders) == 2 and not torch.equal(orders[0][orders[1]], torch.arange(rows, device=data.device)):
        raise InputError(
            f"got a PackedSequence whose unsorted_indices {_shown(orders[1])} do not undo its sorted_indices "
            f"{_shown(orders[0])}, expected the inverse permutation; {MAKE}"
        )


def _check_sizes(data: torch.Tensor, sizes: Any) -> None:
    plain = isinstance(sizes, torch.Tensor) and is_plain(sizes) and sizes.is_cpu and sizes.dtype == torch.int64
    falls = plain and sizes.dim() == 1 and len(sizes) > 0 and bool((sizes[1:] <= sizes[:-1]).all()) and sizes[-1] > 0
    # Each at most the data's rows, so that their sum cannot overflow.
    if data.dim() != 2 or not falls or int(sizes[0]) > len(data) or int(sizes.sum()) != len(data):
        got = f"{sizes.dtype} on {sizes.device}" if isinstance(sizes, torch.Tensor) else type(sizes).__name__
        values = f" {_shown(sizes)}" if plain else ""
        raise InputError(
            f"got a PackedSequence with data of shape {tuple(data.shape)} and batch sizes{values} ({got}), expected "
            f"data [sum(sizes), I] and int64 sizes on the CPU that are positive and never grow; {MAKE}"
        )


def _permutation(name: str, order: Any, rows: int, device: torch.device) -> torch.Tensor:
    """``order``, if it holds every number of a row once."""
    if not (isinstance(order, torch.Tensor) and is_plain(order)):
        raise InputError(f"{name} of a PackedSequence: got {type(order).__name__}, expected a tensor of int64; {MAKE}")
    whole = order.dtype == torch.int64 and order.device == device
    if not whole or order.shape != (rows,) or not torch.equal(order.sort().values, torch.arange(rows, device=device)):
        raise InputError(
            f"{name} of a PackedSequence: got {_shown(order)} ({order.dtype} on {order.device}), expected int64 on "
            f"{device} with every number below {rows}, the first of its batch sizes, once; {MAKE}"
        )
    return order


def _shown(numbers: torch.Tensor) -> str:
    """A few numbers, for people."""
    if numbers.is_meta:
        return "no values"
    few = numbers.flatten()[:8].tolist()
    return f"[{', '.join(map(str, few))}{', ...' if numbers.numel() > len(few) else ''}]"
