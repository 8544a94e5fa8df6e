"""How much the heap grows while native steps run."""

import ctypes
import gc
from collections.abc import Callable

import pytest
import torch

from adaptive_lstm import _native


class MallocInfo(ctypes.Structure):
    """Of glibc's mallinfo2; bytes in use: 7 is allocated from the heap, 4 directly from the system."""

    _fields_ = [(f"f{i}", ctypes.c_size_t) for i in range(10)]


def heap_meter() -> Callable[[], int]:
    """Bytes on the heap. The address sanitizer keeps freed bytes, so there they count too."""
    library = ctypes.CDLL(None)
    if hasattr(library, "__sanitizer_get_heap_size"):
        size = library.__sanitizer_get_heap_size
        size.restype = ctypes.c_size_t
        return lambda: int(size())
    if not hasattr(library, "mallinfo2"):
        pytest.skip("this C library does not report how much is allocated")
    library.mallinfo2.restype = MallocInfo

    def used() -> int:
        info = library.mallinfo2()
        return int(info.f7 + info.f4)

    return used


def growth(state: _native.State, x: torch.Tensor, y: torch.Tensor, rounds: int) -> int:
    """Bytes that ``rounds`` passes over the frames x [T, B, I], step by step into y, add to the heap once warm."""
    used, addresses, out = heap_meter(), [row.data_ptr() for row in x], y.data_ptr()

    def steps(rounds: int) -> int:
        for _ in range(rounds):
            for address in addresses:
                state.step(address, out)
        return used()

    gc.collect()
    gc.disable()
    try:
        before = steps(3)
        return steps(rounds) - before
    finally:
        gc.enable()
