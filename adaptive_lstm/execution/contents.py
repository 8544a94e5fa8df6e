"""What memory held: whether bytes at an address are still the same. Native, or hashed without the extension."""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Sequence
from typing import Protocol

from .backend import native

Regions = Sequence[tuple[int, int]]
"""Addresses and sizes in bytes. Whoever gives them keeps the memory alive as long as it is compared."""


class Contents(Protocol):
    """What some regions held when this was made."""

    @property
    def looks(self) -> int:
        """How often ``look`` found no difference."""

    def look(self, timesteps: int) -> bool:
        """False if a difference is found.

        A few words of every region are compared at every look, everything within 4,096 timesteps.

        Args:
            timesteps: batch rows times timesteps that ran since the last look.
        """

    def whole(self) -> bool:
        """Whether everything is as it was."""

    def moved(self, regions: Regions, counted: Sequence[bool]) -> Contents | None:
        """The same for regions elsewhere; None if they hold something else.

        Args:
            regions: as many, in the same order.
            counted: of each, whether nothing was written to it, as far as torch counts.
        """

    def doubt(self) -> None:
        """The next look compares everything."""


def contents_of(regions: Regions, *, always: bool) -> Contents:
    """What some regions hold now; always: every look compares everything."""
    if not native():
        return HashedContents(regions)
    from .. import _native

    return _native.Contents(list(regions), always)


def doubt_all() -> None:
    """The next look at any contents compares everything."""
    if native():
        from .. import _native

        _native.Contents.doubt_all()


class HashedContents:
    """Every look compares everything, with a hash of the standard library."""

    def __init__(self, regions: Regions):
        self._regions, self._hashes = list(regions), list(map(_hash, regions))
        self.looks = 0

    def look(self, timesteps: int) -> bool:
        """As ``Contents.look``."""
        same = self.whole()
        self.looks += same
        return same

    def whole(self) -> bool:
        """As ``Contents.whole``."""
        return list(map(_hash, self._regions)) == self._hashes

    def moved(self, regions: Regions, counted: Sequence[bool]) -> HashedContents | None:
        """As ``Contents.moved``."""
        other = HashedContents(regions)
        other.looks = self.looks + 1
        return other if other._hashes == self._hashes else None

    def doubt(self) -> None:
        """As ``Contents.doubt``."""


def _hash(region: tuple[int, int]) -> bytes:
    address, size = region
    return hashlib.blake2b(ctypes.string_at(address, size)).digest()
