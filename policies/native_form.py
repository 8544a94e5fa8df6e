"""Policies as the native core takes them: plain numbers, one class per decision.

A kind of policy that converts its settings to one of these runs natively (``PolicyKind.native``); a policy that holds
layers gives one ``NativeHold`` per layer, or None where it does not decide. The core knows these rules and no classes.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..types import FloatArray
from .affine import Affine
from .head import LinearHead, Measure
from .protocol import HoldAction
from .translators import Map


@dataclass(frozen=True, eq=False)
class NativeColumns:
    """Send column j when ``|value_j - sent_j| > threshold_j``.

    ``thresholds``: per cell, those of x [width] and of h [P]; None: the operand is computed densely.
    """

    thresholds: tuple[tuple[FloatArray | None, FloatArray | None], ...]


@dataclass(frozen=True)
class NativeHold:
    """Hold a layer while ``rms(x - x_used) < x_share * rms(x_used)`` and ``rms(h - h_used) < h``.

    ``x_share``, ``h``: None sets no condition.
    ``cap``: the longest run of held timesteps.
    """

    x_share: float | None
    h: float | None
    cap: int
    action: HoldAction


@dataclass(frozen=True)
class NativeHead:
    """How logits become a confidence."""

    sigmoid: bool
    measure: Measure

    @staticmethod
    def of(head: LinearHead | None, measure: Measure) -> NativeHead | None:
        """Of a linear head; None: exits compare translations."""
        return None if head is None else NativeHead(head.activation == "sigmoid", measure)


@dataclass(frozen=True, eq=False)
class NativeTimeExit:
    """An exit in time.

    ``starts``: first timestep of the bucket of each of ``thresholds``; ``map_starts``: of each translator in ``maps``,
    which is empty if the top layer's state is taken as it is. ``logits``: per translator (or one) the map from the
    states straight to logits; empty without a head.
    """

    check_every: int
    patience: int
    window: int
    head: NativeHead | None
    starts: tuple[int, ...]
    thresholds: tuple[float, ...]
    map_starts: tuple[int, ...]
    maps: tuple[Affine, ...]
    logits: tuple[Affine, ...]


@dataclass(frozen=True, eq=False)
class NativeDepthExit:
    """An exit in depth.

    ``whole_sequences``: whether sequences exit, or single timesteps. ``checks``, ``thresholds``, ``steps``, ``finals``,
    ``logits``: one entry per layer below the top; ``logits`` is empty without a head.
    """

    whole_sequences: bool
    head: NativeHead | None
    checks: tuple[bool, ...]
    thresholds: tuple[float, ...]
    steps: tuple[Map, ...]
    finals: tuple[Map, ...]
    logits: tuple[Affine, ...]
