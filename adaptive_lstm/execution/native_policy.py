"""Policies as the native kernels take them: plain numbers and packed matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from ..policies import Delta, Dense, ExitInDepth, ExitInTime, HoldLayers, LinearHead, Map, Parts, SkipTimesteps
from ..policies.affine import Affine
from ..types import FloatArray, Site, StackShape

if TYPE_CHECKING:
    from .. import _native


def runs_natively(policy: Parts) -> bool:
    """Whether the native kernels know every part of this policy; others run on the reference executor."""
    heads = [p.head for p in (policy.time_exit, policy.depth_exit) if isinstance(p, ExitInTime | ExitInDepth)]
    return (
        type(policy.columns) in (Delta, Dense)
        and all(type(p) in (SkipTimesteps, HoldLayers) for p in policy.hold)
        and type(policy.time_exit) in (type(None), ExitInTime)
        and type(policy.depth_exit) in (type(None), ExitInDepth)
        and all(type(head) in (type(None), LinearHead) for head in heads)
    )


def _map(m: Affine) -> _native.Affine:
    from .. import _native

    return _native.affine(m.weight, m.bias)


def _folded(head: LinearHead, m: Map) -> _native.Affine:
    """A head on a translated state as one map, multiplied in float64."""
    from .. import _native

    weight, bias = head.weight.astype(np.float64), head.bias.astype(np.float64)
    return _native.affine(
        (weight @ m.weight.astype(np.float64)).astype(np.float32),
        (weight @ m.bias.astype(np.float64) + bias).astype(np.float32),
    )


def _columns(policy: Parts, shape: StackShape) -> list[list[_native.Thresholds]]:
    from .. import _native

    def limits(cell: int, operand: Literal["x", "h"]) -> FloatArray | None:
        site = Site(shape, cell, operand)
        thresholded = isinstance(policy.columns, Delta) and policy.columns.thresholded(site)
        return policy.columns.threshold(site) if isinstance(policy.columns, Delta) and thresholded else None

    cells = [_native.thresholds(limits(cell, "x"), limits(cell, "h")) for cell in range(shape.num_cells)]
    return [cells[i : i + shape.directions] for i in range(0, shape.num_cells, shape.directions)]


def _holds(policy: Parts, shape: StackShape) -> list[_native.Hold | None]:
    from .. import _native

    out: list[_native.Hold | None] = []
    for layer in range(shape.num_layers if policy.hold else 0):
        decider = policy.decider(shape, layer)
        hold = None
        if isinstance(decider, SkipTimesteps | HoldLayers):
            hold = _native.hold(*decider.limits(layer), decider.cap, decider.action)
        out.append(hold)
    return out


def _time_exit(time: ExitInTime) -> _native.TimeExit:
    from .. import _native

    head = time.head if isinstance(time.head, LinearHead) else None
    maps = time.translators.maps if time.translators else ()
    logits = [] if head is None else [_folded(head, m) for m in maps] if time.translators else [_map(head)]
    return _native.time_exit(
        time.check_every,
        time.patience,
        time.window,
        None if head is None else _native.head(head.activation == "sigmoid", time.measure),
        list(time.starts or (0,)),
        list(time.thresholds),
        list(time.translators.starts if time.translators else (0,)),
        [_map(m) for m in maps],
        logits,
    )


def _depth_exit(depth: ExitInDepth, shape: StackShape) -> _native.DepthExit | None:
    """None if it never asks."""
    from .. import _native

    maps, asks = depth.translators, [depth.checks_after(shape, layer) for layer in range(shape.num_layers - 1)]
    if maps is None or not any(asks):
        return None
    head = depth.head if isinstance(depth.head, LinearHead) else None
    return _native.depth_exit(
        depth.level == "sequence",
        None if head is None else _native.head(head.activation == "sigmoid", depth.measure),
        asks,
        list(depth.thresholds),
        [_map(m) for m in maps.steps],
        [_map(m) for m in maps.finals],
        [] if head is None else [_folded(head, m) for m in (maps.finals if depth.level == "sequence" else maps.steps)],
    )


def packed_policy(policy: Parts, shape: StackShape) -> _native.Policy:
    """A policy that ``runs_natively`` for a stack of this shape."""
    from .. import _native

    return _native.policy(
        _columns(policy, shape),
        _holds(policy, shape),
        _time_exit(policy.time_exit) if isinstance(policy.time_exit, ExitInTime) else None,
        _depth_exit(policy.depth_exit, shape) if isinstance(policy.depth_exit, ExitInDepth) else None,
    )
