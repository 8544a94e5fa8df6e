"""Changes to the bytes of a file that know nothing of its format."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

Damage = Callable[[bytes, random.Random], bytes]


def flip(data: bytes, choice: random.Random) -> bytes:
    """Some bits, half of the time in the second half, where the arrays are."""
    changed = bytearray(data)
    begin = len(data) // 2 if choice.random() < 0.5 else 0
    for _ in range(choice.choice((1, 1, 1, 2, 8)) if data else 0):
        changed[choice.randrange(begin, len(data))] ^= 1 << choice.randrange(8)
    return bytes(changed)


def cut(data: bytes, choice: random.Random) -> bytes:
    """The end is lost."""
    return data[: choice.randrange(len(data) + 1)]


def leave_out(data: bytes, choice: random.Random) -> bytes:
    """A part is lost."""
    begin = choice.randrange(len(data) + 1)
    return data[:begin] + data[begin + choice.choice((1, 4, 64, 1000)) :]


def repeat(data: bytes, choice: random.Random) -> bytes:
    """A part is there twice."""
    begin, size = choice.randrange(len(data) + 1), choice.choice((1, 8, 500))
    return data[:begin] + data[begin : begin + size] + data[begin:]


def swap(data: bytes, choice: random.Random) -> bytes:
    """Two parts change places."""
    size = choice.choice((1, 4, 16, 300))
    if len(data) < 2 * size:
        return data
    first = choice.randrange(len(data) - 2 * size + 1)
    second = choice.randrange(first + size, len(data) - size + 1)
    a, b = data[first : first + size], data[second : second + size]
    return data[:first] + b + data[first + size : second] + a + data[second + size :]


def number(data: bytes, choice: random.Random) -> bytes:
    """An integer of 1 to 8 bytes becomes one that a size, a count or an offset is not."""
    form = choice.choice("BHIQ")
    size = struct.calcsize(form)
    if len(data) < size:
        return data
    at = choice.choice((0, choice.randrange(len(data) - size + 1)))
    top = 256**size
    value = choice.choice((0, 1, top - 1, top // 2, top // 2 - 1, choice.randrange(top), choice.randrange(1000) % top))
    return data[:at] + struct.pack(f"<{form}", value) + data[at + size :]


def character(data: bytes, choice: random.Random) -> bytes:
    """A printable character becomes another one, or is lost; where headers are text, they often stay valid."""
    places = [i for i, byte in enumerate(data[:6000]) if 32 < byte < 127]
    if not places:
        return data
    at = choice.choice(places)
    return data[:at] + choice.choice((b"", bytes([choice.randrange(32, 127)]), b"9", b"-", b'"')) + data[at + 1 :]


def append(data: bytes, choice: random.Random) -> bytes:
    """The file follows itself, or zeros, or a part of it follows."""
    return data + choice.choice((data, b"\0", bytes(4096), data[choice.randrange(len(data) + 1) :]))


DAMAGES: dict[str, Damage] = {
    one.__name__: one for one in (flip, cut, leave_out, repeat, swap, number, character, append)
}
