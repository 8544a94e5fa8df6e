"""Attributes of objects that may remember tensors, wherever they lie: in a dict, in slots, on a class."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from types import MemberDescriptorType
from typing import Any

import torch
from torch import nn


class Attributes:
    """The attributes of an object or a class as they are now, to be put back.

    Of an object, all that are still there are put back, and new ones go that hold tensors: the rest is its own affair.
    Of a class, which others share, only what holds tensors, or did.
    """

    def __init__(self, held: Any):
        self._held = held
        self._slots = {} if isinstance(held, type) else _slots(type(held))
        self.before = self.now()

    def now(self) -> dict[str, Any]:
        """By name."""
        if isinstance(self._held, type):
            return {name: value for name, value in vars(self._held).items() if not _belongs_to_class(name, value)}
        found = dict(getattr(self._held, "__dict__", {}))
        for name, slot in self._slots.items():
            with suppress(AttributeError):  # not set
                found[name] = slot.__get__(self._held)
        return found

    def put_back(self) -> None:
        """As they were; nothing is written to that has not changed."""
        now = self.now()
        for name in now.keys() - self.before.keys():
            if holds_tensors(now[name]):
                self._delete(name)
        for name, value in self.before.items():
            other = now.get(name)
            if other is not value and (not isinstance(self._held, type) or holds_tensors([other, value])):
                self._set(name, value)

    def _set(self, name: str, value: Any) -> None:
        if name in self._slots:
            self._slots[name].__set__(self._held, value)
        elif isinstance(self._held, type):
            setattr(self._held, name, value)
        else:
            vars(self._held)[name] = value

    def _delete(self, name: str) -> None:
        if name in self._slots:
            self._slots[name].__delete__(self._held)
        elif isinstance(self._held, type):
            delattr(self._held, name)
        else:
            del vars(self._held)[name]


def _slots(kind: type) -> dict[str, MemberDescriptorType]:
    """What objects of a class hold in slots, by name."""
    owners = [vars(one) for one in reversed(kind.__mro__) if "__slots__" in vars(one)]
    return {name: slot for own in owners for name, slot in own.items() if isinstance(slot, MemberDescriptorType)}


def _belongs_to_class(name: str, value: Any) -> bool:
    """Whether an attribute of a class is a part of the language or of its code, and remembers nothing."""
    return name.startswith("__") or callable(value) or hasattr(type(value), "__get__")


def is_of_user(kind: type) -> bool:
    """Whether a class is neither Python's own, nor torch's, nor of this package."""
    return kind.__module__.partition(".")[0] not in ("builtins", "abc", "typing", "torch", "adaptive_lstm")


def may_remember(value: Any) -> bool:
    """Whether a value is an object with attributes that a forward may write."""
    if value is None or isinstance(value, str | bytes | int | float | nn.Module | torch.Tensor | type):
        return False
    if callable(value) or type(value).__module__.startswith("torch."):
        return False
    return hasattr(value, "__dict__") or bool(_slots(type(value)))


def holds_tensors(value: Any) -> bool:
    """Whether a value is a tensor, or a container with one inside."""
    return next(tensors_in(value), None) is not None


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """A tensor itself, or those in a container, however deep."""
    seen, ahead = set[int](), [value]
    while ahead:
        one = ahead.pop()
        if isinstance(one, torch.Tensor):
            yield one
        if isinstance(one, dict | list | tuple | set | deque) and id(one) not in seen:
            seen.add(id(one))
            ahead.extend(one.values() if isinstance(one, dict) else one)
