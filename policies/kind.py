"""Everything the package knows about a class of policies beyond its protocol: one row, beside the class.

A class without a row of its own is still a policy: it runs on the reference executor, but it can be neither searched
by ``calibrate`` nor written to a file. Rows are not inherited: a subclass may decide otherwise than its parent, so it
needs its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..errors import PolicyError
from ..types import Counts, StackShape
from .sweep import FitData, Sweep

if TYPE_CHECKING:
    from .family import Family

Decision = Literal["columns", "hold", "time_exit", "depth_exit", "split"]
Need = Literal["sensitivity", "translators", "forgetting"]

_MARKS: Mapping[Decision, str] = {
    "columns": "send",
    "hold": "should_hold",
    "time_exit": "check_every",
    "depth_exit": "checks_after",
    "split": "warm_up",
}


@dataclass(frozen=True, eq=False, kw_only=True)
class PolicyKind:
    """One row: what is particular to a class of policies.

    ``name``: in files and tables; the name of the class.
    ``decision``: which of the five decisions its policies make, see ``adaptive_lstm.policies.protocol``.
    ``searched``: settings that the sweeps choose, and that ``Family`` therefore refuses.
    ``sweeps``: (family, fit data) -> sweeps for ``calibrate``; None: the class cannot be searched.
    ``needs``: what the sweeps read from the fit data besides the shapes.
    ``check_family``: (family, shape) -> raises ``PolicyError`` or ``UnsupportedError`` if no policy of the family fits
    the stack; None: the family's policy of default strength is checked.
    ``native``: (policy, shape) -> its settings as the numbers of ``native_form``, or None if this one holds Python code
    (a head); the field itself None: the class runs on the reference executor, but for one that splits sequences, whose
    chunks run natively.
    ``macs``: (policy, shape, counts of a run) -> multiply-accumulates of the policy's own checks; None: it has none.
    """

    name: str
    decision: Decision
    searched: tuple[str, ...] = ()
    sweeps: Callable[[Family, FitData], Iterable[Sweep]] | None = None
    needs: frozenset[Need] = frozenset()
    check_family: Callable[[Family, StackShape], None] | None = None
    native: Callable[[Any, StackShape], Any] | None = None
    macs: Callable[[Any, StackShape, Counts], int] | None = None


def row_of(policy: type) -> PolicyKind | None:
    """The row of a class of policies, or None if it has no row of its own."""
    row = vars(policy).get("kind")
    return row if isinstance(row, PolicyKind) else None


def kind_of(policy: object) -> PolicyKind:
    """The row of a policy's class; for a class without one, a row that only names its decision.

    Raises:
        PolicyError: no policy, or one that makes no decision or several.
    """
    row = row_of(type(policy))
    if row is not None:
        return row
    name = type(policy).__name__
    found = [decision for decision, mark in _MARKS.items() if hasattr(policy, mark)]
    if not hasattr(policy, "check"):
        raise PolicyError(f"got {name}, which lacks check(); see adaptive_lstm.policies.Policy")
    if len(found) != 1:
        raise PolicyError(
            f"{name} makes {len(found)} kinds of decision, expected one: ColumnPolicy (send), HoldPolicy "
            "(should_hold), TimeExitPolicy (check_every), DepthExitPolicy (checks_after) or SplitPolicy (warm_up); see "
            "adaptive_lstm.policies"
        )
    return PolicyKind(name=name, decision=found[0])
