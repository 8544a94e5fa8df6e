"""A ``PackedSequence`` that was put together by hand may lead anywhere: it is checked before its memory is read."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence

from ..errors import InputError
from .plain import is_plain, resolved

MAKE = "torch.nn.utils.rnn.pack_padded_sequence makes one"


def checked(packed: PackedSequence) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """Data, batch sizes, sorted and unsorted indices; the last three in memory, which zeros of torch may lack.

    Raises:
        InputError: the sizes do not cover the data, or the indices are no permutations of the rows.
    """
    data, (sizes, *given) = packed[0], map(_in_memory, packed[1:])
    _check_sizes(data, sizes)
    rows = int(sizes[0])
    names = ("sorted_indices", "unsorted_indices")
    for name, order in zip(names, given, strict=True):
        if order is not None:
            _check_permutation(name, order, rows, data.device)
    there, back = given
    both = there is not None and back is not None
    if both and not torch.equal(there[back], torch.arange(rows, device=data.device)):
        raise InputError(
            f"got a PackedSequence whose unsorted_indices {_shown(back)} do not undo its sorted_indices "
            f"{_shown(there)}, expected the inverse permutation; {MAKE}"
        )
    return data, sizes, there, back


def _in_memory(given: Any) -> Any:
    return resolved(given) if isinstance(given, torch.Tensor) and is_plain(given) else given


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


def _check_permutation(name: str, order: Any, rows: int, device: torch.device) -> None:
    """Raise ``InputError`` unless ``order`` holds every number of a row once."""
    if not (isinstance(order, torch.Tensor) and is_plain(order)):
        raise InputError(f"{name} of a PackedSequence: got {type(order).__name__}, expected a tensor of int64; {MAKE}")
    whole = order.dtype == torch.int64 and order.device == device
    if not whole or order.shape != (rows,) or not torch.equal(order.sort().values, torch.arange(rows, device=device)):
        raise InputError(
            f"{name} of a PackedSequence: got {_shown(order)} ({order.dtype} on {order.device}), expected int64 on "
            f"{device} with every number below {rows}, the first of its batch sizes, once; {MAKE}"
        )


def _shown(numbers: torch.Tensor) -> str:
    """A few numbers, for people."""
    if numbers.is_meta:
        return "no values"
    few = numbers.flatten()[:8].tolist()
    return f"[{', '.join(map(str, few))}{', ...' if numbers.numel() > len(few) else ''}]"
