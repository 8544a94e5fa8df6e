"""From a policy's plain numbers to the objects of the native core."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..policies import Parts, Policy, kind_of, members
from ..policies.affine import Affine
from ..policies.native_form import NativeColumns, NativeDepthExit, NativeHead, NativeHold, NativeTimeExit
from ..types import StackShape

if TYPE_CHECKING:
    from .. import _native


def runs_natively(policy: Parts, shape: StackShape) -> bool:
    """Whether every part of this policy can be given to the native core; others run on the reference executor.

    Where sequences are split is decided around either.
    """
    return all(_numbers(part, shape) is not None for part in policy.policies if part is not policy.split)


def python_part(policy: Policy) -> str:
    """The part of a policy that only Python can run, for people."""
    for part in members(policy):
        kind = kind_of(part)
        if kind.native is None:
            return f"policy {kind.name} is written in Python"
    return "the head is written in Python"


def packed_policy(policy: Parts, shape: StackShape) -> _native.Policy:
    """A policy that ``runs_natively`` for a stack of this shape."""
    from .. import _native

    return _native.policy(
        _columns(_numbers(policy.columns, shape), shape),
        _holds([_numbers(p, shape) for p in policy.hold]),
        None if policy.time_exit is None else _time_exit(_numbers(policy.time_exit, shape)),
        None if policy.depth_exit is None else _depth_exit(_numbers(policy.depth_exit, shape)),
    )


def _numbers(policy: Policy, shape: StackShape) -> Any:
    """What the kind of a policy converts it to, or None: it runs in Python."""
    native = kind_of(policy).native
    return None if native is None else native(policy, shape)


def _columns(numbers: NativeColumns, shape: StackShape) -> list[list[_native.Thresholds]]:
    from .. import _native

    cells = [_native.thresholds(x, h) for x, h in numbers.thresholds]
    return [cells[i : i + shape.directions] for i in range(0, shape.num_cells, shape.directions)]


def _holds(numbers: list[tuple[NativeHold | None, ...]]) -> list[_native.Hold | None]:
    """One entry per layer: the policy that decides on it, or None."""
    from .. import _native

    deciders = [next((hold for hold in layer if hold is not None), None) for layer in zip(*numbers, strict=True)]
    return [None if hold is None else _native.hold(hold.x_share, hold.h, hold.cap, hold.action) for hold in deciders]


def _time_exit(numbers: NativeTimeExit) -> _native.TimeExit:
    from .. import _native

    return _native.time_exit(
        numbers.check_every,
        numbers.patience,
        numbers.window,
        _head(numbers.head),
        list(numbers.starts),
        list(numbers.thresholds),
        list(numbers.map_starts),
        _affine(numbers.maps),
        _affine(numbers.logits),
    )


def _depth_exit(numbers: NativeDepthExit) -> _native.DepthExit | None:
    """None if no layer is ever checked."""
    from .. import _native

    if not any(numbers.checks):
        return None
    return _native.depth_exit(
        numbers.whole_sequences,
        _head(numbers.head),
        list(numbers.checks),
        list(numbers.thresholds),
        _affine(numbers.steps),
        _affine(numbers.finals),
        _affine(numbers.logits),
    )


def _head(numbers: NativeHead | None) -> _native.Head | None:
    from .. import _native

    return None if numbers is None else _native.head(numbers.sigmoid, numbers.measure)


def _affine(maps: tuple[Affine, ...]) -> list[_native.Affine]:
    from .. import _native

    return [_native.affine(m.weight, m.bias) for m in maps]
