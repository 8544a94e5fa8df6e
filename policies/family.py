"""A family of policies for ``calibrate`` to search: a class, and the settings that are the same for all of them."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from types import MappingProxyType
from typing import Any

from ..codec import brief
from ..errors import PolicyError
from ..types import StackShape
from .combined import Combined, refuse_cell
from .kind import PolicyKind, row_of
from .protocol import Policy


@dataclass(frozen=True, init=False, eq=False, repr=False)
class Family:
    """Policies of one class that differ in their strength: ``Family(ExitInTime, head=model.fc, patience=2)``.

    Args:
        policy: a class of policies that can be searched: ``Delta``, ``SkipTimesteps``, ``HoldLayers``, ``ExitInTime``,
            ``ExitInDepth``, or your own with a ``PolicyKind`` that has sweeps.
        settings: fixed settings of the policy, by name. Its strengths (thresholds, limits, translators) are what the
            search chooses, so they cannot be given.

    Raises:
        PolicyError: no class that can be searched, an unknown setting, one that is searched, or an impossible value.
    """

    policy: type[Policy]
    settings: Mapping[str, Any]

    def __init__(self, policy: type[Policy], /, **settings: Any):
        kind = searchable(policy)
        free = [name for name in _settings_of(policy) if name not in kind.searched]
        for name in settings:
            if name in kind.searched:
                raise PolicyError(f"{name}: the search chooses it for {kind.name}; remove it from Family(...)")
            if name not in free:
                raise PolicyError(
                    f"{name}: {kind.name} has no such setting, expected {', '.join(sorted(free)) or 'none at all'}"
                )
        made = policy(**settings)  # raises if a value is impossible, and normalises it
        object.__setattr__(self, "policy", policy)
        object.__setattr__(self, "settings", MappingProxyType({name: getattr(made, name) for name in settings}))

    def __repr__(self) -> str:
        return f"Family({', '.join((self.name, *(f'{k}={reprlib.repr(v)}' for k, v in self.settings.items())))})"

    @property
    def kind(self) -> PolicyKind:
        """The row of the class."""
        return searchable(self.policy)

    @property
    def name(self) -> str:
        """The name of the class."""
        return self.kind.name

    def make(self, **strengths: Any) -> Policy:
        """The policy with these strengths; without any, the one that never acts."""
        return self.policy(**self.settings, **strengths)

    def check(self, shape: StackShape) -> None:
        """Raise ``PolicyError`` or ``UnsupportedError`` if no policy of this family fits the stack."""
        if shape.one_step:
            refuse_cell(self.name)
        if self.kind.check_family is not None:
            self.kind.check_family(self, shape)
        else:
            Combined(self.make()).check(shape)


def _settings_of(policy: type[Any]) -> list[str]:
    return [field.name for field in fields(policy) if field.init] if is_dataclass(policy) else []


def searchable(policy: object) -> PolicyKind:
    """The row of a class of policies that can be searched.

    Raises:
        PolicyError: it is a policy with fixed settings, or no class that can be searched.
    """
    if isinstance(policy, type):
        row = row_of(policy)
        if row is not None and row.sweeps is not None:
            return row
        raise PolicyError(
            f"got {brief(policy)}, expected a class of policies with search sweeps, such as Delta or "
            "ExitInTime; your own needs a PolicyKind with sweeps"
        )
    row, name = row_of(type(policy)), type(policy).__name__
    if row is not None and row.sweeps is not None:
        raise PolicyError(f"got {name}(...), a policy with fixed settings; write Family({name}) to search its strength")
    raise PolicyError(f"got {reprlib.repr(policy)}, expected a class of policies such as Delta, or Family(...)")
