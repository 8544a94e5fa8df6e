"""The largest numbers of timesteps and checks."""

from __future__ import annotations

from ..codec import brief, is_whole
from ..errors import PolicyError

LONGEST = 2**30  # timesteps: the native core adds two such numbers in 32 bits
MOST_KEPT = 4096  # vectors that a run reserves for every batch row: 16 MB at a width of 1,024


def check_count(value: object, name: str, most: int) -> None:
    """Raise ``PolicyError`` unless it is a whole number from 1 to ``most``."""
    if not (is_whole(value) and 1 <= value <= most):
        raise PolicyError(f"{name}: got {brief(value)}, expected a whole number from 1 to {most:,}")
