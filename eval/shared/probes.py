"""Probes of one core: the fastest known calls that read, or multiply."""

from collections.abc import Callable

import torch

SIDE = 512  # of the matrices of the int8 product: 256 KiB each
FLOPS_SIDE = 256  # of the matrices of the float32 product: as many bytes


def read(size: int) -> Callable[[], object]:
    """A call that reads ``size`` bytes once: the search for a byte that does not occur (libc's memchr).

    It keeps one stream of loads in flight and nothing else; a dot product reaches half of it in the second-level cache,
    three quarters in the third, and as much from memory.
    """
    held = b"\x01" * size
    return lambda: held.find(b"\x00")


def multiply() -> Callable[[], object]:
    """A call that does FLOPS_SIDE^3 multiply-accumulates in float32."""
    a = torch.randn(FLOPS_SIDE, FLOPS_SIDE)
    return lambda: a @ a


def multiply_int8() -> Callable[[], object]:
    """A call that does SIDE^3 multiply-accumulates of int8."""
    a, b = (torch.randint(-127, 128, (SIDE, SIDE), dtype=torch.int8) for _ in range(2))
    return lambda: torch._int_mm(a, b)
