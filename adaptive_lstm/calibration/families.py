"""The families of policies that a calibration searches: which apply, and which cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from ..errors import InputError, PolicyError, UnsupportedError
from ..policies import Combined, Delta, ExitInDepth, ExitInTime, HoldLayers, Policy, SkipTimesteps
from ..policies.head import Head, Measure, confidence
from ..types import StackShape


def default_families(shapes: Mapping[str, StackShape]) -> list[Policy]:
    """All families that apply to every LSTM without knowing the head."""
    families: list[Policy] = [Delta(), SkipTimesteps()]
    if any(shape.num_layers > 1 for shape in shapes.values()):
        families.append(HoldLayers())
    if len(shapes) == 1 and not next(iter(shapes.values())).bidirectional:
        families.append(ExitInTime())
    return families


def check_families(families: Sequence[Policy], shapes: Mapping[str, StackShape], like: torch.Tensor) -> None:
    """Raise what is wrong with the families before any long work.

    ``like``: a parameter of the model; heads are tried on zeros of its kind.

    Raises:
        InputError: none, not a policy of this package, two of a kind, or exits for a model with several LSTMs.
        PolicyError, UnsupportedError: a family or its head does not fit the stack.
    """
    known = (Delta, SkipTimesteps, HoldLayers, ExitInTime, ExitInDepth)
    if not isinstance(families, list | tuple) or not families:
        raise InputError(f"policies: got {families!r}, expected a list such as [Delta(), ExitInTime(head=model.fc)]")
    layers = max(shape.num_layers for shape in shapes.values())
    for family in families:
        if not isinstance(family, known):
            raise InputError(
                f"policies: got {family!r}, expected a list of Delta(), SkipTimesteps(), HoldLayers(), "
                "ExitInTime(...), ExitInDepth(...)"
            )
        if isinstance(family, ExitInTime | ExitInDepth) and len(shapes) > 1:
            raise InputError(
                f"{type(family).__name__}: the model holds {len(shapes)} LSTMs, and an exit belongs to one; calibrate "
                "them one by one, or without exits"
            )
        for shape in shapes.values():
            if isinstance(family, HoldLayers) and shape.num_layers < 2 <= layers:
                continue  # left out there
            Combined(_acting(family)).check(shape)
            if isinstance(family, ExitInTime | ExitInDepth) and family.head is not None:
                _try_head(family.head, family.measure, like.new_zeros(1, shape.directions * shape.output_size))
        if isinstance(family, ExitInDepth) and family.head is None and layers < 3:
            raise UnsupportedError(
                f"ExitInDepth without a head compares the translations of two layers below the top, and there are "
                f"{layers - 1}; give it the model's head: ExitInDepth(head=model.fc)"
            )
    names = [type(f).__name__ for f in families]
    double = sorted({n for n in names if names.count(n) > 1})
    if double:
        raise InputError(f"policies: got more than one {', '.join(double)}, expected one of a kind")


def _acting(family: Policy) -> Policy:
    """A family with strengths under which it does something, as the search will give it."""
    if isinstance(family, SkipTimesteps):
        return replace(family, x_share=_SOME)
    if isinstance(family, HoldLayers):
        return with_limit(family, _SOME)
    return family


_SOME = 0.1


def with_limit(family: HoldLayers, limit: float) -> HoldLayers:
    """The layers that may decide (all above the first, or those given) with this limit."""
    if isinstance(family.x_share, tuple):
        return replace(family, x_share=tuple(None if x is None else limit for x in family.x_share))
    return replace(family, x_share=limit)


def _try_head(head: Head, measure: Measure, state: torch.Tensor) -> None:
    try:
        confidence(head, state, measure)
    except (RuntimeError, TypeError) as error:
        raise PolicyError(
            f"head: it does not take states of shape {tuple(state.shape)}, {state.dtype}, as the LSTM outputs: {error}"
        ) from error
