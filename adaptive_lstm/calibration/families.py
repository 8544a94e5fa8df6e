"""The families that a calibration searches: which apply, and which cannot."""

from __future__ import annotations

import reprlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from .. import codec
from ..errors import AdaptiveLSTMError, InputError, PolicyError, UnsupportedError
from ..policies import Delta, ExitInTime, Family, HoldLayers, Policy, SkipTimesteps, SplitTime
from ..policies.family import searchable
from ..types import StackShape

EXITS = ("time_exit", "depth_exit")


def default_families(shapes: Mapping[str, StackShape], *, split: bool = False) -> list[Family]:
    """All families of this package that apply to every LSTM without knowing the head.

    Args:
        shapes: sizes of every LSTM of the model, by module name.
        split: whether splitting sequences can save what is to be saved (``check_splitting``).
    """
    classes = (Delta, SkipTimesteps, HoldLayers, ExitInTime, *([SplitTime] if split else []))
    return [family for family in map(Family, classes) if _refused(family, shapes) is None]


def check_splitting(families: Sequence[Family], objective: str, use: str) -> None:
    """Raise ``UnsupportedError`` for a family that splits sequences where that cannot save anything."""
    for family in families:
        if family.kind.decision != "split":
            continue
        if use == "stream":
            raise UnsupportedError(
                f"{family.name}: splits long sequences, and a stream is given one timestep after the other; say "
                "use='sequence', or search other policies"
            )
        if objective == "macs":
            raise UnsupportedError(
                f"{family.name}: saves time and no multiply-accumulates, of which warm-ups take more; say "
                "objective='latency', or search other policies"
            )


def check_families(
    policies: Sequence[Family | type[Policy]], shapes: Mapping[str, StackShape], like: torch.Tensor
) -> list[Family]:
    """The families to search; whatever is wrong with them is raised before any long work.

    Args:
        policies: families, or classes of policies, which stand for families without fixed settings.
        shapes: sizes of every LSTM of the model, by module name.
        like: a parameter of the model; heads are tried on zeros of its kind.

    Raises:
        InputError: none, something else than a family, two of a kind, or exits for a model with several LSTMs.
        PolicyError, UnsupportedError: a family, or its head, fits no LSTM of the model.
    """
    if not isinstance(policies, list | tuple) or not policies:
        raise InputError(
            f"policies: got {reprlib.repr(policies)}, expected a list such as "
            "[al.Delta, al.Family(al.ExitInTime, head=model.fc)]"
        )
    families = [_family(policy) for policy in policies]
    names = [family.name for family in families]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise InputError(f"policies: got more than one {', '.join(double)}, expected one of a kind")
    for family in families:
        error = _refused(family, shapes)
        if error is not None:
            raise error
        if family.kind.decision in EXITS:
            _check_once(family, next(iter(shapes.values())), like)
    return families


def warn_of_code(families: Sequence[Family]) -> None:
    """Say which families hold Python code: ``save`` refuses their policies, which must not come as a surprise later."""
    for family in families:
        try:
            codec.encode(dict(family.settings), family.name, {})
        except InputError as error:
            warnings.warn(
                f"{error}: save() will refuse a model with such a policy. To save it, give the exit a linear module "
                "or a LinearHead.",
                UserWarning,
                stacklevel=4,
            )


def _family(policy: object) -> Family:
    if isinstance(policy, Family):
        return policy
    try:
        searchable(policy)
    except PolicyError as error:
        raise InputError(f"policies: {error}") from error
    assert isinstance(policy, type)
    return Family(policy)


def _refused(family: Family, shapes: Mapping[str, StackShape]) -> AdaptiveLSTMError | None:
    """Why a family fits no LSTM of a model, or None. Its sweeps skip an LSTM that it does not fit."""
    if family.kind.decision in EXITS and len(shapes) > 1:
        return InputError(
            f"{family.name}: the model holds {len(shapes)} LSTMs, and an exit belongs to one; calibrate them one by "
            "one, or without exits"
        )
    errors: list[AdaptiveLSTMError] = []
    for shape in shapes.values():
        try:
            family.check(shape)
        except (PolicyError, UnsupportedError) as error:
            errors.append(error)
    return errors[0] if len(errors) == len(shapes) else None


def _check_once(family: Family, shape: StackShape, like: torch.Tensor) -> None:
    """Let an exit check a state of zeros, so that a head which does not take it shows before any long work."""
    policy: Any = family.make()
    state = like.new_zeros(1, shape.directions * shape.output_size)
    try:
        policy.should_exit(0, state, state if family.kind.decision == "depth_exit" else state[:, None])
    except (RuntimeError, TypeError) as error:
        raise PolicyError(
            f"{family.name}, head: it does not take states of shape {tuple(state.shape)}, {state.dtype}, as the LSTM "
            f"outputs: {error}"
        ) from error
